"""Commands that use the embeddings of a pretrained network without training anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fsat.cli.shared_options import BACKBONE, option, window_options


@click.command()
@click.argument("input", metavar="INPUT")
@click.argument("output", metavar="OUT.parquet", type=click.Path(path_type=Path))
@click.option("--backbone", required=True, metavar="FILE.json|DIR|NAME@DIGEST", help=BACKBONE)
@option("--per", type=click.Choice(["window", "clip"]), default="window", help="What a row of the table is.")
@window_options
def embed(input: str, output: Path, backbone: str, per: str, **windows: float | None) -> None:
    """Write the embeddings of files as a Parquet table.

    INPUT is a file, a folder with all audio files below it, a glob, a CSV file with a column fname, a .txt file of
    names, or - for a list on standard input. OUT.parquet has columns fname, start, end and embedding.
    """
    from fsat.tagging.embedding_table import check_table_suffix
    from fsat.tagging.input_files import read_input

    check_table_suffix(output)
    if input != "-":
        read_input(input)  # a missing input is an error before anything heavy is imported
    from fsat.commands.embed import embed

    embed(input, output, backbone, per, **windows)
    click.echo(output)


@click.command()
@click.argument("clip", metavar="CLIP", type=click.Path(path_type=Path))
@click.option("--among", required=True, metavar="PATH", help="Files to search: as INPUT of embed, or its table.")
@click.option("--backbone", metavar="FILE.json|DIR|NAME@DIGEST", help=f"{BACKBONE} [default: that of the table]")
@option("--top", type=click.IntRange(min=1), default=10, help="Number of clips to list.")
@click.option("--output", metavar="FILE.csv", type=click.Path(path_type=Path), help="Table to write, too.")
@window_options
def similar(clip: Path, among: str, backbone: str | None, top: int, output: Path | None, **windows: Any) -> None:
    """List the clips that sound most like CLIP.

    Clips are compared by the cosine of the means of their embeddings. Those of the files searched are kept in the cache
    folder.
    """
    from fsat.commands.similar import similar

    table = similar(clip, among, backbone, top, output, **windows)
    click.echo(table.to_string(index=False, float_format=lambda value: f"{value:.4f}"))
