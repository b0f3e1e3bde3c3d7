"""Folds: from the column, or stratified with the clips of one recording kept together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import CLASSES, error_line, make_dataset

from fsat.config import Config
from fsat.data.dataset import load_dataset
from fsat.data.folds import check_fold, fold_of_clips, hold_aside, resolve_folds, settle_folds, small_classes
from fsat.data.manifest import class_labels
from fsat.data.manifest import targets_of as targets_of_cells
from fsat.data.tables import read_table
from fsat.errors import ConfigError, DataError
from fsat.text import join_labels
from fsat.training.fold import assign_splits

CONFIG = Config(model="dummy1d")


def clips(labels: list[str], **columns: list[str]) -> pd.DataFrame:
    """Training clips as the manifest has them: all texts."""
    return pd.DataFrame({"fname": [f"{i}.wav" for i in range(len(labels))], "label": labels, **columns})


def split(train: pd.DataFrame, config: Config = CONFIG, n_folds_given: bool = False) -> tuple[np.ndarray, Config]:
    """The fold of each clip, and the Config with its folds settled."""
    config = resolve_folds(train, config, n_folds_given)
    return fold_of_clips(train, targets_of(train), config), config


def targets_of(train: pd.DataFrame) -> np.ndarray:
    return np.unique(train["label"].to_numpy(str), return_inverse=True)[1]


def assert_every_class_is_trained_on(train: pd.DataFrame, folds: np.ndarray, n_folds: int) -> None:
    assert sorted(set(folds.tolist())) == list(range(n_folds))
    for fold in range(n_folds):
        assert set(train["label"][folds != fold]) == set(train["label"])


# --- the column ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (["1", "2", "1", "2"], [0, 1, 0, 1]),
        (["10", "2", "2", "10"], [1, 0, 0, 1]),  # numbers sort as numbers
        (["10", "9", "-1", "2.5"], [3, 2, 0, 1]),
        (["7", "3", "7", "3"], [1, 0, 1, 0]),
        (["b", "a", "c", "a"], [1, 0, 2, 0]),
        (["10", "2", "x", "2"], [0, 1, 2, 1]),  # not all are numbers: they sort as text
        (["0", " 0", "1.0", "01"], [0, 0, 1, 1]),
    ],
)
def test_column_values_are_sorted_and_numbered(column: list[str], expected: list[int]) -> None:
    train = clips(["Bell"] * 4, fold=column)
    folds, config = split(train)
    assert folds.tolist() == expected
    assert (config.folds, config.n_folds) == ("column", max(expected) + 1)


THREE = clips(["Bell", "Cello"] * 3, fold=["1", "1", "2", "2", "3", "3"])


def test_the_column_sets_the_number_of_folds() -> None:
    for options in ({}, {"folds": "column"}, {"n_folds": 3}):
        assert resolve_folds(THREE, replace(CONFIG, **options), "n_folds" in options).n_folds == 3


@pytest.mark.parametrize(
    ("train", "options", "message"),
    [
        (THREE, {"n_folds": 5}, "n_folds=5: the table's fold column has 3 folds; leave n_folds out"),
        (clips(["Bell"] * 4), {"folds": "column"}, "folds=column: the table has no fold column; add one"),
        (clips(["Bell"] * 4, fold=["1"] * 4), {}, "the fold column has one value; expected two or more"),
    ],
    ids=["another number", "no column", "one value"],
)
def test_folds_that_do_not_fit_the_column(train: pd.DataFrame, options: dict, message: str) -> None:
    line = error_line(ConfigError, resolve_folds, train, replace(CONFIG, **options), "n_folds" in options)
    assert line == f"{message}, or use folds=stratified"


def test_a_column_that_holds_a_whole_class_out() -> None:
    train = clips(["Bell", "Bell", "Cello", "Cello"], fold=["1", "2", "2", "2"])
    assert error_line(DataError, split, train).startswith("fold 1 of 2 holds every clip of class Cello")


def test_auto_is_settled_so_that_equal_folds_are_one_study() -> None:
    without, with_column = clips(["Bell"] * 20), clips(["Bell"] * 20, fold=["1", "2"] * 10)
    auto = replace(CONFIG, n_folds=2)
    assert resolve_folds(without, auto) == resolve_folds(without, replace(auto, folds="stratified"))
    assert resolve_folds(with_column, auto) == resolve_folds(with_column, replace(auto, folds="column"))
    assert resolve_folds(with_column, auto) != resolve_folds(without, auto)


# --- stratified ------------------------------------------------------------------------------------


def uneven(seed: int = 0) -> list[str]:
    """Labels of classes with 10 to 57 clips, in random order."""
    sizes = {"Bell": 57, "Cello": 31, "Flute": 20, "Squeak": 10}
    labels = [label for label, size in sizes.items() for _ in range(size)]
    return [labels[i] for i in np.random.default_rng(seed).permutation(len(labels))]


@pytest.mark.parametrize("n_folds", [2, 3, 10])
def test_every_class_is_spread_evenly(n_folds: int) -> None:
    train = clips(uneven())
    folds, config = split(train, replace(CONFIG, n_folds=n_folds))
    assert config.n_folds == n_folds
    assert_every_class_is_trained_on(train, folds, n_folds)
    for label in set(train["label"]):
        sizes = np.bincount(folds[(train["label"] == label).to_numpy()], minlength=n_folds)
        assert sizes.max() - sizes.min() <= 1


@pytest.mark.parametrize("grouped", [False, True])
def test_the_split_comes_from_the_seed_alone(grouped: bool) -> None:
    columns = {"group": [str(i // 2) for i in range(118)]} if grouped else {}
    train = clips(uneven(), **columns)
    config = replace(CONFIG, n_folds=3)
    np.random.seed(1)
    first = split(train, config)[0]
    np.random.seed(2)
    np.testing.assert_array_equal(split(train, config)[0], first)
    np.testing.assert_array_equal(split(train, replace(config, model="conv1d", batch_size=8))[0], first)
    assert (split(train, replace(config, seed=2))[0] != first).any()
    assert 10 < split(clips(["Bell"] * 100), replace(CONFIG, n_folds=2))[0][:50].sum() < 40  # shuffled


def assert_groups_stay_together(train: pd.DataFrame, folds: np.ndarray) -> None:
    for _, members in train.groupby("group"):
        assert len(set(folds[members.index].tolist())) == 1


@pytest.mark.parametrize("seed", range(5))
def test_clips_of_one_recording_stay_together(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ids = rng.permutation(np.repeat(np.arange(150), rng.integers(1, 5, 150)))  # recordings of 1 to 4 clips
    kinds = np.where(rng.random(len(ids)) < 0.9, ids, rng.integers(5, size=len(ids)))  # most of one label
    train = clips(["ABCDE"[kind % 5] for kind in kinds], group=ids.astype(str).tolist())
    folds, _ = split(train, replace(CONFIG, n_folds=4))
    assert_groups_stay_together(train, folds)
    assert_every_class_is_trained_on(train, folds, 4)
    for label in "ABCDE":  # still stratified, as well as the groups allow
        shares = np.bincount(folds[(train["label"] == label).to_numpy()], minlength=4) / (train["label"] == label).sum()
        assert np.abs(shares - 0.25).max() < 0.12


def test_a_clip_without_an_id_is_a_recording_of_its_own() -> None:
    train = clips(["Bell", "Cello"] * 20, group=["", " "] * 10 + ["1"] * 2 + ["2"] * 2 + [""] * 16)
    folds = split(train, replace(CONFIG, n_folds=2))[0]
    blank = (train["group"].str.strip() == "").to_numpy()
    assert 10 < folds[blank].sum() < 26
    assert_groups_stay_together(train[~blank], folds)


@pytest.mark.parametrize(
    ("labels", "ids", "n_folds", "message"),
    [
        (
            "BBBBBBCCCCCC",
            "777777abcdef",
            2,
            "every clip of class B, so none is left to train on: they are of one",
        ),
        ("BCBCBCBC", "11111111", 2, "which cannot be spread over 2 folds; add clips of others, or ignore the groups"),
        ("BCBCBCBCBCBC", "121212121212", 6, "the clips come from 2 recordings (groups and equal sounds), which"),
    ],
    ids=["a class of one recording", "one recording", "fewer recordings than folds"],
)
def test_recordings_that_cannot_be_split(labels: str, ids: str, n_folds: int, message: str) -> None:
    train = clips(list(labels), group=list(ids))
    assert message in error_line(DataError, split, train, replace(CONFIG, n_folds=n_folds))


# --- clips held aside ------------------------------------------------------------------------------


def aside(train: pd.DataFrame, holdout: float, fold: int = 0, seed: int = 1001) -> np.ndarray:
    return hold_aside(train, targets_of(train), replace(CONFIG, holdout=holdout, seed=seed), fold)


@pytest.mark.parametrize(("holdout", "n_splits"), [(0.5, 2), (0.4, 2), (0.3, 3), (0.2, 5), (0.1, 10), (0.03, 33)])
def test_the_share_held_aside_is_stratified(holdout: float, n_splits: int) -> None:
    train = clips(["Bell", "Cello", "Flute", "Flute"] * 60)
    held = aside(train, holdout)
    assert held.dtype == bool
    for label in ("Bell", "Cello", "Flute"):  # stratified
        of_class = (train["label"] == label).to_numpy()
        assert abs(held[of_class].sum() - of_class.sum() / n_splits) < 1
    assert abs(held.sum() - 240 / n_splits) <= 3


def test_clips_held_aside_depend_on_fold_and_seed() -> None:
    train = clips(["Bell", "Cello"] * 50)
    np.testing.assert_array_equal(aside(train, 0.2), aside(train, 0.2))
    chosen = {aside(train, 0.2, fold, seed).tobytes() for fold in range(4) for seed in (1, 2**31 - 1)}
    assert len(chosen) == 8


@pytest.mark.parametrize("seed", range(3))
def test_whole_recordings_are_held_aside(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ids = rng.permutation(np.repeat(np.arange(60), rng.integers(1, 5, 60)))
    train = clips(["ABC"[i % 3] for i in ids], group=ids.astype(str).tolist())
    held = aside(train, 0.2, seed=seed)
    assert_groups_stay_together(train, held)
    assert 0.1 < held.mean() < 0.3


@pytest.mark.parametrize(
    ("train", "holdout", "words"),
    [
        (clips(["Bell", "Cello"] * 4), 0.2, "8 clips of 8 recordings, at most 4 of a class"),
        (clips([]), 0.5, "0 clips of 0 recordings, at most 0 of a class"),
        (clips(["Bell"]), 0.5, "1 clip of 1 recording, at most 1 of a class"),
        (clips(list("ABCDEFGHIJ") * 8, group=[str(i // 10) for i in range(80)]), 0.2,
         "80 clips of 8 recordings, at most 8 of a class"),
    ],
    ids=["clips", "none", "one", "recordings"],
)  # fmt: skip
def test_too_few_to_hold_any_aside(train: pd.DataFrame, holdout: float, words: str) -> None:
    line = error_line(ConfigError, aside, train, holdout)
    assert line == f"holdout={holdout}: {words}, are too few; raise holdout, or use checkpoint=average"


def test_small_classes_do_not_keep_others_from_being_held_aside() -> None:
    train = clips(["Bell"] * 3 + ["Cello"] * 27)
    assert aside(train, 0.1).sum() == 3
    ten = clips([f"class {i % 10}" for i in range(30)])
    assert aside(ten, 0.3).sum() == 10


# --- small classes and fold numbers ----------------------------------------------------------------


def test_small_classes_are_named_in_order() -> None:
    train = clips(["Squeak"] + ["Cello"] * 10 + ["Applause"] + ["Bell"] * 2)
    lines = [str(problem).partition(":")[2] for problem in small_classes(train, "train.csv")]
    assert [line.partition(":")[0] for line in lines] == [" class Applause has 1 clip", " class Squeak has 1 clip"]


def test_small_classes_make_fewer_folds() -> None:
    train = clips(["Bell"] * 3 + ["Cello"] * 30)
    ten = replace(CONFIG, folds="stratified")
    config, folds, remark = settle_folds(train, targets_of(train), ten)
    assert (config.n_folds, set(folds.tolist())) == (3, {0, 1, 2})
    assert remark == "3 folds instead of 10: class Bell has 3 clips"
    grouped = clips(["Bell"] * 6 + ["Cello"] * 30, group=["1", "1", "2", "2", "", ""] + [""] * 30)
    config, folds, remark = settle_folds(grouped, targets_of(grouped), ten)
    assert remark == "6 folds instead of 10: class Bell has 6 clips"
    assert_groups_stay_together(grouped[:4], folds[:4])
    few = clips(["Bell", "Cello"] * 12, group=[str(i // 8) for i in range(24)])
    assert settle_folds(few, targets_of(few), ten)[2].startswith(
        "3 folds instead of 10: the clips come from 3 recordings"
    )
    config, _, remark = settle_folds(train, targets_of(train), replace(ten, n_folds=2))
    assert (config.n_folds, remark) == (2, "")
    one = clips(["Bell"] * 4 + ["Cello"] * 30, group=["1"] * 4 + [""] * 30)
    assert "they are of one recording" in error_line(DataError, settle_folds, one, targets_of(one), ten)


def test_the_fold_must_exist() -> None:
    for fold in (0, 9):
        check_fold(fold, CONFIG)
    for fold in (-1, 10):
        line = error_line(ConfigError, check_fold, fold, CONFIG)
        assert line == f"fold={fold}: there are 10 folds, numbered 0 to 9"


# --- several labels --------------------------------------------------------------------------------

MULTI = replace(CONFIG, task="multi", folds="stratified", n_folds=5)


def tagged(rows: list[str], **columns: list[str]) -> tuple[pd.DataFrame, np.ndarray]:
    """Clips that have a label for each letter, and their targets."""
    train = clips([join_labels(row) for row in rows], **columns)
    return train, targets_of_cells(train["label"], class_labels(train["label"], "multi"), "multi")


def mixed(n_clips: int = 600, seed: int = 0, **columns: list[str]) -> tuple[pd.DataFrame, np.ndarray]:
    """Clips of none to three of ten labels, from common to rare, some of which go together."""
    rng = np.random.default_rng(seed)
    shares = 1 / np.arange(1, 11)
    rows = [
        "".join(rng.choice(list("ABCDEFGHIJ"), k, False, shares / shares.sum())) for k in rng.integers(0, 4, n_clips)
    ]
    return tagged([row + "J" * ("B" in row and "J" not in row and rng.random() < 0.3) for row in rows], **columns)


def imbalance(targets: np.ndarray, folds: np.ndarray, n_folds: int = 5) -> tuple[float, float, float]:
    """How far the clips of a label and of two labels are from evenly spread, on average, and those of none at most."""

    def distance(has_it: np.ndarray) -> np.ndarray:
        counts = np.array([has_it[folds == fold].sum(axis=0) for fold in range(n_folds)])
        return np.abs(counts - counts.mean(axis=0))

    first, second = np.triu_indices(targets.shape[1], 1)
    pairs = targets[:, first] & targets[:, second]
    nothing = ~targets.any(axis=1)
    return (
        float(distance(targets).mean()),
        float(distance(pairs[:, pairs.sum(axis=0) > 1]).mean()),
        float(distance(nothing).max()),
    )


def test_labels_and_their_combinations_are_spread_evenly() -> None:
    train, targets = mixed()
    folds = fold_of_clips(train, targets, MULTI)
    at_random = np.random.default_rng(0).permutation(600) % 5
    labels, pairs, nothing = imbalance(targets, folds)
    labels_at_random, pairs_at_random, _ = imbalance(targets, at_random)
    assert labels < 0.5 < 2 < labels_at_random
    assert pairs < 0.6 * pairs_at_random
    assert nothing < 1
    assert np.ptp(np.bincount(folds)) < 20
    assert fold_of_clips(train, targets, MULTI).tolist() == folds.tolist()
    assert (fold_of_clips(train, targets, replace(MULTI, seed=2)) != folds).mean() > 0.5
    held = hold_aside(train, targets, replace(MULTI, holdout=0.2), 0)
    assert (np.abs(targets[held].sum(axis=0) - targets.sum(axis=0) / 5) <= 2).all()
    assert (held != hold_aside(train, targets, replace(MULTI, holdout=0.2), 1)).any()


@pytest.mark.parametrize("seed", range(3))
def test_recordings_of_several_labels_stay_together(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ids = rng.permutation(np.repeat(np.arange(240), rng.integers(1, 5, 240)))[:600]
    train, targets = mixed(600, seed, group=ids.astype(str).tolist())
    folds = fold_of_clips(train, targets, MULTI)
    assert_groups_stay_together(train, folds)
    assert imbalance(targets, folds)[0] < 1.2
    assert np.bincount(folds, minlength=5).min() > 100
    assert_groups_stay_together(train, hold_aside(train, targets, replace(MULTI, holdout=0.2), 0))


def test_a_class_is_in_both_folds_wherever_it_can_be() -> None:
    """Small datasets whose classes have few recordings, some of which a greedy choice alone puts in one fold."""
    n_splits = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        rows = ["".join(rng.choice(list("ABCDEF"), rng.integers(1, 3), False)) for _ in range(14)]
        groups = rng.permutation([*range(8), *rng.integers(0, 8, 6)])
        train, targets = tagged(rows, group=groups.astype(str).tolist())
        ways = (np.arange(256)[:, np.newaxis] >> groups) & 1  # every way to divide the recordings
        possible = any(targets[way == 0].any(axis=0).all() and targets[way == 1].any(axis=0).all() for way in ways)
        try:
            fold_of_clips(train, targets, replace(MULTI, n_folds=2, seed=seed))
        except DataError:
            assert not possible
        n_splits += possible
    assert n_splits > 50


def test_errors_are_of_labels_not_of_combinations() -> None:
    train, targets = tagged(["AB", "A", "B", "AC", ""] * 2)
    config, folds, remark = settle_folds(train, targets, MULTI)
    assert (config.n_folds, remark) == (2, "2 folds instead of 5: class C has 2 clips")
    assert sorted(folds[3::5].tolist()) == sorted(folds[4::5].tolist()) == [0, 1]  # C, and no label
    assert [str(problem) for problem in small_classes(train, "train.csv", "multi")] == []
    lonely, _ = tagged(["AB", "A", "B", "AC", '"'])
    lines = [problem.reason.partition(":")[0] for problem in small_classes(lonely, "train.csv", "multi")]
    assert lines == ['class " has 1 clip', "class C has 1 clip"]

    together, targets = tagged(["AB", "B", "B", "A"], fold=["1", "1", "2", "1"])
    column = resolve_folds(together, replace(MULTI, folds="auto"))
    line = error_line(DataError, fold_of_clips, together, targets, column)
    assert line.startswith("fold 0 of 2 holds every clip of class A, so none is left to train on; lower n_folds")
    one, targets = tagged(["AB", "A", "B", "B", "B"], group=["1", "1", "2", "3", "4"])
    assert "class A, so none is left to train on: they are of one recording" in error_line(
        DataError, settle_folds, one, targets, MULTI
    )
    nothing, targets = tagged([""] * 4)
    assert error_line(DataError, settle_folds, nothing, targets, MULTI).startswith("no clip has a label")
    train, targets = tagged(["AB", "A"] * 6)
    assert error_line(ConfigError, hold_aside, train, targets, replace(MULTI, holdout=0.1), 0).startswith(
        "holdout=0.1: 12 clips of 12 recordings, at most 12 of a class, are too few"
    )


# --- through the dataset ---------------------------------------------------------------------------


def test_a_dataset_has_the_folds_of_its_column_or_keeps_recordings_together(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "data", fold_column=3, freesound_id=True, test_clips=0)
    config = Config.resolve({"n_folds": None}, "quick")
    dataset = load_dataset(folder, config)
    expected = {f"{label.lower()}_{j:02d}.wav": j // 2 for j in range(6) for label in CLASSES}
    assert dict(zip(dataset.manifest.train["fname"], dataset.folds.tolist(), strict=True)) == expected
    assert (dataset.config.folds, dataset.config.n_folds) == ("column", 3)
    ignoring = load_dataset(folder, replace(config, folds="stratified"), n_folds_given=True)
    assert (ignoring.config.folds, ignoring.config.n_folds) == ("stratified", 2)
    assert set(ignoring.folds.tolist()) == {0, 1}
    assert_groups_stay_together(ignoring.manifest.train, ignoring.folds)
    splits = assign_splits(load_dataset(folder, replace(ignoring.config, holdout=0.5)), 0)
    assert set(splits) == {"val", "train", "holdout"}
    assert_groups_stay_together(ignoring.manifest.train, splits)
    with pytest.raises(ConfigError, match="fold=3: there are 3 folds"):
        load_dataset(folder, config, fold=3)
    with pytest.raises(ConfigError, match="n_folds=2"):
        load_dataset(folder, config, n_folds_given=True)


def test_an_eighth_of_the_real_table_splits_into_ten(shared: Path) -> None:
    path = shared / "data" / "fsdkaggle2018" / "train_post_competition.csv"
    train = read_table(path, ("fname", "label"), ("freesound_id",)).frame[::8].reset_index(drop=True)
    train = train.rename(columns={"freesound_id": "group"})
    folds, _ = split(train)
    assert_groups_stay_together(train, folds)
    assert_every_class_is_trained_on(train, folds, 10)
    assert 100 < np.bincount(folds).min() <= np.bincount(folds).max() < 137
