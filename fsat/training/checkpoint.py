"""Checkpoints: everything needed to resume a training after an epoch with the same results, bit by bit.

A checkpoint is one file in NumPy's ``.npz`` format, whose CRC-32 detect damage. It contains the variables of the model
(its random generators included), of the optimizer and of the loss, the kept weights, and the epochs so far. Batches and
learning rates follow from seed, fold and epoch. Reading it runs no code.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fsat.files import disk_errors, replace_whole
from fsat.progress import say
from fsat.training.warm_start import use_statistics

if TYPE_CHECKING:
    import keras

PACKAGES = ("keras", "numpy", "tensorflow")
"""Packages whose version affects the last bits of results."""


@dataclass
class TrainingState:
    """State of a training after an epoch.

    Attributes:
        history: metrics of each epoch: ``loss acc learning_rate epoch_seconds clips_per_second``, ``val_loss val_acc
            val_map3`` in epochs that were validated, and ``holdout_loss`` if there are holdout clips.
        times: end of each epoch, in milliseconds since 1970.
        best_epoch: the epoch, from 0, whose weights are kept; the last one if these are an average.
        n_averaged: number of epochs that `weights` is the mean of, if they are averaged.
        seconds: training time so far, without interruptions.
        weights: the kept weights.
        new_layers: of a warm start, the layers with new weights; see `fsat.training.warm_start.start_from`.
    """

    history: list[dict[str, float]] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    best_epoch: int = 0
    n_averaged: int = 0
    seconds: float = 0.0
    weights: list[np.ndarray] = field(default_factory=list)
    new_layers: dict[str, str] = field(default_factory=dict)

    @property
    def n_epochs(self) -> int:
        """Number of epochs so far."""
        return len(self.history)


def write_checkpoint(path: Path, state: TrainingState, model: keras.Model) -> None:
    """Replace the checkpoint at `path`, or raise `FsatError`; the previous checkpoint is still there then."""
    facts = {name: value for name, value in vars(state).items() if name != "weights"}
    facts["versions"] = _versions()
    arrays: dict[str, Any] = {f"weights_{i}": array for i, array in enumerate(state.weights)}
    arrays |= {f"variable_{i}": np.asarray(variable) for i, variable in enumerate(_variables(model))}
    what = f"the checkpoint of epoch {state.n_epochs} cannot be written"
    advice = (
        "free some space or set FSAT_CACHE_DIR to another disk, then repeat the command: training resumes from the "
        "previous checkpoint"
    )
    with disk_errors(path, what, advice), replace_whole(path) as unfinished, open(unfinished, "wb") as file:
        np.savez(file, facts=np.array(json.dumps(facts)), **arrays)


def read_checkpoint(path: Path) -> tuple[TrainingState, list[np.ndarray], dict[str, str]] | None:
    """Return state, variables and package versions; None if there is no checkpoint, or a damaged one (it warns)."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if name := arrays.zip.testzip():
                raise ValueError(f"wrong CRC-32 of {name}")
            facts = json.loads(str(arrays["facts"]))
            weights, variables = (
                [arrays[f"{name}_{i}"] for i in range(sum(key.startswith(f"{name}_") for key in arrays))]
                for name in ("weights", "variable")
            )
        versions = facts.pop("versions")
        return TrainingState(**facts, weights=weights), variables, versions
    except FileNotFoundError:
        return None
    except Exception as error:  # damaged bytes can raise any error while they are parsed
        say(f"warning: {path}: damaged checkpoint ({error}); the fold is trained from the beginning")
        return None


def count_epochs(path: Path) -> int:
    """Return the number of epochs in a checkpoint, 0 if there is no usable one."""
    checkpoint = read_checkpoint(path)
    return checkpoint[0].n_epochs if checkpoint else 0


def restore(path: Path, model: keras.Model, fold: int) -> TrainingState:
    """Set the variables of a compiled model from a checkpoint and return the state.

    If there is no usable checkpoint, the model is unchanged and the state is new; `fold` is for the log.
    """
    checkpoint = read_checkpoint(path)
    if checkpoint is None:
        return TrainingState()
    (state, arrays, versions), variables = checkpoint, _variables(model)
    if [tuple(variable.shape) for variable in variables] != [array.shape for array in arrays]:
        say(f"warning: {path}: checkpoint of another model; the fold is trained from the beginning")
        return TrainingState()
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
    use_statistics(model)
    now = _versions()
    if changed := [f"{name} {versions.get(name)}, now {now[name]}" for name in now if versions.get(name) != now[name]]:
        say(f"warning: the checkpoint was written with {'; '.join(changed)}: the last digits of results may differ")
    say(f"fold {fold} resumes after epoch {state.n_epochs}")
    return state


def _versions() -> dict[str, str]:
    """Return the versions of `PACKAGES`, by the packages themselves: they may be installed under other names."""
    return {name: str(import_module(name).__version__) for name in PACKAGES}


def _variables(model: keras.Model) -> list[Any]:
    """Return everything that training changes, in a fixed order: weights, random generators, optimizer, loss."""
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    steps = [model.loss.step] if hasattr(model.loss, "step") else []
    return [*model.variables, *model.optimizer.variables, *steps]
