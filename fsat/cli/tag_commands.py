"""Commands that use a registered tagger: on files, as one file for other programs, on a web page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fsat.cli.shared_options import cluster_options, model_option, option, options_of, read_options, workers_option
from fsat.errors import DataError, count, printable
from fsat.model_presets import EXPORT_FORMATS
from fsat.options import Cluster, TagSettings


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
