"""Descriptor of a backbone: a small JSON file beside a pretrained network, which says how to use it.

>>> json.loads(Path("birdnet/backbone.json").read_text())
{"file": "BirdNET.tflite", "format": "tflite", "sampling_rate": 48000, "window": 3.0, "hop": 3.0,
 "input": {"name": "INPUT", "rank": 2, "scaling": "none"}, "output": {"tensor": 545}, "size": 1024,
 "license": "CC BY-NC-SA 4.0", "source": "https://github.com/birdnet-team/BirdNET-Analyzer", "sha256": "55f3e4..."}

Conventions: rates in Hz, window and hop in seconds; a window of null means any length. ``file`` is relative to the
descriptor's folder. The SHA-256 of a SavedModel, a folder, is that of the sorted names and SHA-256 of its files.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from fsat.backbones.json_values import HOW, Values
from fsat.config import MAX_RATE, MAX_SECONDS
from fsat.errors import ConfigError, printable
from fsat.files import copy_folder, disk_errors, sha256_of, user_path, write_whole

DESCRIPTOR = "backbone.json"
FORMATS = ("tflite", "onnx", "saved_model", "keras")

KEYS = (
    "name",
    "file",
    "format",
    "sampling_rate",
    "window",
    "hop",
    "input",
    "output",
    "size",
    "license",
    "source",
    "sha256",
)
REQUIRED = ("file", "format", "sampling_rate", "output", "sha256")

OUTPUTS = ({"name"}, {"index"}, {"signature", "key"}, {"tensor"})
EXPECTED_OUTPUT = 'expected one of {"name": ...}, {"index": 0}, {"signature": ..., "key": ...}, {"tensor": 0}'

MAX_BYTES, MAX_NAME = 1_000_000, 40
"""Maximum size of a descriptor, and length of a backbone's name."""


@dataclass(frozen=True)
class Input:
    """Input of a network.

    Attributes:
        name: empty for the only input.
        rank: 1 for one window a call, (n_samples,); 2 for a batch, (n, n_samples).
        peak: remove a window's mean, then scale its greatest absolute value to this (silence stays 0); None for samples
            as they are, in [-1, 1].
    """

    name: str = ""
    rank: int = 2
    peak: float | None = None


@dataclass(frozen=True)
class Output:
    """Output of a network that is the embedding: `name`, or `index`, or `signature` and `key`, or `tensor`.

    Attributes:
        name: name of an output, or of a layer of a Keras model.
        index: position among the outputs, from 0.
        signature, key: output of a signature of a SavedModel or TensorFlow Lite file.
        tensor: index of a tensor of a TensorFlow Lite file, also of one that is no output.
    """

    name: str = ""
    index: int | None = None
    signature: str = ""
    key: str = ""
    tensor: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the entry of the descriptor."""
        return {name: value for name, value in asdict(self).items() if value not in ("", None)}


@dataclass(frozen=True)
class Backbone:
    """A pretrained network and how to use it.

    Attributes:
        path: absolute path of the file, or of the folder of a SavedModel.
        format: one of `FORMATS`.
        sampling_rate: rate of the samples that it takes, in Hz.
        window, hop: length of its input, None for any; suggested distance of windows. In seconds.
        license, source: texts for people.
        sha256: of the file's content, see `content_sha256`.
        name: for people: letters, digits, ``-``, ``_`` and ``.``; at most `MAX_NAME` characters.
        size: number of values of an embedding, if known.
    """

    path: Path
    format: str
    sampling_rate: int
    window: float | None = None
    hop: float | None = None
    input: Input = field(default_factory=Input)
    output: Output = field(default_factory=lambda: Output(index=0))
    license: str = ""
    source: str = ""
    sha256: str = ""
    name: str = "backbone"
    size: int | None = None

    @property
    def digest(self) -> str:
        """Return 16 hex digits of what embeddings depend on; not of name, hop, size, license and source."""
        facts = [self.sha256, self.format, self.sampling_rate, self.window, asdict(self.input), asdict(self.output)]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]

    @property
    def ref(self) -> str:
        """Return ``NAME@DIGEST``."""
        return f"{self.name}@{self.digest}"

    @property
    def n_samples(self) -> int | None:
        """Return the length of a window in samples, None for any."""
        return None if self.window is None else round(self.window * self.sampling_rate)

    def __str__(self) -> str:
        return printable(self.path)


def read_backbone(path: Path | str) -> Backbone:
    """Read a descriptor, or that of a folder with a ``backbone.json``; raise `ConfigError` for anything wrong.

    The network's file must exist; its SHA-256 is compared when it is opened (`fsat.backbones.runtime.open_backbone`).
    """
    if str(path) == "none":
        raise ConfigError(f"backbone=none: expected the descriptor of a pretrained network; {HOW}")
    descriptor, prefix = user_path(path).absolute(), f"backbone={printable(path)}"
    with disk_errors(prefix, "cannot be read", HOW):
        if descriptor.is_dir():
            if not (descriptor / DESCRIPTOR).is_file():
                raise ConfigError(f"{prefix}: no {DESCRIPTOR} in this folder; {HOW}")
            descriptor /= DESCRIPTOR
    return parse_backbone(_read_json(descriptor, prefix), descriptor, prefix)


def parse_backbone(facts: Any, descriptor: Path, prefix: str) -> Backbone:
    """Return the backbone that the JSON values of a descriptor describe; raise `ConfigError` for anything wrong.

    Args:
        descriptor: absolute path of the descriptor, which need not exist.
        prefix: beginning of errors.
    """
    values = Values(prefix, facts)
    values.check_keys(KEYS, REQUIRED)
    file = _locate(values, descriptor)
    rate = values.number("sampling_rate", "a whole number of Hz", 1, MAX_RATE, whole=True)
    assert rate is not None
    size = values.number("size", "a whole number of values", 1, 1_000_000, whole=True, optional=True)
    return Backbone(
        path=file,
        format=values.choice("format", FORMATS),
        sampling_rate=int(rate),
        window=values.number("window", "seconds, or null for any length", 1 / rate, MAX_SECONDS, optional=True),
        hop=values.number("hop", "seconds, or null", 1 / rate, MAX_SECONDS, optional=True),
        input=_read_input(values),
        output=_read_output(values),
        license=values.text("license"),
        source=values.text("source"),
        sha256=_read_sha256(values),
        name=_name(
            values.text("name") or (descriptor.parent.name if descriptor.name == DESCRIPTOR else descriptor.stem)
        ),
        size=None if size is None else int(size),
    )


def write_backbone(backbone: Backbone, path: Path) -> None:
    """Write a descriptor whole; raise `FsatError` if that is impossible. The network's file stays where it is."""
    path = path.absolute()
    scaling = "none" if backbone.input.peak is None else {"peak": backbone.input.peak}
    facts = {
        "name": backbone.name,
        "file": Path(os.path.relpath(backbone.path, path.parent)).as_posix(),
        "format": backbone.format,
        "sampling_rate": backbone.sampling_rate,
        "window": backbone.window,
        "hop": backbone.hop,
        "input": {"name": backbone.input.name, "rank": backbone.input.rank, "scaling": scaling},
        "output": backbone.output.to_json(),
        "size": backbone.size,
        "license": backbone.license,
        "source": backbone.source,
        "sha256": backbone.sha256,
    }
    text = json.dumps(facts, indent=2, ensure_ascii=False) + "\n"
    write_whole(path, lambda unfinished: unfinished.write_text(text, encoding="utf-8"))


def copy_backbone(backbone: Backbone, folder: Path) -> Backbone:
    """Copy a network and its descriptor into a folder, which is made; return the copy.

    Raises `ConfigError` if the SHA-256 of the copy is another one, `FsatError` if it cannot be written.
    """
    copy = replace(backbone, path=folder.absolute() / backbone.path.name)
    with disk_errors(folder, "the backbone cannot be copied"):
        folder.mkdir(parents=True, exist_ok=True)
        (copy_folder if backbone.path.is_dir() else shutil.copyfile)(backbone.path, copy.path)
    check_sha256(backbone, content_sha256(copy.path))
    write_backbone(copy, folder / DESCRIPTOR)
    return copy


def content_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, or of the sorted relative names and SHA-256 of the files of a folder.

    Raises `ConfigError` if there is nothing to read, or a folder has anything but folders and files.
    """
    with disk_errors(printable(path), "cannot be read"):
        if not path.is_dir():
            return sha256_of(path)
        lines = []
        for folder, folders, names in os.walk(path):
            if linked := [name for name in folders if Path(folder, name).is_symlink()]:
                raise ConfigError(f"{printable(path)}: {printable(linked[0])} is a link; expected a folder with files")
            for name in names:
                file = Path(folder, name)
                if not file.is_file():  # a pipe or a device may have no end
                    raise ConfigError(f"{printable(file)}: is no regular file; expected a folder with files")
                lines.append(f"{file.relative_to(path).as_posix()}\n{sha256_of(file)}\n")
    return hashlib.sha256("".join(sorted(lines)).encode("utf-8", "surrogateescape")).hexdigest()


def check_sha256(backbone: Backbone, sha256: str) -> None:
    """Raise `ConfigError` if a file's SHA-256 is not that of its descriptor."""
    if sha256 != backbone.sha256:
        fault = f"its SHA-256 is {sha256[:16]}..., its descriptor has {printable(backbone.sha256)[:16]}..."
        raise ConfigError(f"{backbone}: {fault}; get the original file, or describe this one: {HOW}")


def _read_json(descriptor: Path, prefix: str) -> Any:
    try:
        if descriptor.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{prefix}: is too large for a descriptor; {HOW}")
        return json.loads(descriptor.read_bytes().decode("utf-8-sig"), object_pairs_hook=partial(_once, prefix))
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else error.strerror or str(error)
        raise ConfigError(f"{prefix}: {reason}; expected {DESCRIPTOR} or the folder that has it; {HOW}") from None
    except (ValueError, RecursionError):
        raise ConfigError(f"{prefix}: is not JSON; expected the descriptor of a network; {HOW}") from None


def _once(prefix: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; raise `ConfigError` if it has a key twice."""
    keys = [key for key, _ in pairs]
    if repeated := [key for key in keys if keys.count(key) > 1]:
        raise ConfigError(f"{prefix}: {printable(repeated[0])[:40]} is given twice; expected each key once")
    return dict(pairs)


def _locate(values: Values, descriptor: Path) -> Path:
    """Return the path of the network."""
    name = values.text("file", required=True)
    path = Path(os.path.normpath(descriptor.parent / name))
    is_folder = values.values.get("format") == "saved_model"
    with disk_errors(printable(path)[:200], "cannot be read", HOW):
        exists = path.is_file() or path.is_dir()
    if not exists:
        raise values.error("file", f"a file or folder beside {descriptor.name}, but there is no {printable(path)}")
    if is_folder and descriptor.is_relative_to(path):
        raise values.error("file", "a folder beside the descriptor, which would else be part of its own SHA-256")
    if path.is_dir() != is_folder:
        raise values.error("file", "a folder for format saved_model, else a file")
    return path


def _read_input(values: Values) -> Input:
    entry = values.nested("input", values.values.get("input", {}))
    entry.check_keys(("name", "rank", "scaling"))
    rank = entry.values.get("rank", 2)
    if rank not in (1, 2) or isinstance(rank, bool):
        raise entry.error("rank", "1 for (samples,) or 2 for (batch, samples)")
    scaling, peak = entry.values.get("scaling", "none"), None
    if isinstance(scaling, dict) and scaling.keys() == {"peak"}:
        peak = entry.nested("scaling", scaling).number("peak", "a number", 1e-6, 1e6)
    elif scaling != "none":
        raise entry.error("scaling", '"none" or {"peak": 0.25}')
    return Input(entry.text("name"), int(rank), peak)


def _read_output(values: Values) -> Output:
    entry = values.nested("output", values.values["output"])
    if entry.values.keys() not in OUTPUTS:
        raise values.error("output", EXPECTED_OUTPUT.removeprefix("expected "))

    def position(key: str) -> int | None:
        if key not in entry.values:
            return None
        number = entry.number(key, "a whole number", 0, 2**31 - 1, whole=True)
        return None if number is None else int(number)

    texts = {key: entry.text(key, required=True) for key in entry.values.keys() & {"name", "signature", "key"}}
    return Output(**texts, index=position("index"), tensor=position("tensor"))


def _read_sha256(values: Values) -> str:
    text = values.text("sha256").lower()
    if not re.fullmatch("[0-9a-f]{64}", text):
        raise values.error("sha256", "64 hex digits")
    return text


def _name(text: str) -> str:
    """Return a name of letters, digits, ``-``, ``_`` and ``.`` that begins and ends with a letter or digit."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)[:MAX_NAME].strip("-._") or "backbone"
