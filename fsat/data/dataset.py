"""A dataset ready for training: manifest, folds and decoded clips that agree with each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from fsat.config import Config
from fsat.data.cache import ClipFile, open_clips
from fsat.data.clips import Clips
from fsat.data.folds import check_fold, fold_of_clips, resolve_folds
from fsat.data.manifest import Manifest, read_manifest
from fsat.errors import count
from fsat.study import study_id


@dataclass(frozen=True)
class Dataset:
    """Everything that a study's folds share.

    Attributes:
        manifest: clips, labels, problems.
        config: with ``folds`` and ``n_folds`` settled for this dataset.
        targets: int64 (n_train,), class of each training clip.
        folds: int64 (n_train,), the fold that holds the clip out.
        train: decoded training clips.
        test: decoded test clips, one for every row of the test table; of length 0 where a clip is unusable.
        target_classes: int64 (n_train,), the class that each clip is trained on, -1 for one that is left out; by
            default `targets`. Scores are made on `targets` alone.
        trusted: bool (n_train,), that class was checked, by hand or by `verify`; by default `verified`.
        certainty: float32 (n_train,), in [0, 1], how sure it is where it is trusted; by default 1.
    """

    manifest: Manifest
    config: Config
    targets: np.ndarray
    folds: np.ndarray
    train: Clips
    test: Clips
    target_classes: np.ndarray = None  # type: ignore[assignment]
    trusted: np.ndarray = None  # type: ignore[assignment]
    certainty: np.ndarray = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        sure = np.ones(len(self.targets), dtype=np.float32)
        for name, usual in (("target_classes", self.targets), ("trusted", self.verified), ("certainty", sure)):
            if getattr(self, name) is None:
                object.__setattr__(self, name, usual)

    def relabelled(self, new_labels: Mapping[str, str], certainty: Mapping[str, float] | None = None) -> Dataset:
        """The dataset with other labels to train on, which count as trusted.

        Args:
            new_labels: by clip; empty for a clip to leave out. Clips that are not in it keep theirs.
            certainty: by clip, how sure its new label is, in [0, 1]; 1 where it is not given.
        """
        number = {label: i for i, label in enumerate(self.labels)} | {"": -1}
        classes, trusted, sure = self.targets.copy(), self.verified.copy(), self.certainty.copy()
        for i, fname in enumerate(self.manifest.train["fname"]):
            if (label := new_labels.get(fname)) is not None:
                classes[i], trusted[i], sure[i] = number[label], True, (certainty or {}).get(fname, 1)
        return replace(self, target_classes=classes, trusted=trusted, certainty=sure)

    @property
    def labels(self) -> list[str]:
        """Label order."""
        return self.manifest.labels

    @property
    def verified(self) -> np.ndarray:
        """Bool (n_train,): the label was checked by hand."""
        return self.manifest.train["manually_verified"].to_numpy() == 1

    @property
    def study(self) -> str:
        """The study's id."""
        return study_id(self.config, self.manifest.digest, self.labels)


def load_dataset(
    folder: str | Path,
    config: Config,
    on_bad_clip: str = "error",
    n_folds_given: bool = False,
    fold: int | None = None,
) -> Dataset:
    """Read, check, decode and split a dataset.

    Args:
        folder: the data folder.
        config: as chosen by the user.
        on_bad_clip: ``error`` or ``exclude``.
        n_folds_given: whether the user asked for ``config.n_folds``.
        fold: a fold that will be asked for.

    Raises:
        DataError: the dataset has problems; see `read_manifest`.
        ConfigError: the folds asked for are not to be had; found before anything is decoded.
    """
    manifest = read_manifest(folder, on_bad_clip, config)
    config = resolve_folds(manifest.train, config, n_folds_given)
    if fold is not None:
        check_fold(fold, config)
    usable = (manifest.test["reason"] == "").to_numpy()
    clips = open_clips(
        [
            *_files(manifest.train_folder, manifest.train),
            *_files(manifest.test_folder, manifest.test[usable]),
        ],
        config.sampling_rate,
    )
    n_train = len(manifest.train)
    train = clips.take(np.arange(n_train))
    test = clips.take(np.where(usable, n_train - 1 + np.cumsum(usable), -1))

    bad = {f"train/{name}": error for name, error in zip(manifest.train["fname"], train.errors, strict=True) if error}
    bad |= {
        f"test/{name}": error
        for name, error, known in zip(manifest.test["fname"], test.errors, manifest.test["reason"], strict=True)
        if error and not known
    }
    manifest = manifest.without(bad, on_bad_clip, config)
    train = train.take(train.lengths > 0)

    silent = [*manifest.train["fname"][train.silent], *manifest.test["fname"][test.silent]]
    if silent:
        more = ", ..." if len(silent) > 5 else ""
        warning = f"{count(len(silent), 'silent clip')} (every sample is 0): {', '.join(silent[:5])}{more}"
        manifest = replace(manifest, warnings=[*manifest.warnings, warning])

    targets = manifest.targets
    return Dataset(manifest, config, targets, fold_of_clips(manifest.train, targets, config), train, test)


def _files(folder: Path, table: pd.DataFrame) -> list[ClipFile]:
    return [
        ClipFile(folder / clip.fname, clip.digest, clip.stamp, clip.frames, clip.samplerate)
        for clip in table.itertuples(index=False)
    ]
