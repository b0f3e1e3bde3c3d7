"""The commands that use a registered tagger: on files, as one file for other programs, on a page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fsat.cli.options import check_count, cluster_of, cluster_options, tag_options, with_options
from fsat.cli.train_commands import cli
from fsat.errors import DataError, count, printable
from fsat.options import TagSettings
from fsat.presets import EXPORT_FORMATS


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
    cluster = cluster_of(options)
    settings = TagSettings(**{**options, "top_k": options["top_k"] or 0})
    if label_tracks is not None and not settings.window:
        raise click.UsageError("--label_tracks goes with --window")
    from fsat.tagging.inputs import read_input

    if input != "-":
        read_input(input)  # what is not there is noticed before anything heavy is imported
    from fsat.commands.predict import predict

    tagged = predict(input, Path(output), model, settings, cluster, workers, label_tracks, resume)
    click.echo(output)
    if tagged.n_failed == tagged.n_files:
        name, error = tagged.failure
        raise DataError(f"input={printable(input)}: none of {count(tagged.n_files, 'file')} could be tagged, first "
                        f"{printable(name)}: {error}; {output} has the error of each")  # fmt: skip


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
    from fsat.commands.export import export

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
    from fsat.app.handlers import Limits
    from fsat.app.server import serve

    serve(model, host, port, Limits(max_mb, max_seconds), top_k, click.echo)
