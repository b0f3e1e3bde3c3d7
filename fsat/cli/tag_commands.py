"""Commands that use a registered tagger: on files, as one file for other programs, on a web page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fsat.cli.shared_options import cluster_options, model_option, option, options_of, read_options, workers_option
from fsat.errors import DataError, count, printable
from fsat.model_presets import EXPORT_FORMATS
from fsat.options import Cluster, EvaluateSettings, TagSettings


@click.command()
@click.option(
    "--input",
    required=True,
    metavar="PATH",
    help="A file; a folder, with all audio files below it; a glob; a CSV file with a column fname or "
    "a .txt file of names; or - for a list on standard input.",
)
@option("--output", default="tags.csv", metavar="FILE", help="Table to write: .csv, .jsonl or .parquet.")
@model_option
@options_of(TagSettings)
@click.option(
    "--label_tracks",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for an Audacity label track of each recording; requires --window.",
)
@option("--resume", type=bool, default=True, help="Resume an interrupted tagging with the same output.")
@workers_option
@cluster_options
def predict(input: str, output: str, label_tracks: Path | None, **options: Any) -> None:
    """Tag files with a registered tagger.

    Tags whole clips, or recordings over time; any number of files.
    """
    cluster, settings = read_options(Cluster, options), read_options(TagSettings, options)
    if label_tracks is not None and not settings.window:
        raise click.UsageError("--label_tracks requires --window")
    from fsat.tagging.input_files import read_input

    if input != "-":
        read_input(input)  # a missing input is an error before anything heavy is imported
    from fsat.commands.predict import predict

    arguments = settings, cluster, options["workers"], label_tracks, options["resume"]
    tagged = predict(input, Path(output), options["model"], *arguments)
    click.echo(output)
    if tagged.n_failed == tagged.n_files:
        name, error = tagged.failure
        fault = f"none of {count(tagged.n_files, 'file')} could be tagged, first {printable(name)}: {error}"
        raise DataError(f"input={printable(input)}: {fault}; {output} has the error of each")


@click.command()
@click.option(
    "--input", required=True, metavar="PATH", help="Recordings: a folder, a file, a glob, or a list of files."
)
@click.option(
    "--annotations",
    required=True,
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="Folder with Audacity label tracks, Raven selection tables or CSV tables; or one such file.",
)
@option(
    "--output",
    default="evaluation",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder to write evaluation.html, figures and tables to.",
)
@model_option
@options_of(TagSettings, without=("window",))
@click.option(
    "--window",
    default=5.0,
    metavar="SECONDS",
    help="Length of the windows of tags over time, in seconds. [default: 5]",
)
@options_of(EvaluateSettings)
@click.option("--recording_column", metavar="NAME", default="", help="Column of a table that names the recording.")
@click.option("--start_column", metavar="NAME", default="", help="Column with the start of an annotation, in seconds.")
@click.option("--end_column", metavar="NAME", default="", help="Column with its end.")
@click.option("--label_column", metavar="NAME", default="", help="Column with its label.")
@click.option(
    "--keep_thresholds",
    type=bool,
    metavar="true|false",
    help="Store the chosen thresholds with the tagger, for min_score=auto. [default: true, false with min_score=auto]",
)
def evaluate(input: str, annotations: Path, output: Path, **options: Any) -> None:
    """Score tags over time against annotations.

    Segment- and event-based scores, curves by threshold, mistakes to listen to, and a threshold of each class.
    """
    settings, scoring = read_options(TagSettings, options), read_options(EvaluateSettings, options)
    if not settings.window:
        raise click.UsageError("--window 0: expected more than 0, as annotations have a start and an end")
    columns = [options[f"{name}_column"] for name in ("recording", "start", "end", "label")]
    if not annotations.exists():
        raise DataError(f"annotations={printable(annotations)}: no such file or folder")
    from fsat.tagging.input_files import read_input

    read_input(input)
    from fsat.commands.evaluate import evaluate
    from fsat.data.annotation_files import Columns

    keep = options["keep_thresholds"]
    evaluate(input, annotations, output, options["model"], settings, scoring, Columns(*columns), keep)
    click.echo(output / "evaluation.html")


@click.command()
@click.option("--format", type=click.Choice(EXPORT_FORMATS), required=True, help="Format of the file.")
@model_option
@option("--members", default="all", metavar="all|N|STUDY/FOLD,...", help="Members of the ensemble to export.")
@click.option("--output", metavar="FILE", help="File to write. [default: tagger.FORMAT]")
@click.option(
    "--check",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="Clips to compare scores on. [default: generated sounds]",
)
def export(format: str, model: str, members: str, output: str | None, check: Path | None) -> None:
    """Write a tagger as one file for programs without fsat.

    The file takes a waveform and returns scores.
    """
    from fsat.commands.export import export

    path = Path(output or f"tagger.{format}")
    export(format, path, model, members, check)
    click.echo(path)


@click.command()
@model_option
@option("--host", default="127.0.0.1", help="Address to listen on; 0.0.0.0 for all.")
@option("--port", type=click.IntRange(0, 65535), default=7860, help="Port; 0 for a free one.")
@option("--top_k", type=click.IntRange(min=1), default=3, help="Number of labels of a sound.")
@option("--max_mb", type=float, default=100.0, help="Maximum size of a file, in MB.")
@option("--max_seconds", type=float, default=600.0, help="Maximum length of a sound, in seconds; at most 3600.")
def app(model: str, host: str, port: int, top_k: int, max_mb: float, max_seconds: float) -> None:
    """Serve a web page that tags sounds, until Ctrl-C."""
    from fsat.app.handlers import Limits
    from fsat.app.server import serve

    serve(model, host, port, Limits(max_mb, max_seconds), top_k, click.echo)
