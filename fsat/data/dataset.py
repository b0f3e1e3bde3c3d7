"""A dataset ready for training: manifest, folds and decoded clips that agree with each other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fsat.config import Config
from fsat.data.clips import decode_clips
from fsat.data.folds import check_fold, fold_of_clips, resolve_folds
from fsat.data.manifest import Manifest, read_manifest
from fsat.errors import AudioError, count


@dataclass(frozen=True)
class Dataset:
    """Everything that a study's folds share.

    Attributes:
        manifest: clips, labels, problems.
        config: with ``folds`` and ``n_folds`` settled for this dataset.
        targets: int64 (n_train,), class of each training clip.
        folds: int64 (n_train,), the fold that holds the clip out.
        train: decoded training clips, float32 (n_samples,) each.
        test: decoded test clips; None where a clip is unusable.
    """

    manifest: Manifest
    config: Config
    targets: np.ndarray
    folds: np.ndarray
    train: list[np.ndarray]
    test: list[np.ndarray | None]

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
        return self.config.study_id(self.manifest.digest, self.labels)


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
    train = decode_clips(
        manifest.train_folder, manifest.train["fname"].tolist(), config.sampling_rate, "training clips"
    )
    usable = manifest.test["reason"] == ""
    names = manifest.test.loc[usable, "fname"].tolist()
    decoded = iter(decode_clips(manifest.test_folder, names, config.sampling_rate, "test clips"))
    test = [next(decoded) if good else None for good in usable]

    bad = {f"train/{name}": str(clip) for name, clip in zip(manifest.train["fname"], train, strict=True)
           if isinstance(clip, AudioError)}  # fmt: skip
    bad |= {f"test/{name}": str(clip) for name, clip in zip(manifest.test["fname"], test, strict=True)
            if isinstance(clip, AudioError)}  # fmt: skip
    manifest = manifest.without(bad, on_bad_clip, config)
    train = [clip for clip in train if not isinstance(clip, AudioError)]
    test = [None if isinstance(clip, AudioError) else clip for clip in test]

    silent = [name for name, clip in zip(manifest.train["fname"], train, strict=True) if not clip.any()]
    silent += [
        name for name, clip in zip(manifest.test["fname"], test, strict=True) if clip is not None and not clip.any()
    ]
    if silent:
        more = ", ..." if len(silent) > 5 else ""
        warning = f"{count(len(silent), 'silent clip')} (every sample is 0): {', '.join(silent[:5])}{more}"
        manifest = replace(manifest, warnings=[*manifest.warnings, warning])

    targets = manifest.targets
    return Dataset(manifest, config, targets, fold_of_clips(manifest.train, targets, config), train, test)
