"""Small commands: scores of a table, generated and published sounds, what is kept on this machine."""

from __future__ import annotations

from pathlib import Path

import click

from fsat.cli.tag_commands import cli
from fsat.download.published import DATASETS


@cli.command()
def sync() -> None:
    """Upload the finished folds that this machine stored while the tracking server was unreachable."""
    from fsat.tracking.live_metrics import sync
    from fsat.training.checkpoint import count_epochs

    for line in sync(count_epochs):
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
    from fsat.data.synth import write_sample

    options = {} if clips_per_class is None else {"clips_per_class": clips_per_class}
    write_sample(folder, seed=seed, **options)
    click.echo(folder)


@cli.command()
@click.argument("name", metavar="|".join(DATASETS), type=click.Choice(list(DATASETS)))
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--base_url", metavar="URL", default="", help="A mirror: what the archives' names are added to.")
@click.option("--keep_zips", is_flag=True, help="Leave the archives in DIR/.downloads.")
@click.option("--retries", type=click.IntRange(min=0), default=5, show_default=True, help="Attempts after the first.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0.1),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for the server.",
)
def download(name: str, folder: Path, base_url: str, keep_zips: bool, retries: int, timeout: float) -> None:
    """Download a published dataset to DIR, ready for data_dir, or go on with what was interrupted.

    \b
    fsdkaggle2018: 11,073 clips of 41 classes from Zenodo; about 5 GB, 11 GB of disk
    esc50: 2,000 clips of 50 classes from GitHub; 0.6 GB, 1.5 GB of disk
    """
    from fsat.download.install import download

    for line in download(name, folder, base_url, keep_zips, retries, timeout):
        click.echo(line)


@cli.command()
@click.option("--clear", is_flag=True, help="Remove the decoded clips, but those that are just being made.")
@click.option("--all", "everything", is_flag=True, help="With --clear: remove generated sounds and checkpoints too.")
def cache(clear: bool, everything: bool) -> None:
    """List what is kept between runs, such as decoded clips and checkpoints, or remove it."""
    if everything and not clear:
        raise click.UsageError("--all goes with --clear")
    from fsat.data.cache_info import clear_cache, list_cache
    from fsat.tracking.run_folder import clear_checkpoints, run_folders
    from fsat.training.checkpoint import count_epochs

    run_lines = (folder.in_words(count_epochs) for folder in run_folders())
    for line in clear_checkpoints(count_epochs) if everything else run_lines:
        click.echo(line)
    for line in clear_cache(everything) if clear else list_cache():
        click.echo(line)
