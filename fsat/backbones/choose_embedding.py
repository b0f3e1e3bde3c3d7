"""Choose the output of a network that is its embedding.

It is the output, or the layer of a Keras model, whose name says so; else what the last dense layer of a classifier
takes in; else the only output. Where a file leaves it open, the user is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from fsat.backbones.descriptor import Output
from fsat.backbones.network import SHOWN, ModelFile, Tensor
from fsat.errors import ConfigError, printable

Candidate = tuple[Output, Tensor]

MAIN = ("", "serving_default")
"""Signatures that are preferred."""


def choose_embedding(file: ModelFile) -> tuple[Output, str]:
    """Return the output that is the embedding, and the reason; raise `ConfigError` if the file leaves it open."""
    for choose in (_by_name, _before_classifier, _only_output):
        candidates, reason = choose(file)
        if len(candidates) > 1:
            raise _ask(file, candidates)
        if candidates:
            return candidates[0][0], reason
    raise _ask(file, list(outputs(file)))


def outputs(file: ModelFile) -> Iterator[Candidate]:
    """Yield the float32 outputs of a file: of the network as a whole, then those of signatures."""
    names = sorted(file.signatures, key=lambda name: (MAIN.index(name) if name in MAIN else len(MAIN), name))
    for name in names:
        for index, tensor in enumerate(file.signatures[name].outputs):
            if tensor.dtype == "float32":
                yield (Output(signature=name, key=tensor.name) if name else Output(index=index)), tensor


def inner_vectors(file: ModelFile) -> list[Candidate]:
    """Return the inner tensors and layers with one vector for a window, from the end of the network."""
    own = {output.index for output in file.signatures[""].outputs} if "" in file.signatures else set()
    vectors = [tensor for tensor in file.internal if tensor.index not in own and _is_vector(tensor)]
    return [(_inner(tensor), tensor) for tensor in reversed(vectors)]


def option_of(output: Output) -> str:
    """Return the options of the command line that choose an output."""
    return " ".join(f"--output_{name} {printable(value)}" for name, value in output.to_json().items())


def _by_name(file: ModelFile) -> tuple[list[Candidate], str]:
    """Return the outputs named embedding, or those with ``embed`` in their names; else such layers."""
    own = list(outputs(file))
    layers = [(_inner(tensor), tensor) for tensor in file.internal if tensor.index < 0]
    main = [candidate for candidate in own if candidate[0].signature in MAIN]
    tests: tuple[Callable[[Candidate], bool], ...] = (
        lambda candidate: candidate[1].name.lower() in ("embedding", "embeddings"),
        lambda candidate: "embed" in f"{candidate[0].signature} {candidate[1].name}".lower(),
    )
    for candidates in (main, own, layers):
        for test in tests:
            if named := [candidate for candidate in candidates if test(candidate)]:
                return named, "by its name"
    return [], ""


def _before_classifier(file: ModelFile) -> tuple[list[Candidate], str]:
    """Return the vectors that the last dense layers take in, outputs where they are any."""
    whole = [(output, tensor) for output, tensor in outputs(file) if not output.signature]
    befores = {tensor.name: tensor for _, output in whole if (tensor := file.before_classifier(output)) is not None}
    candidates = []
    for before in befores.values():
        if _is_vector(before):
            same = [candidate for candidate in whole if candidate[1].name == before.name]
            candidates.append(same[0] if same else (_inner(before), before))
    return candidates, "what the last dense layer takes in"


def _only_output(file: ModelFile) -> tuple[list[Candidate], str]:
    """Return the outputs of the first signature."""
    own = list(outputs(file))
    return [candidate for candidate in own if candidate[0].signature == own[0][0].signature], "the only output"


def _inner(tensor: Tensor) -> Output:
    return Output(tensor=tensor.index) if tensor.index >= 0 else Output(name=tensor.name)


def _is_vector(tensor: Tensor) -> bool:
    return tensor.shape is not None and len(tensor.shape) == 2 and tensor.shape[-1] != 1


def _ask(file: ModelFile, candidates: list[Candidate]) -> ConfigError:
    if not candidates:
        return ConfigError(f"{file.name}: has no float32 output; expected a network with one")
    shown = ", ".join(f"{tensor} ({option_of(output)})" for output, tensor in candidates[:SHOWN])
    rest = f" and {len(candidates) - SHOWN} more" if len(candidates) > SHOWN else ""
    return ConfigError(f"{file.name}: does not say which output is the embedding: {shown}{rest}; give one of them")
