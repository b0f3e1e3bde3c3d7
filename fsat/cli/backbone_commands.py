"""Commands about pretrained networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fsat.cli.shared_options import Commands
from fsat.errors import FsatError, printable

OUTPUTS = ("name", "index", "signature", "key", "tensor")


@click.group(cls=Commands)
def backbone() -> None:
    """Describe a pretrained network for model=embedding."""


def _read_scaling(context: click.Context, parameter: click.Parameter, value: str | None) -> Any:
    if value in (None, "none"):
        return value
    try:
        return {"peak": float(value)}
    except ValueError:
        raise click.BadParameter(f"{printable(value)}: expected none, or a peak such as 0.25") from None


@backbone.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--output", metavar="PATH", type=click.Path(path_type=Path),
              help="Descriptor to write. [default: backbone.json beside the network]")  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Replace a descriptor that exists.")
@click.option("--name", metavar="WORD", help="Name of the backbone. [default: the file's]")
@click.option("--format", type=click.Choice(["tflite", "onnx", "saved_model", "keras"]),
              help="Format of the file. [default: by its content and name]")  # fmt: skip
@click.option("--sampling_rate", type=int, metavar="INTEGER",
              help="Rate of its input, in Hz. [default: what the file says]")  # fmt: skip
@click.option("--window", type=float, metavar="SECONDS", help="Length of its input. [default: what the file says]")
@click.option("--hop", type=float, metavar="SECONDS", help="Distance of windows. [default: half of their length]")
@click.option("--rank", type=click.IntRange(1, 2), metavar="1|2",
              help="Axes of its input: 1 for samples, 2 for a batch. [default: what the file says]")  # fmt: skip
@click.option("--scaling", metavar="none|PEAK", callback=_read_scaling,
              help="Scale of its input: samples as they are, or without their mean and with this peak. "
              "[default: none]")  # fmt: skip
@click.option("--output_name", metavar="NAME", help="Embedding: an output, or a layer of a Keras model.")
@click.option("--output_index", type=click.IntRange(0), metavar="INTEGER", help="Embedding: an output, from 0.")
@click.option("--output_signature", metavar="NAME", help="Embedding: a signature, with --output_key.")
@click.option("--output_key", metavar="NAME", help="Embedding: an output of --output_signature.")
@click.option("--output_tensor", type=click.IntRange(0), metavar="INTEGER",
              help="Embedding: a tensor of a TensorFlow Lite file.")  # fmt: skip
@click.option("--license", metavar="TEXT", help="Licence of the network. [default: what the file says]")
@click.option("--source", metavar="TEXT", help="Where it comes from. [default: what the file says]")
def inspect(file: Path, output: Path | None, overwrite: bool, **options: Any) -> None:
    """Print what a network's file says, try it, and write its descriptor.

    FILE is a TensorFlow Lite, ONNX or Keras file, or the folder of a SavedModel. It is tried with silence, noise, a
    tone and a batch, in a process with a limit of memory; code in the file never runs. A descriptor, or a folder with
    backbone.json, is checked instead, and nothing is written.
    """
    given = _read_given(options)
    from fsat.backbones.descriptor import DESCRIPTOR
    from fsat.backbones.inspect import Request, check_request, find_network

    path = find_network(file)
    if path.suffix == ".json":
        if given or output or overwrite:
            raise click.UsageError(f"{printable(path)} is a descriptor, which is checked; expected no other options")
        _report(check_request(path))
        click.echo(f"{printable(path)}: is right")
        return
    descriptor = (output or path.parent / DESCRIPTOR).absolute()
    _check_descriptor(descriptor, overwrite)
    from fsat.backbones.descriptor import write_backbone

    write_backbone(_report(Request(path, descriptor, given)), descriptor)
    click.echo(f"wrote {printable(descriptor)}")


def _read_given(options: dict[str, Any]) -> dict[str, Any]:
    """Return what the user says of a network, by key of the descriptor."""
    given = {name: value for name, value in options.items() if value is not None}
    output = {name: given.pop(f"output_{name}") for name in OUTPUTS if f"output_{name}" in given}
    if not output:
        return given
    if output.keys() not in ({"name"}, {"index"}, {"signature", "key"}, {"tensor"}):
        received = ", ".join(f"--output_{name}" for name in output)
        expected = "one of --output_name, --output_index, --output_tensor, or --output_signature with --output_key"
        raise click.UsageError(f"{received}: expected {expected}", click.get_current_context())
    from fsat.backbones.descriptor import Output

    return given | {"output": Output(**output)}


def _check_descriptor(descriptor: Path, overwrite: bool) -> None:
    """Raise `FsatError` if a descriptor cannot be written, or exists."""
    from fsat.files import check_writable

    check_writable(descriptor)
    if descriptor.exists() and not overwrite:
        advice = f"`python -m fsat backbone inspect {printable(descriptor)}` checks it, --overwrite replaces it"
        raise FsatError(f"{printable(descriptor)}: exists; {advice}, --output=PATH writes another one")


def _report(request: Any) -> Any:
    """Print what an inspection finds; return the backbone, or raise `FsatError` if it cannot be used."""
    from fsat.backbones.inspect import inspect

    inspection = inspect(request)
    for line in inspection.lines:
        click.echo(line)
    if inspection.backbone is None:
        raise FsatError(inspection.error)
    return inspection.backbone
