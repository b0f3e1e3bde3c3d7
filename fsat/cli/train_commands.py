"""The commands that lead to a tagger: each turns its options into the arguments of an entry point in `fsat.commands`.

Those that use one are in `fsat.cli.tag_commands`, the small ones in `fsat.cli.data_commands`.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from fsat import __version__
from fsat.cli.options import (
    Commands,
    blend_options,
    cluster_of,
    cluster_options,
    config_options,
    debug_option,
    launch_options,
    parallel_option,
    source_options,
    threshold_options,
    with_options,
)
from fsat.config import PRESETS, Config
from fsat.errors import DataError
from fsat.options import Thresholds


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="fsat")
@debug_option
def cli() -> None:
    """Tag sounds: from a folder of labelled clips to a registered tagger, every step tracked by MLflow."""


@cli.command("main")
@source_options
@click.option("--models", metavar="A,B,...", help="Models to train. [default: the preset's, else dummy1d,conv1d]")
@with_options(launch_options)
@parallel_option
@with_options(cluster_options)
@with_options(blend_options)
@click.option("--output", default="tags.csv", show_default=True, metavar="FILE", help="Tags of the test clips, as CSV.")
@config_options
def main_command(
    data_dir: str | None,
    on_bad_clip: str,
    models: str | None,
    blend: str,
    register_as: str,
    promote: str,
    output: str,
    preset: str | None,
    **options: str | None,
) -> None:
    """All of it: eda, every fold of every model, ensemble, registration, tags.

    The other options hold for every model; without them each model has its own preset.
    """
    if models is None:
        models = options["model"] or PRESETS.get(preset, {}).get("model", "dummy1d,conv1d")
    names = _words(models)
    if not names:
        raise click.UsageError("--models is empty; expected names of models separated by commas")
    launch = _launch(options)
    configs = [Config.resolve({**options, "model": name}, preset) for name in dict.fromkeys(names)]
    source = _source(data_dir, on_bad_clip, options)
    from fsat.commands.main import main

    click.echo(main(source, configs, register_as, promote, Path(output), launch, blend))


@cli.command()
@source_options
def eda(data_dir: str | None, on_bad_clip: str) -> None:
    """Look at and listen to the data: a page of classes, waveforms, lengths, and all that is wrong with the clips."""
    source = _source(data_dir, on_bad_clip, {})
    from fsat.commands.eda import eda

    click.echo(eda(source))


@cli.command("train_fold")
@click.option("--fold", type=int, required=True, help="Number of the fold, from 0.")
@source_options
@with_options(launch_options)
@config_options
def train_fold(fold: int, data_dir: str | None, on_bad_clip: str, preset: str | None, **options: str | None) -> None:
    """Train one fold, or go on with it where it was stopped, unless it is FINISHED; prints its run id."""
    launch = _launch(options)
    config = Config.resolve(options, preset)
    if fold < 0:
        raise click.UsageError(f"--fold {fold}: expected 0 or more")
    source = _source(data_dir, on_bad_clip, options)
    from fsat.commands.train import train_fold

    click.echo(train_fold(source, config, fold, launch))


@cli.command("cross_validate")
@source_options
@with_options(launch_options)
@parallel_option
@with_options(cluster_options)
@config_options
def cross_validate(data_dir: str | None, on_bad_clip: str, preset: str | None, **options: str | None) -> None:
    """Train every fold of a study that is not FINISHED yet; prints the folds' run ids."""
    launch = _launch(options)
    config = Config.resolve(options, preset)
    source = _source(data_dir, on_bad_clip, options)
    from fsat.commands.train import cross_validate

    click.echo(",".join(record.run_id for record in cross_validate(source, config, launch)))


@cli.command()
@click.option("--run_ids", metavar="A,B,...", help="Fold runs to blend.")
@click.option("--studies", metavar="A,B,...", help="Studies to blend. [default: newest complete one]")
@with_options(blend_options)
@click.option("--allow_incomplete", type=bool, default=False, show_default=True, help="Blend though folds are missing.")
@click.option("--data_dir", metavar="DIR", help="Clips that report.html plays. [default: where they were trained on]")
def ensemble(
    run_ids: str | None,
    studies: str | None,
    blend: str,
    register_as: str,
    promote: str,
    allow_incomplete: bool,
    data_dir: str | None,
) -> None:
    """Blend fold runs, score the blend, register it as a tagger; report.html of its run shows what it came to."""
    chosen = _chosen(run_ids, studies)
    from fsat.commands.ensemble import ensemble

    made = ensemble(*chosen, register_as, promote, allow_incomplete, blend, data_dir)
    table = made.scores.drop(columns=["run_id"])
    click.echo(table.to_string(index=False, float_format=lambda value: f"{value:.4f}"))
    click.echo(f"ensemble run {made.run_id}")
    click.echo(made.registered.outcome)
    click.echo(made.compare)


@cli.command()
@click.option("--run_ids", metavar="A,B,...", help="Fold runs whose out-of-fold predictions decide.")
@click.option("--studies", metavar="A,B,...", help="Studies that decide. [default: newest complete one]")
@with_options(threshold_options)
def verify(
    run_ids: str | None,
    studies: str | None,
    accept_at: float,
    relabel_at: float,
    drop_at: float,
) -> None:
    """Decide on unverified labels by out-of-fold predictions; prints the run id, for labels_run_id."""
    chosen = _chosen(run_ids, studies)
    thresholds = Thresholds(accept_at, relabel_at, drop_at)
    from fsat.commands.verify import verify

    click.echo(verify(*chosen, thresholds).run_id)


def _chosen(run_ids: str | None, studies: str | None) -> tuple[list[str], list[str]]:
    """The ids in both options."""
    chosen = _words(run_ids or ""), _words(studies or "")
    for name, given, words in zip(("run_ids", "studies"), (run_ids, studies), chosen, strict=True):
        if given is not None and not words:
            raise click.UsageError(f"--{name} is empty; expected ids separated by commas")
    return chosen


def _launch(options: dict[str, Any]) -> Any:
    """How folds are to be started; takes what says so out of the options."""
    from fsat.options import Launch

    cluster = cluster_of(options)
    return Launch(
        cluster=cluster, **{spec.name: options.pop(spec.name) for spec in fields(Launch) if spec.name in options}
    )


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _source(data_dir: str | None, on_bad_clip: str, options: dict[str, str | None]) -> Any:
    """The dataset that the options mean; a missing folder is noticed before anything heavy is imported."""
    from fsat.data.dataset import Source
    from fsat.data.synth import data_dir_or_default

    folder = data_dir_or_default(data_dir)
    if not folder.is_dir():
        what = "not a folder" if folder.exists() else "no such folder"
        raise DataError(f"{folder.absolute()}: {what}; expected one with train.csv and audio_train/ (data_dir=DIR)")
    return Source(folder, on_bad_clip, n_folds_given=options.get("n_folds") is not None)
