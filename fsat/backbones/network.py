"""What the four formats share: a model file, its inputs and outputs, and the choice of those that a descriptor names.

A module of a format has a subclass of `ModelFile`. It refuses files with code when it is made, and opens the network as
a function from float32 (n_samples,) or (n, n_samples) to an array.
"""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from fsat.backbones.descriptor import Backbone, Input, Output, check_sha256
from fsat.errors import ConfigError, FsatError, count, printable
from fsat.files import disk_errors, format_bytes

Call = Callable[[np.ndarray], np.ndarray]
Key = TypeVar("Key", int, str)

MEMORY = "FSAT_BACKBONE_GB"
"""Environment variable: GB of memory that a network may need, and maximum size of its file."""

DENSE = {"Dense", "FULLY_CONNECTED", "Gemm", "MatMul"}
ACTIVATIONS = {
    "Activation", "Softmax", "ReLU", "Dropout",
    "LOGISTIC", "SOFTMAX", "LOG_SOFTMAX", "RELU",
    "Add", "Identity", "Sigmoid", "LogSoftmax", "Relu",
}  # fmt: skip
"""Names of dense layers, and of what may follow the last one of a classifier, in Keras, TensorFlow Lite and ONNX."""

SHOWN = 8
"""Number of names in an error."""

loading = threading.Lock()
"""Held while a network is loaded, which redirects the process's standard error."""


@dataclass(frozen=True)
class Tensor:
    """An input, an output or an inner tensor of a network.

    Attributes:
        shape: None for an axis of any length; None for any shape.
        index: index of the tensor in a TensorFlow Lite file, else its position.
    """

    name: str
    shape: tuple[int | None, ...] | None
    dtype: str
    index: int = 0

    def __str__(self) -> str:
        shape = (
            "any shape" if self.shape is None else f"({', '.join('?' if n is None else str(n) for n in self.shape)})"
        )
        kind = "" if self.dtype == "float32" else f" {self.dtype}"
        return f"{printable(self.name) or 'unnamed'} {shape}{kind}"


@dataclass(frozen=True)
class Signature:
    """Inputs and outputs of a network, or of one of its signatures."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


@dataclass
class ModelFile(ABC):
    """A network's file, without code of its own.

    Attributes:
        name: of the file, in errors.
        signatures: by name; the empty name is the network as a whole.
        internal: tensors that are no outputs but can be the embedding: layers of a Keras model, by name, and tensors
            of a TensorFlow Lite file, by index.
        facts: what the file says of itself, by name, such as its license.
    """

    name: str
    signatures: Mapping[str, Signature] = field(default_factory=dict)
    internal: tuple[Tensor, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)

    def before_classifier(self, output: Tensor) -> Tensor | None:
        """Return what the dense layer takes in that gives an output of the network as a whole; None if none does.

        Only activations may follow the dense layer. The embedding of most classifiers is what this one takes in.
        """
        return None

    @abstractmethod
    def open(self, signature: str, input: Tensor, output: Tensor, n_samples: int | None) -> Call:
        """Load the network and return a function that several threads may call."""


@dataclass(frozen=True)
class Network:
    """An open network.

    Attributes:
        batch: number of windows that it takes at once, None for any number (rank 2), 1 for rank 1.
        n_samples: length of a window, None for any.
    """

    call: Call
    rank: int
    batch: int | None
    n_samples: int | None


def input_of_dense(output: Key, producers: Mapping[Key, tuple[str, Key]]) -> Key | None:
    """Return what the last dense layer of a network takes in, if only activations follow it.

    Args:
        output: what the network gives.
        producers: for what an operator or layer gives, its kind and what it takes in, weights excepted.
    """
    passed = set[Key]()
    while output in producers and output not in passed:
        passed.add(output)
        kind, output = producers[output]
        if kind in DENSE:
            return output
        if kind not in ACTIVATIONS:
            return None
    return None


def open_network(file: ModelFile, backbone: Backbone) -> Network:
    """Open the input and the output that a descriptor names; raise `ConfigError` if the file lacks them."""
    signature, output = choose_output(file, backbone.output)
    tensor = choose_input(file, signature, backbone.input)
    batch, length = check_input(file, tensor, backbone)
    check_dtype(file, output, "embeddings")
    call = file.open(signature, tensor, output, length)
    return Network(call, backbone.input.rank, batch, length)


def choose_output(file: ModelFile, output: Output) -> tuple[str, Tensor]:
    """Return the signature and the tensor that an output names; raise `ConfigError` with those that exist."""
    if output.signature:
        if output.signature not in file.signatures:
            raise _missing(file, "signature", output.signature, [name for name in file.signatures if name])
        signature, key = output.signature, output.key
    elif output.tensor is not None:
        tensors = {str(tensor.index): tensor for tensor in file.internal if tensor.index >= 0}
        if str(output.tensor) not in tensors:
            advice = (
                "float32 activations only" if tensors else 'only TensorFlow Lite files have them; use {"name": ...}'
            )
            raise ConfigError(f"{file.name}: has no tensor {output.tensor} that can be an output; expected {advice}")
        return main_signature(file), tensors[str(output.tensor)]
    else:
        signature, key = main_signature(file), output.name
    outputs = file.signatures[signature].outputs
    if output.index is not None:
        if output.index >= len(outputs):
            raise ConfigError(f"{file.name}: has no output {output.index}; it has {listed(outputs)}, counted from 0")
        return signature, outputs[output.index]
    named = {tensor.name: tensor for tensor in (*_layers(file), *outputs)}
    if key not in named:
        raise _missing(file, "output", key, list(named))
    return signature, named[key]


def main_signature(file: ModelFile) -> str:
    """Return the signature that is used if a descriptor names none: the network as a whole, or ``serving_default``."""
    names = [name for name in ("", "serving_default") if name in file.signatures]
    if names or len(file.signatures) == 1:
        return next(iter(names or file.signatures))
    raise _missing(file, "signature", "serving_default", list(file.signatures))


def choose_input(file: ModelFile, signature: str, input: Input) -> Tensor:
    """Return the input of a signature that a descriptor names, or the only one."""
    inputs = file.signatures[signature].inputs
    if len(inputs) != 1:
        raise ConfigError(f"{file.name}: expected a network with one input, a waveform; this one has {listed(inputs)}")
    if input.name and input.name != inputs[0].name:
        raise _missing(file, "input", input.name, [inputs[0].name])
    return inputs[0]


def check_input(file: ModelFile, tensor: Tensor, backbone: Backbone) -> tuple[int | None, int | None]:
    """Return the fixed batch and the number of samples that an input takes with a descriptor, None for any.

    Raises `ConfigError` if the descriptor's rank, rate or window do not fit.
    """
    check_dtype(file, tensor, "samples")
    rank, expected = backbone.input.rank, ("(samples,)", "(batch, samples)")
    if tensor.shape is None:
        return 1 if rank == 1 else None, backbone.n_samples
    if len(tensor.shape) != rank:
        advice = f"expected rank {len(tensor.shape)}" if len(tensor.shape) in (1, 2) else f"expected {expected[1]}"
        raise ConfigError(f"{file.name}: the input is {tensor}, but the descriptor has rank {rank}; {advice}")
    length = tensor.shape[-1]
    if length is not None and length != backbone.n_samples:
        seconds = f"{length / backbone.sampling_rate:.6g}"
        if backbone.window is None:
            given = "a window of null, which is any length"
        else:
            given = f"a window of {backbone.window:g} s, which is {backbone.n_samples} samples"
        advice = f"set window to {seconds}, or sampling_rate to what the network was made for"
        fault = f"the input is {tensor}, {length} samples or {seconds} s; the descriptor has {given}"
        raise ConfigError(f"{file.name}: {fault}; {advice}")
    return (1 if rank == 1 else tensor.shape[0]), backbone.n_samples


def check_dtype(file: ModelFile, tensor: Tensor, what: str) -> None:
    """Raise `ConfigError` unless a tensor is float32."""
    if tensor.dtype != "float32":
        fault = f"{printable(tensor.name)} is {tensor.dtype}; expected float32 {what}"
        raise ConfigError(f"{file.name}: {fault}: convert the network with float32 inputs and outputs")


def listed(tensors: Sequence[Tensor]) -> str:
    """Return tensors with their shapes, for an error."""
    rest = f" and {len(tensors) - SHOWN} more" if len(tensors) > SHOWN else ""
    return (", ".join(map(str, tensors[:SHOWN])) or "none") + rest


def _layers(file: ModelFile) -> list[Tensor]:
    """Return the inner tensors that have names of their own."""
    return [tensor for tensor in file.internal if tensor.index < 0]


def _missing(file: ModelFile, what: str, name: str, names: Sequence[str]) -> ConfigError:
    shown = ", ".join(map(printable, names[:SHOWN])) or "none"
    rest = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ConfigError(f"{file.name}: has no {what} {printable(name)[:60]}; it has {shown}{rest}")


def memory_limit() -> int:
    """Return the bytes of memory that a network may need: ``FSAT_BACKBONE_GB``, 4 by default."""
    text = os.environ.get(MEMORY, "4")
    try:
        gigabytes = float(text)
    except ValueError:
        gigabytes = 0.0
    if not 0 < gigabytes < 1e6:
        raise ConfigError(f"{MEMORY}={printable(text)}: expected a number of GB above 0")
    return round(gigabytes * 1e9)


def check_size(name: str, n_bytes: int) -> None:
    """Raise `FsatError` if a file is larger than the memory that a network may need."""
    if n_bytes > memory_limit():
        limit = format_bytes(memory_limit())
        raise FsatError(f"{name}: {format_bytes(n_bytes)}, more than {limit}; set {MEMORY} to allow more memory")


def read_checked(backbone: Backbone) -> bytes:
    """Return a file's bytes, which have the descriptor's SHA-256; raise `ConfigError` otherwise."""
    import hashlib

    content = read_file(backbone.path)
    check_sha256(backbone, hashlib.sha256(content).hexdigest())
    return content


def read_file(path: Path) -> bytes:
    """Return a file's bytes; raise `FsatError` if it cannot be read or is too large."""
    with disk_errors(printable(path), "cannot be read"):
        if path.exists() and not path.is_file():  # a pipe or a device may have no end
            raise ConfigError(f"{printable(path)}: is no regular file; expected a network")
        check_size(printable(path), path.stat().st_size)
        content = path.read_bytes()
    if not content:
        raise ConfigError(f"{printable(path)}: is empty; expected a network")
    return content


@contextmanager
def one_line(name: str, fault: str) -> Iterator[None]:
    """Turn any error of a library into a `ConfigError`: ``NAME: FAULT: REASON``."""
    from fsat.parallel.executor import in_one_line

    try:
        yield
    except FsatError:
        raise
    except Exception as error:
        raise ConfigError(f"{name}: {fault}: {printable(in_one_line(error))[:300]}") from error


@contextmanager
def quiet(name: str, fault: str) -> Iterator[None]:
    """Suppress standard error, C++ code's included, and turn any error into a `ConfigError`; one thread at a time."""
    from fsat.models import quiet_stderr

    failure = None
    with loading, quiet_stderr():
        try:
            yield
        except Exception as error:
            failure = error
    with one_line(name, fault):
        if failure is not None:
            raise failure


def refuse(name: str, code: Sequence[Any], advice: str) -> None:
    """Raise `ConfigError` if a file has any of the operators or layers in `code`, by name."""
    if code:
        names = sorted({printable(item)[:60] for item in code})
        shown = ", ".join(names[:SHOWN]) + (" ..." if len(names) > SHOWN else "")
        raise ConfigError(f"{name}: {count(len(names), 'operator')} refused: {shown}; {advice}")
