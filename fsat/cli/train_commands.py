"""Commands that make a tagger: each turns its options into the arguments of a function in `fsat.commands`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fsat.cli.options import (
    blend_options,
    cluster_options,
    config_options,
    options_of,
    run_options,
    source_of,
    source_options,
    split_words,
    take,
    take_launch,
    take_run_ids,
)
from fsat.config import Config
from fsat.options import Launch, Thresholds
from fsat.presets import PRESETS


@click.command("main")
@source_options
@click.option("--models", metavar="A,B,...", help="Models to train. [default: the preset's, else dummy1d,conv1d]")
@options_of(Launch)
@cluster_options
@blend_options
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
    **options: Any,
) -> None:
    """Run all steps: eda, training, ensemble and tags.

    Settings hold for every model; without them each model has its own preset.
    """
    if models is None:
        models = options["model"] or PRESETS.get(preset or "", {}).get("model", "dummy1d,conv1d")
    names = split_words("models", models)
    launch = take_launch(options)
    configs = [Config.resolve({**options, "model": name}, preset) for name in dict.fromkeys(names)]
    source = source_of(data_dir, on_bad_clip, options)
    from fsat.commands.main import main

    click.echo(main(source, configs, register_as, promote, Path(output), launch, blend))


@click.command()
@source_options
def eda(data_dir: str | None, on_bad_clip: str) -> None:
    """Write a page of a dataset's classes, sounds and faults.

    Prints the run id; eda.html of the run has waveforms, lengths, and all faults of the clips.
    """
    source = source_of(data_dir, on_bad_clip, {})
    from fsat.commands.eda import eda

    click.echo(eda(source))


@click.command("train_fold")
@click.option("--fold", type=int, required=True, help="Number of the fold, from 0.")
@source_options
@options_of(Launch, without=("parallel_folds",))
@config_options
def train_fold(fold: int, data_dir: str | None, on_bad_clip: str, preset: str | None, **options: Any) -> None:
    """Train one fold, or resume it; print its run id.

    A FINISHED fold is not trained again.
    """
    if fold < 0:
        raise click.UsageError(f"--fold {fold}: expected 0 or more")
    launch = take_launch(options)
    config = Config.resolve(options, preset)
    source = source_of(data_dir, on_bad_clip, options)
    from fsat.commands.train import train_fold

    click.echo(train_fold(source, config, fold, launch))


@click.command("cross_validate")
@source_options
@options_of(Launch)
@cluster_options
@config_options
def cross_validate(data_dir: str | None, on_bad_clip: str, preset: str | None, **options: Any) -> None:
    """Train every fold of a study; print their run ids.

    FINISHED folds are not trained again, and interrupted ones are resumed.
    """
    launch = take_launch(options)
    config = Config.resolve(options, preset)
    source = source_of(data_dir, on_bad_clip, options)
    from fsat.commands.train import cross_validate

    click.echo(",".join(record.run_id for record in cross_validate(source, config, launch)))


@click.command()
@run_options
@blend_options
@click.option(
    "--allow_incomplete", type=bool, default=False, show_default=True, help="Blend studies with missing folds."
)
@click.option(
    "--data_dir", metavar="DIR", help="Folder of the clips that report.html plays. [default: that of the training]"
)
def ensemble(
    blend: str, register_as: str, promote: str, allow_incomplete: bool, data_dir: str | None, **options: Any
) -> None:
    """Blend fold runs and register the blend as a tagger.

    Prints out-of-fold scores; report.html of the run shows the results.
    """
    chosen = take_run_ids(options)
    from fsat.commands.ensemble import ensemble

    result = ensemble(*chosen, register_as, promote, allow_incomplete, blend, data_dir)
    table = result.scores.drop(columns=["run_id"])
    click.echo(table.to_string(index=False, float_format=lambda value: f"{value:.4f}"))
    click.echo(f"ensemble run {result.run_id}")
    click.echo(result.registered.outcome)
    click.echo(result.compare)


@click.command()
@run_options
@options_of(Thresholds)
def verify(**options: Any) -> None:
    """Accept, replace or drop unverified labels.

    Out-of-fold predictions decide. Prints the run id, a value for labels_run_id.
    """
    chosen, thresholds = take_run_ids(options), take(Thresholds, options)
    from fsat.commands.verify import verify

    click.echo(verify(*chosen, thresholds).run_id)
