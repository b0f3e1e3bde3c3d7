"""The command that scores a registered tagger against annotations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fsat.cli.shared_options import model_option, option, options_of, read_options
from fsat.errors import DataError, printable
from fsat.options import EvaluateSettings, TagSettings


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
