"""Assign each clip to the fold that holds it out: by the table's ``fold`` column, or by a stratified split.

Folds are numbered from 0. The values of a ``fold`` column are sorted (as numbers if all are) and numbered in order.

Conventions: `train` is the manifest's table, whose cells of ``label`` have one label, or any number in task=multi;
`targets` are those of `targets_of`: int (n_clips,), or bool (n_clips, n_classes) in multi, where a class is judged like
one of single labels: by the clips that have it, whatever else they have.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from typing import Any

import numpy as np
import pandas as pd

from fsat.config import Config
from fsat.data.clip_groups import clip_groups
from fsat.data.stratify import stratified_folds
from fsat.errors import ConfigError, DataError, Problem, count
from fsat.text import named, split_labels


def resolve_folds(train: pd.DataFrame, config: Config, n_folds_given: bool = False) -> Config:
    """Settle ``folds``, maybe ``auto``, and ``n_folds``, so that a study's id depends on the source of its folds.

    Raises `ConfigError` for folds=column without a column, or a column with another number of folds than the given one.
    """
    if config.folds == "stratified" or (config.folds == "auto" and "fold" not in train):
        return replace(config, folds="stratified")
    if "fold" not in train:
        raise ConfigError("folds=column: the table has no fold column; add one, or use folds=stratified")
    n_folds = len(set(fold_keys(train["fold"])))
    if n_folds < 2:
        raise ConfigError("the fold column has one value; expected two or more, or use folds=stratified")
    if n_folds_given and config.n_folds != n_folds:
        fault = f"n_folds={config.n_folds}: the table's fold column has {count(n_folds, 'fold')}"
        raise ConfigError(f"{fault}; leave n_folds out, or use folds=stratified")
    return replace(config, folds="column", n_folds=n_folds)


def check_fold(fold: int, config: Config, remark: str = "") -> None:
    """Raise `ConfigError` unless the fold is one of the study's; `remark` says why there are not more."""
    if not 0 <= fold < config.n_folds:
        reason = f" ({remark})" if remark else ""
        raise ConfigError(f"fold={fold}: there are {config.n_folds} folds, numbered 0 to {config.n_folds - 1}{reason}")


def small_classes(train: pd.DataFrame, file: str, task: str = "single") -> list[Problem]:
    """Return the classes with a single clip as problems."""
    counts = _clips_of_labels(train, task)
    advice = "a class needs two or more, some to train on and others to score; add clips, or take the class out"
    return [
        Problem(file, 0, "", f"class {named(label)} has {count(number, 'clip')}: {advice}")
        for label, number in sorted(counts[counts < 2].items())
    ]


def _clips_of_labels(train: pd.DataFrame, task: str) -> pd.Series:
    """Return the number of clips of each label."""
    if task == "single":
        return train["label"].value_counts()
    return train["label"].map({cell: split_labels(cell) for cell in train["label"].unique()}).explode().value_counts()


def settle_folds(train: pd.DataFrame, targets: np.ndarray, config: Config) -> tuple[Config, np.ndarray, str]:
    """Return the settings, the fold of each clip, and a remark if there are fewer folds than the settings ask for.

    A stratified split has at most as many folds as the smallest class has clips, and fewer if recordings or equal
    sounds cannot be spread over as many. `config` is of `resolve_folds`; the folds are int64 (n_clips,). Raises
    `DataError` as `fold_of_clips`.
    """
    counts = _clips_of_labels(train, config.task)
    if counts.empty:
        raise DataError("no clip has a label, so there is nothing to train on; add labels to the table")
    smallest = counts.index[int(np.argmin(counts.to_numpy()))]
    reason = f"class {named(smallest)} has {count(int(counts.min()), 'clip')}"
    least = config.n_folds if config.folds == "column" else 2
    for n_folds in range(max(least, min(config.n_folds, int(counts.min()))), least - 1, -1):
        settled = replace(config, n_folds=n_folds)
        try:
            folds = fold_of_clips(train, targets, settled)
        except DataError as error:
            if n_folds == least:
                raise
            reason = str(error).partition("; ")[0]
            continue
        remark = "" if n_folds == config.n_folds else f"{n_folds} folds instead of {config.n_folds}: {reason}"
        return settled, folds, remark
    raise AssertionError(f"{config.n_folds} folds")


def fold_of_clips(train: pd.DataFrame, targets: np.ndarray, config: Config) -> np.ndarray:
    """Return the fold that holds out each training clip, int64 (n_clips,), from 0; `config` is of `resolve_folds`.

    In a stratified split the clips of a recording and equal sounds share a fold, see `clip_groups`. Raises `DataError`
    if a fold would be empty, or would train without one of the classes, which are those of `targets`.
    """
    if config.folds == "column":
        folds = np.unique(np.array(fold_keys(train["fold"]), dtype=object), return_inverse=True)[1]
    else:
        folds = _stratified(train, targets, config)
    for fold in range(config.n_folds):
        held_out = folds == fold
        if not held_out.any():
            raise DataError(f"fold {fold} of {config.n_folds} would hold no clips; lower n_folds")
        if (lost := _lost_class(train, targets, held_out)) is not None:
            label, clips = lost
            fault = (
                f"fold {fold} of {config.n_folds} holds every clip of class {named(label)}, so none is left to train on"
            )
            groups = clip_groups(clips)
            if config.folds == "stratified" and groups is not None and groups.nunique() == 1:
                raise DataError(f"{fault}: they are of one recording or sound; add others, or take the class out")
            raise DataError(f"{fault}; lower n_folds or spread the class over more folds")
    return folds


def _lost_class(train: pd.DataFrame, targets: np.ndarray, held_out: np.ndarray) -> tuple[str, pd.DataFrame] | None:
    """Return the label and the clips of the first class that has no clip but those held out; None if all classes do."""
    if targets.ndim == 1:
        lost = set(targets.tolist()) - set(targets[~held_out].tolist())
        if not lost:
            return None
        clips = train[targets == min(lost)]
        return clips["label"].iloc[0], clips
    classes = np.flatnonzero(targets.any(axis=0) & ~targets[~held_out].any(axis=0))
    if not len(classes):
        return None
    has_it = targets[:, classes[0]]
    clips, position = train[has_it], int(targets[has_it][0, : classes[0]].sum())
    return split_labels(clips["label"].iloc[0])[position], clips


def describe_unscored(targets: np.ndarray, folds: np.ndarray) -> str:
    """Return which folds hold no clip with a label, so that most scores of them are undefined; empty if none do."""
    if targets.ndim == 1:
        return ""
    with_labels = set(folds[targets.any(axis=1)].tolist())
    empty = [str(fold) for fold in np.unique(folds).tolist() if fold not in with_labels]
    return f"no clip with a label in fold {', '.join(empty)}, whose lwlrap and mAP are undefined" if empty else ""


def hold_aside(train: pd.DataFrame, targets: np.ndarray, config: Config, fold: int) -> np.ndarray:
    """Choose clips that select the best epoch: about ``config.holdout`` of them, stratified, whole recordings together.

    Returns a mask of `train`, the rows that the fold may train on: bool (n_clips,). Raises `ConfigError` if there are
    too few clips or recordings for that share.
    """
    n_splits = max(2, round(1 / config.holdout))
    groups = clip_groups(train)
    n_groups = len(train) if groups is None else groups.nunique()
    counts = np.bincount(targets, minlength=1) if targets.ndim == 1 else targets.sum(axis=0)
    most = int(counts.max(initial=0))
    if min(n_groups, len(train)) < 2 * n_splits or most < n_splits:
        clips = f"{count(len(train), 'clip')} of {count(n_groups, 'recording')}, at most {most} of a class, are too few"
        raise ConfigError(f"holdout={config.holdout:g}: {clips}; raise holdout, or use checkpoint=average")
    _, aside = next(_splits(targets, groups, n_splits, (config.seed * 1009 + fold) % 2**32))
    return np.isin(np.arange(len(train)), aside)


def fold_keys(column: pd.Series) -> list[Any]:
    """Return the column's values: as numbers if all are numbers, so that 01 and 1.0 are 1, else as text."""
    texts = [text.strip() for text in column]
    try:
        numbers = [Decimal(text) for text in texts]
    except InvalidOperation:
        return texts
    return numbers if all(number.is_finite() for number in numbers) else texts


def _stratified(train: pd.DataFrame, targets: np.ndarray, config: Config) -> np.ndarray:
    groups = clip_groups(train)
    if groups is not None and (n_groups := groups.nunique()) < config.n_folds:
        fault = f"the clips come from {count(n_groups, 'recording')} (groups and equal sounds)"
        advice = "lower n_folds"
        if config.n_folds == 2:
            advice = "add clips of others, or ignore the groups with group_column=none, which makes scores too high"
        raise DataError(f"{fault}, which cannot be spread over {config.n_folds} folds; {advice}")
    folds = np.empty(len(train), dtype=np.int64)
    for fold, (_, held_out) in enumerate(_splits(targets, groups, config.n_folds, config.seed)):
        folds[held_out] = fold
    return folds


def _splits(
    targets: np.ndarray, groups: pd.Series | None, n: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield `n` stratified splits of the clips that keep groups together, if there are any."""
    if targets.ndim == 2:
        folds = stratified_folds(targets, None if groups is None else pd.factorize(groups)[0], n, seed)
        yield from ((np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)) for fold in range(n))
        return
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    options = {"n_splits": n, "shuffle": True, "random_state": seed}
    with warnings.catch_warnings():  # small classes are reported by small_classes
        warnings.simplefilter("ignore", UserWarning)
        if groups is None or groups.is_unique:
            yield from StratifiedKFold(**options).split(targets, targets)
        else:
            yield from StratifiedGroupKFold(**options).split(targets, targets, pd.factorize(groups)[0])
