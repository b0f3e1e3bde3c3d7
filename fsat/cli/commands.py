"""The commands: each turns its options into the arguments of an entry point in `fsat.pipeline`."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from fsat import __version__
from fsat.cli.options import (
    Commands,
    blend_options,
    check_count,
    cluster_options,
    config_options,
    debug_option,
    launch_options,
    parallel_option,
    source_options,
    tag_options,
    threshold_options,
    with_options,
)
from fsat.config import PRESETS, Config
from fsat.errors import DataError
from fsat.presets import EXPORT_FORMATS
from fsat.tag_settings import TagSettings
from fsat.thresholds import Thresholds


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
    from fsat.pipeline.main import main

    click.echo(main(source, configs, register_as, promote, Path(output), launch, blend))


@cli.command()
@source_options
def eda(data_dir: str | None, on_bad_clip: str) -> None:
    """Look at the data: classes, waveforms, lengths, and all that is wrong with the clips."""
    source = _source(data_dir, on_bad_clip, {})
    from fsat.pipeline.eda import eda

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
    from fsat.pipeline.training import train_fold

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
    from fsat.pipeline.training import cross_validate

    click.echo(",".join(record.run_id for record in cross_validate(source, config, launch)))


@cli.command()
@click.option("--run_ids", metavar="A,B,...", help="Fold runs to blend.")
@click.option("--studies", metavar="A,B,...", help="Studies to blend. [default: newest complete one]")
@with_options(blend_options)
@click.option("--allow_incomplete", type=bool, default=False, show_default=True, help="Blend though folds are missing.")
def ensemble(
    run_ids: str | None, studies: str | None, blend: str, register_as: str, promote: str, allow_incomplete: bool
) -> None:
    """Blend fold runs, score the blend, register it as a tagger."""
    chosen = _chosen(run_ids, studies)
    from fsat.pipeline.ensemble import ensemble

    made = ensemble(*chosen, register_as, promote, allow_incomplete, blend)
    table = made.scores.drop(columns=["run_id"])
    click.echo(table.to_string(index=False, float_format=lambda value: f"{value:.4f}"))
    click.echo(f"ensemble run {made.run_id}")
    click.echo(made.registered.news)


@cli.command()
@click.option("--run_ids", metavar="A,B,...", help="Fold runs whose out-of-fold predictions decide.")
@click.option("--studies", metavar="A,B,...", help="Studies that decide. [default: newest complete one]")
@with_options(threshold_options)
@with_options(cluster_options)
def verify(
    run_ids: str | None,
    studies: str | None,
    accept_at: float,
    relabel_at: float,
    drop_at: float,
    **options: str,
) -> None:
    """Decide on unverified labels by out-of-fold predictions; prints the run id, for labels_run_id."""
    chosen = _chosen(run_ids, studies)
    thresholds, cluster = Thresholds(accept_at, relabel_at, drop_at), _cluster(options)
    from fsat.pipeline.verify import verify

    click.echo(verify(*chosen, thresholds, cluster).run_id)


@cli.command()
@click.option(
    "--input",
    required=True,
    metavar="PATH",
    help="A file; a folder, with all WAV, FLAC, OGG and MP3 files below it; a glob; a CSV file with a column fname or "
    "a .txt file of names; or - for a list on standard input.",
)
@click.option(
    "--output",
    default="tags.csv",
    show_default=True,
    metavar="FILE",
    help="Where to write the table: .csv, .jsonl or .parquet.",
)
@click.option(
    "--model",
    default="models:/fsat@champion",
    show_default=True,
    metavar="URI|ALIAS",
    help="Tagger to use: an MLflow URI, NAME@ALIAS, or an alias or version of fsat.",
)
@with_options(tag_options)
@click.option(
    "--label_tracks",
    "--label-tracks",
    default=None,
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="With --window: write an Audacity label track for each recording to this folder.",
)
@click.option(
    "--resume",
    type=bool,
    default=True,
    show_default=True,
    help="Go on with a tagging that was stopped, whose results so far are kept beside the output.",
)
@click.option(
    "--workers",
    default="auto",
    show_default=True,
    metavar="N|auto",
    callback=check_count,
    help="Processes to tag with on this machine; auto is one for every four cores.",
)
@with_options(cluster_options)
def predict(
    input: str,
    output: str,
    model: str,
    label_tracks: Path | None,
    resume: bool,
    workers: str,
    **options: Any,
) -> None:
    """Tag files with a registered tagger: one, a folder or millions; or give tags over time."""
    cluster = _cluster(options)
    settings = TagSettings(**{**options, "top_k": options["top_k"] or 0})
    if label_tracks is not None and not settings.window:
        raise click.UsageError("--label_tracks goes with --window")
    from fsat.data.inputs import read_input

    if input != "-":
        read_input(input)  # what is not there is noticed before anything heavy is imported
    from fsat.pipeline.predict import predict

    predict(input, Path(output), model, settings, cluster, workers, label_tracks, resume)
    click.echo(output)


@cli.command()
@click.option("--format", type=click.Choice(EXPORT_FORMATS), required=True, help="Kind of file.")
@click.option(
    "--model",
    default="models:/fsat@champion",
    show_default=True,
    metavar="URI|ALIAS",
    help="Tagger to export: an MLflow URI, NAME@ALIAS, or an alias or version of fsat.",
)
@click.option(
    "--members",
    default="all",
    show_default=True,
    metavar="all|N|STUDY/FOLD,...",
    help="Members of the ensemble that go into the file; fewer are smaller and quicker.",
)
@click.option("--output", metavar="FILE", help="The file to write. [default: tagger.FORMAT]")
@click.option(
    "--check",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="A file or folder of clips on which scores are compared. [default: sounds made for it]",
)
def export(format: str, model: str, members: str, output: str | None, check: Path | None) -> None:
    """Write a registered tagger as one file, a waveform in and scores out, for programs without fsat."""
    from fsat.pipeline.export import export

    path = Path(output or f"tagger.{format}")
    export(format, path, model, members, check)
    click.echo(path)


@cli.command()
@click.option(
    "--model", default="models:/fsat@champion", show_default=True, metavar="URI|ALIAS", help="Tagger, as for predict."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 is all.")
@click.option("--port", type=click.IntRange(0, 65535), default=7860, show_default=True, help="Port; 0 is any free one.")
@click.option("--top_k", type=click.IntRange(min=1), default=3, show_default=True, help="Labels a sound.")
@click.option("--max_mb", type=float, default=100.0, show_default=True, help="Largest file, in MB.")
@click.option(
    "--max_seconds", type=float, default=600.0, show_default=True, help="Longest sound, in seconds; at most 3600."
)
def app(model: str, host: str, port: int, top_k: int, max_mb: float, max_seconds: float) -> None:
    """Serve a page to tag sounds with a registered tagger in a browser, until Ctrl-C."""
    from fsat.app.desk import Limits
    from fsat.app.server import serve

    serve(model, host, port, Limits(max_mb, max_seconds), top_k, click.echo)


@cli.command()
def sync() -> None:
    """Upload what finished folds have kept on this machine while the tracking server was away."""
    from fsat.tracking.upload import sync

    for line in sync():
        click.echo(line)


@cli.command()
@click.argument("submission", type=click.Path(path_type=Path))
@click.argument("truth", type=click.Path(path_type=Path))
def score(submission: Path, truth: Path) -> None:
    """mAP@3 and accuracy of SUBMISSION (fname,label) against the table TRUTH (fname,label)."""
    from fsat.reports.submission import score_submission

    table = score_submission(submission, truth)
    click.echo(table.to_string(index=False, float_format=lambda value: f"{value:.4f}"))


@cli.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--seed", type=click.IntRange(min=0), default=1001, show_default=True, help="Same seed, same bytes.")
@click.option("--clips_per_class", type=click.IntRange(min=10), default=None, help="Training clips a class.")
def sample(folder: Path, seed: int, clips_per_class: int | None) -> None:
    """Write generated sounds to DIR, laid out like FSDKaggle2018."""
    from fsat.data.sources import write_sample

    options = {} if clips_per_class is None else {"clips_per_class": clips_per_class}
    write_sample(folder, seed=seed, **options)
    click.echo(folder)


@cli.command()
@click.option("--clear", is_flag=True, help="Remove the decoded clips, but those that are just being made.")
@click.option("--all", "everything", is_flag=True, help="With --clear: remove generated sounds and checkpoints too.")
def cache(clear: bool, everything: bool) -> None:
    """List what is kept between runs, such as decoded clips and checkpoints, or remove it."""
    if everything and not clear:
        raise click.UsageError("--all goes with --clear")
    from fsat.data.housekeeping import clear_cache, list_cache
    from fsat.training.kept import clear_kept, list_kept

    for line in clear_kept() if everything else list_kept():
        click.echo(line)
    for line in clear_cache(everything) if clear else list_cache():
        click.echo(line)


def _chosen(run_ids: str | None, studies: str | None) -> tuple[list[str], list[str]]:
    """The ids in both options."""
    chosen = _words(run_ids or ""), _words(studies or "")
    for name, given, words in zip(("run_ids", "studies"), (run_ids, studies), chosen, strict=True):
        if given is not None and not words:
            raise click.UsageError(f"--{name} is empty; expected ids separated by commas")
    return chosen


def _launch(options: dict[str, Any]) -> Any:
    """How folds are to be started; takes what says so out of the options."""
    from fsat.launch import Launch

    cluster = _cluster(options)
    return Launch(
        cluster=cluster, **{spec.name: options.pop(spec.name) for spec in fields(Launch) if spec.name in options}
    )


def _cluster(options: dict[str, Any]) -> Any:
    """The machines to work on; takes what says so out of the options."""
    from fsat.launch import Cluster

    names = {"cluster": "kind", "ray_address": "address", "ray_cpus": "cpus", "ray_gpus": "gpus"}
    return Cluster(**{field: options.pop(name) for name, field in names.items() if name in options})


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _source(data_dir: str | None, on_bad_clip: str, options: dict[str, str | None]) -> Any:
    """The dataset that the options mean; a missing folder is noticed before anything heavy is imported."""
    from fsat.data.sources import data_dir_or_default
    from fsat.pipeline.source import Source

    folder = data_dir_or_default(data_dir)
    if not folder.is_dir():
        what = "not a folder" if folder.exists() else "no such folder"
        raise DataError(f"{folder.absolute()}: {what}; expected one with train.csv and audio_train/ (data_dir=DIR)")
    return Source(folder, on_bad_clip, n_folds_given=options.get("n_folds") is not None)
