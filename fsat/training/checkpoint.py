"""All that a training needs to go on after an epoch as if it had never stopped: one file, whole or not there.

The file is a line with the SHA-256 of what follows, then NumPy's ``.npz``: the model's variables with the states of its
random streams, the optimizer's, the weights that are kept, and the record of the epochs so far. Batches and schedule
need nothing, for they follow from seed, fold and epoch. Nothing in the file is ever run as code.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fsat.errors import FsatError
from fsat.progress import say

if TYPE_CHECKING:
    import keras

    from fsat.training.loop import Watch

PACKAGES = ("keras", "numpy", "tensorflow")
"""Those whose version changes the last bits of what is computed."""


@dataclass
class Checkpoint:
    """A training after a finished epoch.

    Attributes:
        variables: arrays of the model, the optimizer and the loss, in their own order.
        kept_weights: what `fsat.training.loop.Watch` keeps.
        kept_epoch, n_averaged: as there.
        history: metrics of each epoch so far.
        times: when each of them ended, in milliseconds since 1970.
        seconds: how long it was trained, in all sittings.
        versions: of `PACKAGES`.
    """

    variables: list[np.ndarray]
    kept_weights: list[np.ndarray]
    kept_epoch: int
    n_averaged: int
    history: list[dict[str, float]]
    times: list[int]
    seconds: float
    versions: dict[str, str] = field(default_factory=lambda: {name: version(name) for name in PACKAGES})

    def write(self, path: Path) -> None:
        """Write it, whole or not at all.

        Raises:
            FsatError: the disk is full, or the folder cannot be written.
        """
        arrays = {f"variable_{i}": array for i, array in enumerate(self.variables)}
        arrays |= {f"kept_{i}": array for i, array in enumerate(self.kept_weights)}
        facts = {name: value for name, value in vars(self).items() if name not in ("variables", "kept_weights")}
        facts |= {"n_variables": len(self.variables), "n_kept": len(self.kept_weights)}
        buffer = io.BytesIO()
        np.savez(buffer, facts=np.array(json.dumps(facts)), **arrays)
        unfinished = path.with_name(path.name + ".unfinished")
        try:
            with open(unfinished, "wb") as file:
                file.write(hashlib.sha256(buffer.getbuffer()).hexdigest().encode() + b"\n")
                file.write(buffer.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, path)
        except OSError as error:
            raise FsatError(
                f"{path}: the checkpoint of epoch {len(self.history)} cannot be written ({error.strerror or error}); "
                "make room there or set FSAT_CACHE_DIR to another disk, then ask for the fold again: it goes on from "
                "the checkpoint before"
            ) from error
        finally:
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)

    @classmethod
    def read(cls, path: Path) -> Checkpoint | None:
        """What was written; None, with a warning unless there is no such file, where it is not as it was written."""
        try:
            with open(path, "rb") as file:
                digest, body = file.readline().strip(), file.read()
            if hashlib.sha256(body).hexdigest().encode() != digest:
                raise ValueError("its checksum is wrong")
            with np.load(io.BytesIO(body), allow_pickle=False) as arrays:
                facts = json.loads(str(arrays["facts"]))
                variables = [arrays[f"variable_{i}"] for i in range(facts.pop("n_variables"))]
                kept = [arrays[f"kept_{i}"] for i in range(facts.pop("n_kept"))]
            return cls(variables, kept, **facts)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            say(f"warning: {path}: this checkpoint cannot be used ({error}); the fold is trained from its beginning")
            return None

    def warn_of_versions(self) -> None:
        """Say if other versions than these trained so far: the last bits may then be neither's."""
        before = {name: self.versions.get(name, "?") for name in PACKAGES}
        changed = [f"{name} {before[name]}, now {version(name)}" for name in PACKAGES if before[name] != version(name)]
        if changed:
            say(f"warning: the checkpoint was written with {'; '.join(changed)}: the last digits of what follows may "
                "differ from a training with one of them")  # fmt: skip


def count_epochs(path: Path) -> int:
    """Return the number of epochs in a checkpoint file, 0 if there is none that can be used."""
    checkpoint = Checkpoint.read(path)
    return len(checkpoint.history) if checkpoint else 0


def variables_of(model: keras.Model) -> list[np.ndarray]:
    """Arrays of all that changes while a compiled model trains: weights, random streams, optimizer, loss."""
    return [np.asarray(variable) for variable in _variables(model)]


def restore(path: Path, model: keras.Model, watch: Watch) -> float:
    """Put a training back to where its checkpoint left it, if there is one.

    Args:
        path: of the checkpoint.
        model: compiled, of the same Config.
        watch: gets the epochs so far and the weights that are kept.

    Returns:
        how many seconds it had been trained; 0 if there is nothing to go on from.
    """
    before = Checkpoint.read(path)
    if before is None:
        return 0.0
    variables = _variables(model)
    if [tuple(variable.shape) for variable in variables] != [array.shape for array in before.variables]:
        say(f"warning: {path}: this checkpoint is of another model; the fold is trained from its beginning")
        return 0.0
    before.warn_of_versions()
    for variable, array in zip(variables, before.variables, strict=True):
        variable.assign(array)
    watch.kept_weights, watch.kept_epoch, watch.n_averaged = before.kept_weights, before.kept_epoch, before.n_averaged
    watch.history, watch.times = before.history, before.times
    say(f"fold {watch.fold} goes on after epoch {len(before.history)}/{watch.config.max_epochs}")
    return before.seconds


def _variables(model: keras.Model) -> list:
    """In an order that depends on the model alone."""
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    step = getattr(model.loss, "step", None)
    return [*model.variables, *model.optimizer.variables, *([] if step is None else [step])]
