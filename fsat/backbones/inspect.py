"""Describe a network: read what its file says of itself, choose the embedding, and probe it.

What a file does not say, such as its sampling rate, must be given: nothing is assumed without a word. The file is read
and tried in a process of its own with a limit of memory, see `fsat.backbones.probe`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fsat.backbones.choose_embedding import choose_embedding, inner_vectors, option_of, outputs
from fsat.backbones.descriptor import (
    DESCRIPTOR,
    FORMATS,
    Backbone,
    Input,
    check_sha256,
    content_sha256,
    parse_backbone,
    read_backbone,
)
from fsat.backbones.network import SHOWN, ModelFile, Tensor, choose_input, choose_output, open_network, read_file
from fsat.backbones.probe import check, run_limited
from fsat.backbones.runtime import Runtime, read_model
from fsat.backbones.saved_model import GRAPH
from fsat.errors import ConfigError, FsatError, printable
from fsat.files import disk_errors, format_bytes, user_path

TITLES = {"tflite": "TensorFlow Lite", "onnx": "ONNX", "saved_model": "SavedModel", "keras": "Keras"}

EXPECTED = "expected a .tflite, .onnx or .keras file, the folder of a SavedModel, or a descriptor"

OTHER_FILES = {
    (".h5", ".hdf5"): "save the network as .keras",
    (".pt", ".pth", ".bin", ".safetensors", ".ckpt"): "export the network as ONNX",
    (".pkl", ".pickle", ".joblib", ".npy", ".npz"): "a pickle can run code",
    (".zip", ".tar", ".gz", ".tgz"): "unpack it",
}
"""Suffixes of files that are no networks for fsat, and what to do."""

NAMES = {
    "sampling_rate": ("sampling_rate", "sample_rate", "samplerate", "sample_rate_hz", "sr"),
    "license": ("license", "licence", "license_name"),
    "source": ("source", "url", "homepage", "repository"),
}
"""Keys of the descriptor, and the names under which a file may state them."""

USUAL_RATES = (8000, 16000, 22050, 32000, 44100, 48000)
"""In Hz, for the error of a missing rate."""

MAX_SHOWN, MAX_STATED = 100, 300
"""Maximum length of a text of the file in the report, and in the descriptor."""


@dataclass(frozen=True)
class Request:
    """A network to inspect.

    Attributes:
        path: absolute path of the file or folder.
        descriptor: absolute path of its descriptor.
        given: what the user says of it, by key of the descriptor; the file or the defaults say the rest.
        backbone: what the descriptor says, if there is one already.
    """

    path: Path
    descriptor: Path
    given: Mapping[str, Any] = field(default_factory=dict)
    backbone: Backbone | None = None

    def __str__(self) -> str:
        return printable(self.path)


@dataclass(frozen=True)
class Inspection:
    """Result of an inspection.

    Attributes:
        lines: what the file has and what was chosen.
        backbone: description of the network; None if it cannot be used.
        error: the reason.
    """

    lines: list[str]
    backbone: Backbone | None = None
    error: str = ""


def inspect(request: Request) -> Inspection:
    """Describe and probe a network, or check it against its descriptor.

    Raises `FsatError` if the file cannot be read at all; other faults are in the result, after what the file has.
    """
    return run_limited(inspect_here, request)


def find_network(path: Path) -> Path:
    """Return the absolute path of a network or a descriptor; raise `ConfigError` if it cannot be either."""
    path = user_path(path).absolute()
    if path.name == GRAPH:
        path = path.parent
    with disk_errors(printable(path), "cannot be read", EXPECTED):
        exists = path.exists()
    if not exists:
        raise ConfigError(f"{printable(path)}: no such file; {EXPECTED}")
    if path.is_dir() and not (path / GRAPH).exists():
        if not (path / DESCRIPTOR).exists():
            raise ConfigError(f"{printable(path)}: no {GRAPH} and no {DESCRIPTOR} in this folder; {EXPECTED}")
        path /= DESCRIPTOR
    for suffixes, advice in OTHER_FILES.items():
        if path.suffix.lower() in suffixes and path.is_file():
            raise ConfigError(f"{printable(path)}: {path.suffix.lower()} files cannot be used: {advice}; {EXPECTED}")
    return path


def check_request(descriptor: Path) -> Request:
    """Return the request to check a network against its descriptor; raise `ConfigError` if that is wrong in itself."""
    backbone = read_backbone(descriptor)
    return Request(backbone.path, descriptor, backbone=backbone)


def inspect_here(request: Request) -> Inspection:
    """Describe and probe a network in this process, as `inspect` does."""
    path, given = request.path, request.given
    content = path if path.is_dir() else read_file(path)
    format = request.backbone.format if request.backbone else given.get("format") or _format(path, content)
    file = read_model(format, printable(path), content)
    lines = _contents(file, path, format)
    try:
        if request.backbone is None:
            facts, reasons = _describe(file, request, format)
            backbone = parse_backbone(facts, request.descriptor, file.name)
        else:
            backbone, reasons = request.backbone, {}
            check_sha256(backbone, content_sha256(path))
        runtime = Runtime(backbone, open_network(file, backbone), workers=1)
        backbone = replace(backbone, size=check(runtime))
    except FsatError as error:
        return Inspection(lines, error=str(error))
    return Inspection([*lines, *_summary(file, backbone, reasons)], backbone)


def _format(path: Path, content: bytes | Path) -> str:
    """Return the format by the content; ONNX files have no identifier, so that the name tells."""
    if isinstance(content, Path):
        return "saved_model"
    if content[4:8] == b"TFL3":
        return "tflite"
    if content[:4] == b"PK\x03\x04":
        return "keras"
    suffix = path.suffix.lower().removeprefix(".")
    if suffix not in FORMATS or suffix == "saved_model":
        raise ConfigError(f"{printable(path)}: is of an unknown format; {EXPECTED}, or --format")
    return suffix


def _describe(file: ModelFile, request: Request, format: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the values of a descriptor, and for some of them where they come from."""
    path, given, stated = request.path, request.given, _stated(file.facts)
    output, why = (given["output"], "as given") if "output" in given else choose_embedding(file)
    signature, _ = choose_output(file, output)
    tensor = choose_input(file, signature, Input())
    rank = given.get("rank") or (2 if tensor.shape is None else len(tensor.shape))
    if rank not in (1, 2):
        raise ConfigError(f"{file.name}: the input is {tensor}; expected (samples,) or (batch, samples)")
    rate, window, origin = _rate_and_window(file, tensor, given, stated)
    facts = {
        "name": given.get("name") or printable(path.name if path.is_dir() else path.stem),
        "file": Path(os.path.relpath(path, request.descriptor.parent)).as_posix(),
        "format": format,
        "sampling_rate": rate,
        "window": window,
        "hop": given.get("hop"),
        "input": {
            "name": tensor.name if tensor.name.isprintable() else "",
            "rank": rank,
            "scaling": given.get("scaling", "none"),
        },
        "output": output.to_json(),
        "license": given.get("license") or stated.get("license", ""),
        "source": given.get("source") or stated.get("source", ""),
        "sha256": content_sha256(path),
    }
    if tensor.shape is None and "rank" not in given:
        origin += ", rank 2, which the file does not say (--rank)"
    return facts, {"output": why, "input": origin}


def _rate_and_window(
    file: ModelFile, tensor: Tensor, given: Mapping[str, Any], stated: Mapping[str, str]
) -> tuple[int, float | None, str]:
    """Return sampling rate, window and the origin of the rate; raise `ConfigError` if the rate is unknown."""
    length = tensor.shape[-1] if tensor.shape else None
    rate, window = given.get("sampling_rate"), given.get("window")
    said = _whole(stated.get("sampling_rate", ""))
    if rate is not None:
        origin = "as given" + (f", while the file says {said} Hz" if said not in (None, rate) else "")
    elif said is not None:
        rate, origin = said, "as the file says"
    elif length and window and (length / window).is_integer():
        rate, origin = round(length / window), f"{length} samples in {window:g} s"
    else:
        raise ConfigError(f"{file.name}: does not say its sampling rate{_lengths(length)}; give --sampling_rate")
    return rate, length / rate if length and rate > 0 and window is None else window, origin


def _lengths(length: int | None) -> str:
    """Return how long a window is at usual rates, for an error: at those where it has whole milliseconds, if any."""
    if length is None:
        return ""
    rates = [rate for rate in USUAL_RATES if 1000 * length % rate == 0] or USUAL_RATES
    return f"; its {length} samples are " + ", ".join(f"{length / rate:.4g} s at {rate} Hz" for rate in rates)


def _stated(facts: Mapping[str, str]) -> dict[str, str]:
    """Return what a file says of the keys of a descriptor, each text on one line."""
    texts = {name.lower(): " ".join(text.split()) for name, text in facts.items()}
    stated = {key: next((texts[name] for name in names if texts.get(name)), "") for key, names in NAMES.items()}
    return {key: printable(text)[:MAX_STATED] for key, text in stated.items() if text}


def _whole(text: str) -> int | None:
    """Return a positive whole number, None for any other text."""
    return int(float(text)) or None if re.fullmatch(r"\d{1,9}(\.0*)?", text, re.ASCII) else None


def _contents(file: ModelFile, path: Path, format: str) -> list[str]:
    """Return lines about the contents of a file."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    lines = [f"{file.name}: {TITLES[format]}, {format_bytes(sum(file.stat().st_size for file in files))}"]
    for name, text in file.facts.items():
        text = printable(" ".join(text.split()))
        if text:
            lines.append(f"  {printable(name)}: {text[:MAX_SHOWN]}{'...' if len(text) > MAX_SHOWN else ''}")
    for name, signature in sorted(file.signatures.items()):
        prefix = f"  signature {printable(name)}: " if name else "  "
        lines += _listed(f"{prefix}input ", signature.inputs)
        numbered = enumerate(signature.outputs)
        lines += _listed(f"{prefix}output ", [f"{f'{i}: ' if not name else ''}{tensor}" for i, tensor in numbered])
    inner = [
        (f"{output.tensor}: " if output.name == "" else "") + str(tensor) for output, tensor in inner_vectors(file)
    ]
    return [*lines, *_listed("  layer " if format == "keras" else "  tensor ", inner)]


def _listed(prefix: str, items: Sequence[object]) -> list[str]:
    rest = [f"{prefix}... ({len(items) - SHOWN} more)"] if len(items) > SHOWN else []
    return [f"{prefix}{item}" for item in items[:SHOWN]] + rest


def _summary(file: ModelFile, backbone: Backbone, reasons: Mapping[str, str]) -> list[str]:
    """Return lines about a backbone that works."""
    signature, tensor = choose_output(file, backbone.output)
    others = [option_of(output) for output, other in outputs(file) if (output, other) != (backbone.output, tensor)]
    output = ", ".join(
        [" ".join(f"{key} {printable(value)}" for key, value in backbone.output.to_json().items()), str(tensor),
         f"{backbone.size} values", *filter(None, [reasons.get("output")])]
    )  # fmt: skip
    rate = f"{backbone.sampling_rate} Hz" + (f" ({reasons['input']})" if reasons else "")
    window = (
        "any length: the window is audio_duration" if backbone.window is None else f"windows of {backbone.window:.6g} s"
    )
    peak = backbone.input.peak
    scaling = "samples as they are" if peak is None else f"without the mean, scaled to a peak of {peak:g}"
    return [
        f"embedding: {output}" + (f"; else {' or '.join(others[:SHOWN])}" if others and reasons else ""),
        f"input: {choose_input(file, signature, Input())}, {rate}, {window}, {scaling}",
        "probe: passed with silence, noise, a tone and a batch",
        f"license: {backbone.license or 'unknown (--license)'}",
    ]
