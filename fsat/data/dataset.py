"""A dataset ready for training: manifest, folds and decoded clips that agree with each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from fsat.config import Config, study_id
from fsat.data.clip_store import ClipFile, open_clips
from fsat.data.decoded_clips import Clips
from fsat.data.folds import check_fold, fold_of_clips, resolve_folds
from fsat.data.manifest import Manifest, read_manifest
from fsat.errors import count

SHOWN = ("model", "sampling_rate", "audio_duration", "n_folds", "folds", "precision", "seed")  # always, in the summary

EXCLUDED_SHOWN = 3
"""Number of excluded clips that are named."""


@dataclass(frozen=True)
class Source:
    """The dataset options of a command; `on_bad_clip` is ``error`` or ``exclude``."""

    data_dir: Path
    on_bad_clip: str = "error"
    n_folds_given: bool = False


def warning_lines(manifest: Manifest) -> list[str]:
    """Return the warnings of a manifest, of which the last names the first of the training rows that are excluded."""
    warnings = list(manifest.warnings)
    if excluded := [problem for problem in manifest.problems if problem.split == "train"]:
        rest = [f"and {len(excluded) - EXCLUDED_SHOWN} more"] if len(excluded) > EXCLUDED_SHOWN else []
        names = "; ".join([*map(str, excluded[:EXCLUDED_SHOWN]), *rest])
        warnings.append(f"{count(len(excluded), 'training row')} excluded (on_bad_clip=exclude): {names}")
    return [f"warning: {warning}" for warning in warnings]


@dataclass(frozen=True)
class Dataset:
    """The data that all folds of a study share.

    Attributes:
        config: with ``folds`` and ``n_folds`` settled for this dataset.
        targets: int64 (n_train,), class of each training clip.
        folds: int64 (n_train,), the fold that holds the clip out.
        test: decoded test clips, one for every row of the test table; of length 0 if unusable.
        target_classes: int64 (n_train,), the class that each clip is trained on, -1 for one that is left out; scores
            use `targets` only.
        trusted: bool (n_train,), that class was verified, by hand or by `verify`.
        certainty: float32 (n_train,), in [0, 1], the probability of that class if it is trusted.
    """

    manifest: Manifest
    config: Config
    targets: np.ndarray
    folds: np.ndarray
    train: Clips
    test: Clips
    target_classes: np.ndarray
    trusted: np.ndarray
    certainty: np.ndarray

    def relabelled(self, new_labels: Mapping[str, str], certainty: Mapping[str, float] | None = None) -> Dataset:
        """Return the dataset with other labels to train on, which count as trusted.

        Labels and their probabilities, 1 by default, are given by clip; an empty label leaves the clip out.
        """
        index = {label: i for i, label in enumerate(self.labels)} | {"": -1}
        classes, trusted, probabilities = self.targets.copy(), self.verified.copy(), self.certainty.copy()
        for i, fname in enumerate(self.manifest.train["fname"]):
            if (label := new_labels.get(fname)) is not None:
                classes[i], trusted[i], probabilities[i] = index[label], True, (certainty or {}).get(fname, 1)
        return replace(self, target_classes=classes, trusted=trusted, certainty=probabilities)

    @property
    def labels(self) -> list[str]:
        """Label order."""
        return self.manifest.labels

    @property
    def verified(self) -> np.ndarray:
        """Bool (n_train,): the label was verified by hand."""
        return self.manifest.verified

    @property
    def study(self) -> str:
        """The study's id."""
        return study_id(self.config, self.manifest.digest, self.labels)

    def summary(self) -> list[str]:
        """Return the warnings and one line about the study."""
        lines = warning_lines(self.manifest)
        defaults = Config().to_dict()
        shown = {k: v for k, v in self.config.to_dict().items() if k in SHOWN or v != defaults[k]}
        settings = " ".join(f"{name}={value}" for name, value in shown.items())
        n_train, n_test = count(len(self.train), "training clip"), count(len(self.test), "test clip")
        lines.append(f"study {self.study}: {n_train}, {n_test}, {count(len(self.labels), 'class')}; {settings}")
        return lines


def load_dataset(
    folder: str | Path, config: Config, on_bad_clip: str = "error", n_folds_given: bool = False, fold: int | None = None
) -> Dataset:
    """Read, check, decode and split a dataset, which must have the `fold`, if given.

    Raises:
        DataError: the dataset has problems; see `read_manifest`.
        ConfigError: the folds do not fit the dataset; found before anything is decoded.
    """
    manifest = read_manifest(folder, on_bad_clip, config)
    config = resolve_folds(manifest.train, config, n_folds_given)
    if fold is not None:
        check_fold(fold, config)
    train, test = _open_clips(manifest, config.sampling_rate)
    test_errors = ["" if known else error for known, error in zip(manifest.test["reason"], test.errors, strict=True)]
    manifest = manifest.without(train.errors, test_errors, on_bad_clip, config)
    train = train.take(train.lengths > 0)
    if silent := [*manifest.train["fname"][train.silent], *manifest.test["fname"][test.silent]]:
        ellipsis = ", ..." if len(silent) > 5 else ""
        warning = f"{count(len(silent), 'silent clip')} (every sample is 0): {', '.join(silent[:5])}{ellipsis}"
        manifest = replace(manifest, warnings=[*manifest.warnings, warning])
    targets = manifest.targets
    folds = fold_of_clips(manifest.train, targets, config)
    certainty = np.ones(len(targets), dtype=np.float32)
    return Dataset(manifest, config, targets, folds, train, test, targets, manifest.verified, certainty)


def _open_clips(manifest: Manifest, sampling_rate: int) -> tuple[Clips, Clips]:
    """Return the decoded clips of the training and the test table; unusable test clips have length 0."""
    usable = (manifest.test["reason"] == "").to_numpy()
    files = _files(manifest.train_folder, manifest.train)
    n_train = len(files)
    clips = open_clips(files + _files(manifest.test_folder, manifest.test[usable]), sampling_rate)
    return clips.take(np.arange(n_train)), clips.take(np.where(usable, n_train - 1 + np.cumsum(usable), -1))


def _files(folder: Path, table: pd.DataFrame) -> list[ClipFile]:
    columns = (table[name] for name in ("fname", "digest", "stamp", "frames", "samplerate"))
    return [ClipFile(folder / fname, *facts) for fname, *facts in zip(*columns, strict=True)]
