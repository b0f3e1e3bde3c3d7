"""Try a backbone on silence, noise and a tone, in a process of its own with a limit of memory.

A network that needs more memory than `fsat.backbones.network.memory_limit` for one window fails there, and not in the
process that trains or serves; windows that are computed at once take more. What passed is remembered by digest in the
cache folder.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import numpy as np

from fsat import files
from fsat.backbones.descriptor import Backbone
from fsat.backbones.network import MEMORY, memory_limit
from fsat.backbones.runtime import Runtime, open_backbone
from fsat.errors import ConfigError, FsatError
from fsat.parallel.executor import Processes

Argument = TypeVar("Argument")
Result = TypeVar("Result")

CHECKS = 1
"""Version of the checks: those of other versions are not remembered."""

TOLERANCE = 1e-4
"""Greatest difference of an embedding between two calls or batches, relative to its greatest absolute value."""

CPU_SECONDS = 600
"""Processor time that a probe may take."""


def checked_size(backbone: Backbone) -> int:
    """Return the number of values of an embedding of a backbone that works; `probe` it unless it has been probed.

    Raises `ConfigError` if the probe fails, or the descriptor has another size.
    """
    path = files.cache_dir() / files.MEMOS / "backbones" / f"{backbone.digest}.json"
    facts = None
    with files.cache_errors(path.parent):
        try:
            facts = files.read_facts(path)
        except files.Damaged:
            path.unlink()
    if facts is None or facts["checks"] != CHECKS:
        facts = {"checks": CHECKS, "size": probe(backbone)}
        with files.cache_errors(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write_facts(path, facts)
    size = int(facts["size"])
    if backbone.size not in (None, size):
        fault = f"an embedding has {size} values; its descriptor has size {backbone.size}"
        raise ConfigError(f"{backbone}: {fault}; correct or remove size, or choose another output")
    return size


def probe(backbone: Backbone) -> int:
    """Return the number of values of an embedding, after `check` in a process with a limit of memory and time.

    Raises `ConfigError` if a check fails, `RunError` if the process dies, as it does without enough memory.
    """
    return run_limited(check_backbone, backbone)


def run_limited(function: Callable[[Argument], Result], argument: Argument) -> Result:
    """Return ``function(argument)``, computed in a process with a limit of memory and time.

    Raises `ConfigError` if the function raises an `FsatError`, `RunError` if it fails otherwise, or its process dies.
    """
    gigabytes = memory_limit() / 1e9
    advice = f"a backbone may use {gigabytes:g} GB of memory ({MEMORY}) and {CPU_SECONDS} s of processor time here"
    ((result, error),) = Processes(1, advice).map(partial(_limited, function), [argument], "backbone")
    if error:
        raise ConfigError(error)
    return result


def check_backbone(backbone: Backbone) -> int:
    """Open a backbone in this process, `check` it, and return the number of values of an embedding."""
    return check(open_backbone(backbone, workers=1))


def check(runtime: Runtime) -> int:
    """Return the number of values of an embedding; raise `FsatError` if the network cannot be used.

    Its embeddings must be finite, of one size, different for different sounds, and the same whatever else is computed.
    """
    backbone, sounds = runtime.backbone, probe_sounds(runtime.backbone)
    embeddings = {}
    for name, sound in sounds.items():
        try:
            (embeddings[name],) = runtime.embed(sound[np.newaxis])
        except FsatError as error:
            raise ConfigError(f"{error} (probed with {name})") from error
    if _differs(embeddings["noise"], runtime.embed(sounds["noise"][np.newaxis])[0]):
        raise ConfigError(f"{backbone}: a second call answers differently; expected a network without state or chance")
    if not any(_differs(embeddings[name], embeddings["noise"]) for name in ("tone", "other noise")):
        raise ConfigError(f"{backbone}: answers the same for noise and a tone; choose another output or scaling")
    _check_batch(runtime, np.stack(list(sounds.values())), np.stack(list(embeddings.values())))
    if backbone.window is None:
        runtime.embed(np.tile(sounds["noise"], 2)[np.newaxis, : 3 * len(sounds["noise"]) // 2])
    return runtime.size


def _check_batch(runtime: Runtime, sounds: np.ndarray, embeddings: np.ndarray) -> None:
    """Raise `ConfigError` if an embedding depends on the other windows of a batch.

    A network that takes batches but fails on them can be used, as `Runtime` gives it one window at a time.
    """
    try:
        together = runtime.embed_together(sounds)
    except ConfigError:
        return
    differing = [i for i, embedding in enumerate(embeddings) if _differs(embedding, together[i])]
    if differing:
        difference = np.abs(together - embeddings).max()
        fault = f"a window's embedding depends on the other windows of its batch (by up to {difference:.2g})"
        raise ConfigError(f"{runtime.backbone}: {fault}; convert the network for a batch of 1")


def _differs(one: np.ndarray, other: np.ndarray) -> bool:
    scale = max(float(np.abs(one).max()), float(np.abs(other).max()))
    return float(np.abs(one - other).max()) > TOLERANCE * scale


def probe_sounds(backbone: Backbone) -> dict[str, np.ndarray]:
    """Return sounds of a window's length, or a second, by name: float32 (n_samples,)."""
    n_samples = backbone.n_samples or backbone.sampling_rate
    rng = np.random.default_rng(1001)
    noise, other = rng.uniform(-0.5, 0.5, (2, n_samples))
    tone = 0.5 * np.sin(2 * np.pi * 0.055 * np.arange(n_samples))
    sounds = {"noise": noise, "silence": np.zeros(n_samples), "tone": tone, "other noise": other, "quiet": 1e-4 * noise}
    return {name: sound.astype(np.float32) for name, sound in sounds.items()}


def _limited(function: Callable[[Argument], Any], argument: Argument) -> tuple[Any, str]:
    """Return the result of a function in its process, and the message of an error."""
    from fsat.models import import_keras

    import_keras()
    if not os.environ.get("FSAT_DEBUG"):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what C++ code prints when it dies
    _limit_memory()
    try:
        return function(argument), ""
    except FsatError as error:
        return None, str(error)
    except MemoryError:
        return None, f"{argument}: needs more than {memory_limit() / 1e9:g} GB of memory; set {MEMORY} to allow more"


def _limit_memory() -> None:
    """Limit this process's memory and processor time, on Linux."""
    if sys.platform != "linux":
        return
    import resource

    with open("/proc/self/status") as status:
        kilobytes = next(int(line.split()[1]) for line in status if line.startswith("VmData"))
    for kind, limit in ((resource.RLIMIT_DATA, 1024 * kilobytes + memory_limit()), (resource.RLIMIT_CPU, CPU_SECONDS)):
        _, hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
