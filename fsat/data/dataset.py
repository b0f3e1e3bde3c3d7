"""A dataset ready for training: manifest, folds and decoded clips that agree with each other."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from fsat.config import Config
from fsat.data.clip_groups import clip_groups, describe_large_groups, describe_leak
from fsat.data.clip_names import stored_name
from fsat.data.clip_store import ClipFile, open_clips
from fsat.data.decoded_clips import Clips
from fsat.data.duplicates import contradictions, describe_copies, equal_clips
from fsat.data.folds import check_fold, describe_unscored, fold_keys, resolve_folds, settle_folds
from fsat.data.label_checks import class_warnings
from fsat.data.levels import by_kind, kind_lines
from fsat.data.listening import listen_to_clips
from fsat.data.manifest import Manifest, read_manifest, why_one_label
from fsat.errors import DataError, count
from fsat.layout_options import FOUND, LayoutOptions
from fsat.study import study_id

SHOWN = ("model", "sampling_rate", "audio_duration", "n_folds", "folds", "precision", "seed")  # always, in the summary

EXCLUDED_SHOWN = 3
"""Number of excluded clips that are named."""


@dataclass(frozen=True)
class Source:
    """The dataset options of a command; `on_bad_clip` is ``error`` or ``exclude``."""

    data_dir: Path
    on_bad_clip: str = "error"
    n_folds_given: bool = False
    layout: LayoutOptions = FOUND


@dataclass(frozen=True)
class Start:
    """What the folds of a dataset start from.

    Attributes:
        init_from: the setting of this name, settled: ids of fold runs, one for all folds or one for each.
        tagger: ``models:/NAME/VERSION``, if that named them, else empty.
        leak: how many clips have trained the model that scores them, in words; empty if none have.
    """

    init_from: str
    tagger: str = ""
    leak: str = ""


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
        targets: int64 (n_train,), class of each training clip; or bool (n_train, n_classes), which classes it has, if
            ``config.task`` is ``multi``.
        folds: int64 (n_train,), the fold that holds the clip out.
        test: decoded test clips, one for every row of the test table; of length 0 if unusable.
        target_classes: int64 (n_train,), the class that each clip is trained on, -1 for one that is left out; scores
            use `targets` only. In ``multi`` bool (n_train, n_classes), as `targets`.
        trusted: bool (n_train,), that class was verified, by hand or by `verify`; in ``multi`` (n_train, n_classes).
        certainty: float32, of the same shape, in [0, 1], the probability of what is trusted; 0 leaves it out.
        start: earlier fold runs whose weights the folds start from, if any.
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
    start: Start | None = None

    def starting_from(self, start: Start) -> Dataset:
        """Return the dataset whose folds start from earlier runs."""
        return replace(self, config=replace(self.config, init_from=start.init_from), start=start)

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

    def relabelled_pairs(self, pairs: pd.DataFrame) -> Dataset:
        """Return the dataset, of the task ``multi``, with the decisions of `verify` on labels of unverified clips.

        Labels that no row names are absent, and trusted to be. Columns of `pairs` are ``clip`` (the number of a
        training clip), ``label``, ``score`` (the probability of the decision), and ``decision``: ``accept`` the label
        or its absence, ``add`` or ``remove`` it, ``drop`` the pair from training, or ``keep`` it, which is not trusted.
        """
        index = {label: i for i, label in enumerate(self.labels)}
        rows, columns = pairs["clip"].to_numpy(), pairs["label"].map(index).to_numpy(dtype=np.int64)
        kinds, scores = pairs["decision"].to_numpy(), pairs["score"].to_numpy(dtype=np.float32)
        classes, trusted, certainty = self.targets.copy(), np.ones_like(self.trusted), np.ones_like(self.certainty)
        classes[rows[kinds == "add"], columns[kinds == "add"]] = True
        out = (kinds == "remove") | (kinds == "drop")
        classes[rows[out], columns[out]] = False
        trusted[rows, columns] = kinds != "keep"
        certainty[rows, columns] = np.select([kinds == "keep", kinds == "drop"], [1, 0], scores)
        return replace(self, target_classes=classes, trusted=trusted, certainty=certainty)

    @property
    def labels(self) -> list[str]:
        """Label order."""
        return self.manifest.labels

    @property
    def verified(self) -> np.ndarray:
        """Bool (n_train,): the label was verified by hand."""
        return self.manifest.verified

    @cached_property
    def leak(self) -> str:
        """Which clips the models that score them know: of a recording or sound in another fold, or of the start."""
        leaks = describe_leak(self.manifest.train, self.folds), self.start.leak if self.start else ""
        return "; ".join(filter(None, leaks))

    @property
    def marks(self) -> dict[str, str]:
        """Tags of runs whose scores need a remark."""
        return {"leak": self.leak} if self.leak else {}

    @property
    def study(self) -> str:
        """The study's id."""
        folds = hashlib.sha256(np.ascontiguousarray(self.folds, "<i8").tobytes())
        groups = clip_groups(self.manifest.train) if self.config.holdout else None
        if groups is not None:  # they decide which clips are held out
            folds.update(np.ascontiguousarray(pd.factorize(groups)[0], "<i8").tobytes())
        return study_id(self.config, self.manifest.digest, self.labels, folds.hexdigest())

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
    folder: str | Path,
    config: Config,
    on_bad_clip: str = "error",
    n_folds_given: bool = False,
    fold: int | None = None,
    layout: LayoutOptions = FOUND,
    tell: Callable[[str], None] = lambda line: None,
) -> Dataset:
    """Read, check, decode and split a dataset, which must have the `fold`, if given.

    Its training clips are in the same order whatever the order of the table and the names of the files. `tell` is
    called with what was found, in a line, before the clips are decoded.

    Raises:
        DataError: the dataset has problems, see `read_manifest`, or one label only.
        ConfigError: the folds do not fit the dataset; found before anything is decoded.
    """
    manifest = read_manifest(folder, on_bad_clip, config, layout)
    tell(manifest.describe())
    check_labels(manifest)
    config = resolve_folds(manifest.train, config.for_task(manifest.task), n_folds_given)
    if fold is not None:
        check_fold(fold, config)
    train, test = _open_clips(manifest, config.sampling_rate)
    test_errors = ["" if known else error for known, error in zip(manifest.test["reason"], test.errors, strict=True)]
    sounds = equal_clips(train, test)
    manifest, usable = _with_sounds(manifest, sounds, (train.errors, test_errors), on_bad_clip, config)
    check_labels(manifest)
    train = train.take(usable)
    kinds = by_kind([*manifest.train["fname"], *manifest.test["fname"]], [*train.notes, *test.notes])
    manifest = replace(manifest, warnings=[*manifest.warnings, *kind_lines(kinds)])
    manifest, order = manifest.in_canonical_order()
    train, targets = train.take(order), manifest.targets
    config, folds, remark = settle_folds(manifest.train, targets, config)
    if fold is not None:
        check_fold(fold, config, remark)
    warnings = [
        *manifest.warnings,
        *filter(None, [remark, describe_unscored(targets, folds)]),
        *_describe_groups(manifest.train, config.n_folds, folds),
    ]
    manifest = replace(manifest, warnings=warnings)
    trusted, certainty = manifest.verified, np.ones(targets.shape, dtype=np.float32)
    if config.is_multi:
        trusted = np.repeat(trusted[:, np.newaxis], targets.shape[1], axis=1)
    return Dataset(manifest, config, targets, folds, train, test, targets, trusted, certainty)


def inspect_dataset(
    folder: str | Path,
    on_bad_clip: str = "error",
    layout: LayoutOptions = FOUND,
    tell: Callable[[str], None] = lambda line: None,
) -> Manifest:
    """Read and check a dataset and listen to every clip; warnings tell what training would refuse or warn of.

    Both tables have the column ``note``, what is odd about a clip. Raises `DataError` as `load_dataset`.
    """
    manifest = read_manifest(folder, on_bad_clip, layout=layout)
    tell(manifest.describe())
    folders, tables = (manifest.train_folder, manifest.test_folder), (manifest.train, manifest.test)
    heard, n_train = listen_to_clips(folders, tables), len(manifest.train)
    train, test = manifest.train.assign(note=heard.notes[:n_train]), manifest.test.assign(note=heard.notes[n_train:])
    manifest, errors = replace(manifest, train=train, test=test), (heard.errors[:n_train], heard.errors[n_train:])
    manifest, _ = _with_sounds(manifest, heard.first, errors, on_bad_clip)
    train, test = manifest.train, manifest.test
    kinds = by_kind([*train["fname"], *test["fname"]], [*train["note"], *test["note"]])
    manifest = replace(manifest, warnings=[*manifest.warnings, *kind_lines(kinds)])
    folds = np.array(fold_keys(train["fold"]), dtype=object) if "fold" in train else None
    n_folds = Config.n_folds if folds is None else len(set(folds))
    reason = why_one_label(manifest)
    return replace(
        manifest, warnings=[*manifest.warnings, *filter(None, [reason]), *_describe_groups(train, n_folds, folds)]
    )


def _with_sounds(
    manifest: Manifest,
    sounds: np.ndarray,
    errors: tuple[list[str], list[str]],
    on_bad_clip: str,
    config: Config | None = None,
) -> tuple[Manifest, np.ndarray]:
    """Return the manifest without unusable clips and contradictory labels of equal sounds, and the usable clips.

    Equal sounds are told in its warnings, and share a number in the column ``sound`` of both tables. `sounds` is int
    (n_train + n_test,), these numbers; `errors` are those of training and test clips; the mask is bool (n_train,).
    """
    n_train = len(manifest.train)
    train, test = manifest.train.assign(sound=sounds[:n_train]), manifest.test.assign(sound=sounds[n_train:])
    conflicts = contradictions(train, train["sound"].tolist(), manifest.task)
    train_errors = [error or conflict for error, conflict in zip(errors[0], conflicts, strict=True)]
    manifest = replace(manifest, train=train, test=test).without(train_errors, errors[1], on_bad_clip, config)
    copies = describe_copies(manifest.train, manifest.test)
    if manifest.task == "multi":
        copies += class_warnings(manifest.targets, manifest.labels)
    usable = np.array([not error for error in train_errors])
    return replace(manifest, warnings=[*manifest.warnings, *copies]), usable


def _describe_groups(train: pd.DataFrame, n_folds: int, folds: np.ndarray | None) -> list[str]:
    """Return warnings of recordings larger than a fold, and of recordings and sounds in several folds."""
    leak = describe_leak(train, folds) if folds is not None else ""
    advice = "models are scored on what they have trained on; use folds=stratified, or correct the fold column"
    return [*describe_large_groups(train, n_folds), *([f"{leak}, so that {advice}"] if leak else [])]


def check_labels(manifest: Manifest) -> None:
    """Raise `DataError` if all clips have the same label, which every model would get right."""
    if reason := why_one_label(manifest):
        raise DataError(f"{manifest.folder}: {reason}")


def _open_clips(manifest: Manifest, sampling_rate: int) -> tuple[Clips, Clips]:
    """Return the decoded clips of the training and the test table; unusable test clips have length 0."""
    usable = (manifest.test["reason"] == "").to_numpy()
    files = _files(manifest.train_folder, manifest.train)
    n_train = len(files)
    clips = open_clips(files + _files(manifest.test_folder, manifest.test[usable]), sampling_rate)
    return clips.take(np.arange(n_train)), clips.take(np.where(usable, n_train - 1 + np.cumsum(usable), -1))


def _files(folder: Path, table: pd.DataFrame) -> list[ClipFile]:
    columns = (table[name] for name in ("fname", "digest", "stamp", "frames", "samplerate"))
    return [ClipFile(folder / stored_name(folder, fname), *facts) for fname, *facts in zip(*columns, strict=True)]
