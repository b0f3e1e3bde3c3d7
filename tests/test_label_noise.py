"""Unverified labels: how they are decided on, logged, trained on, and decided on again."""

from __future__ import annotations

import json
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from helpers import make_dataset, one_line
from scipy.stats import gmean

from fsat.cli import cli
from fsat.commands.train import cross_validate, train_fold
from fsat.commands.verify import Estimate, Verified, estimate, verify
from fsat.config import Config
from fsat.data.dataset import Source
from fsat.errors import ConfigError, RunError
from fsat.metrics.label_noise import (
    CLEAR,
    DECISIONS,
    SHARPEST,
    beliefs,
    decide,
    least_wrong,
    sharpened,
    sharpness,
    wrong_share,
)
from fsat.options import Thresholds
from fsat.tracking.verified_labels import fetch_labels, round_of

# --- decisions -------------------------------------------------------------------------------------

STRICT = Thresholds(accept=0.5, relabel=0.75, drop=0.25)


@pytest.mark.parametrize(
    ("scores", "target", "decision", "new", "confidence"),
    [
        ([0.5, 0.25, 0.25], 0, "accept", 0, 0.5),  # just enough
        ([0.4375, 0.3125, 0.25], 0, "keep", 0, 0.4375),
        ([0.125, 0.125, 0.75], 1, "relabel", 2, 0.75),  # just enough
        ([0.0, 0.0, 1.0], 1, "relabel", 2, 1.0),
        ([0.0, 0.25, 0.74], 1, "keep", 1, 0.25),  # just enough to stay
        ([0.625, 0.125, 0.25], 1, "drop", -1, 0.875),
        ([0.24, 0.23, 0.22, 0.2, 0.11], 0, "drop", -1, 0.76),  # the best guess, and still not likely
        ([0.5, 0.5, 0.0], 0, "accept", 0, 0.5),  # of equals the first is the best guess
        ([0.5, 0.5, 0.0], 1, "keep", 1, 0.5),
    ],
)
def test_decisions_by_hand(scores: list[float], target: int, decision: str, new: int, confidence: float) -> None:
    rows = np.array([scores], dtype=np.float32)
    for verified, expected in ((False, (decision, new, confidence)), (True, ("verified", target, scores[target]))):
        decisions, classes, found = decide(rows, np.array([target]), np.array([verified]), STRICT)
        assert (str(decisions[0]), int(classes[0])) == expected[:2]
        assert found.dtype == np.float64
        assert found[0] == pytest.approx(expected[2], rel=1e-6)


@pytest.mark.parametrize(
    ("thresholds", "expected"),
    [
        (Thresholds(), ["accept", "accept", "relabel", "relabel", "relabel"]),
        (Thresholds(0, 0.6, 0.1), ["accept", "accept", "relabel", "keep", "drop"]),
        (Thresholds(0, 0, 0), ["accept", "accept", "relabel", "relabel", "relabel"]),
        (Thresholds(0, 1, 1), ["accept", "accept", "drop", "drop", "drop"]),
        (Thresholds(1, 1, 0), ["keep"] * 5),
        (Thresholds(1, 1, 1), ["drop"] * 5),
        (Thresholds(0.5, 0.5, 1), ["accept", "drop", "relabel", "relabel", "relabel"]),
    ],
)
def test_accepting_comes_before_replacing_and_that_before_dropping(thresholds: Thresholds, expected: list) -> None:
    scores = np.float32([[0.9, 0.1, 0], [0.45, 0.4, 0.15], [0.2, 0.1, 0.7], [0.3, 0.55, 0.15], [0.05, 0.55, 0.4]])
    decisions, classes, _ = decide(scores, np.zeros(5, int), np.zeros(5, dtype=bool), thresholds)
    assert decisions.tolist() == expected
    assert set(decisions.tolist()) <= set(DECISIONS)
    best = scores.argmax(axis=1)
    by_decision = {"accept": 0 * best, "keep": 0 * best, "relabel": best, "drop": 0 * best - 1}
    assert classes.tolist() == [int(by_decision[decision][i]) for i, decision in enumerate(expected)]
    assert [len(part) for part in decide(scores[:0], np.empty(0, int), np.empty(0, bool), thresholds)] == [0, 0, 0]


@pytest.mark.parametrize("name", ["accept", "relabel", "drop"])
def test_a_threshold_is_a_probability(name: str) -> None:
    for value in (-0.01, 1.01, float("nan"), float("-inf")):
        with pytest.raises(ConfigError) as caught:
            Thresholds(**{name: value})
        assert one_line(caught.value).startswith(f"{name}_at={value:g}: expected ")
    assert [getattr(Thresholds(**{name: end}), name) for end in (0, 1)] == [0, 1]


# --- estimates -------------------------------------------------------------------------------------


def noisy(n_clips: int, n_classes: int, share: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Calibrated scores, given labels of which a share is wrong, and true ones."""
    rng = np.random.default_rng(seed)
    scores = rng.dirichlet(np.full(n_classes, 0.3), n_clips)
    truth = np.array([rng.choice(n_classes, p=row) for row in scores])
    wrong = rng.random(n_clips) < share
    return scores, np.where(wrong, (truth + rng.integers(1, n_classes, n_clips)) % n_classes, truth), truth


@pytest.mark.parametrize(("share", "n_classes"), [(0.05, 2), (0.35, 2), (0.05, 10), (0.35, 10), (0.6, 10)])
def test_the_share_of_wrong_labels_is_estimated(share: float, n_classes: int) -> None:
    scores, given, truth = noisy(20_000, n_classes, share)
    found, clear_by = wrong_share(scores[np.arange(len(given)), given], n_classes)
    assert found == pytest.approx(np.mean(given != truth), abs=0.02)
    assert clear_by > 100


@pytest.mark.parametrize(
    ("p", "n_classes", "expected"),
    [([1, 1], 4, 0), ([0, 0], 4, 0.75), ([0.49] * 50, 2, 0.5), ([0.5, 1, 0.9], 2, 0), ([1], 1, 0)],
)
def test_a_share_is_within_its_limits(p, n_classes: int, expected) -> None:
    share, clear_by = wrong_share(np.float32(p), n_classes)
    assert share == pytest.approx(expected, abs=1e-4)
    assert share >= 1e-6
    assert (clear_by > 1e-5) == (expected == 0 and n_classes > 1)


def test_models_that_are_no_better_than_chance_are_recognised() -> None:
    rng = np.random.default_rng(3)
    assert wrong_share(rng.uniform(0.05, 0.15, 60), 10)[1] < CLEAR
    assert wrong_share(np.where(rng.random(60) < 0.7, 0.8, 0.02), 10)[1] > 10 * CLEAR


def test_beliefs_by_hand() -> None:
    scores = np.float32([[0.25, 0.625, 0.125], [0.25, 0.625, 0.125], [1, 0, 0]])
    believed = beliefs(scores, np.array([0, 1, 1]), 0.2)
    expected = [[0.8 * 0.25, 0.1 * 0.625, 0.1 * 0.125], [0.1 * 0.25, 0.8 * 0.625, 0.1 * 0.125], [1, 0, 0]]
    np.testing.assert_allclose(believed, np.array(expected) / np.sum(expected, axis=1, keepdims=True), rtol=1e-12)
    assert believed.dtype == np.float64
    assert beliefs(np.empty((0, 3)), np.empty(0, int), 0.5).shape == (0, 3)


def test_beliefs_are_calibrated() -> None:
    scores, given, truth = noisy(20_000, 5, 0.35)
    believed = beliefs(scores, given, 0.35)
    best = believed.argmax(axis=1)
    assert np.mean(best == truth) > max(np.mean(given == truth), np.mean(scores.argmax(axis=1) == truth)) + 0.05
    for low, high in ((0.4, 0.6), (0.6, 0.8), (0.8, 0.95)):
        mask = (believed.max(axis=1) >= low) & (believed.max(axis=1) < high)
        assert np.mean(best[mask] == truth[mask]) == pytest.approx(believed.max(axis=1)[mask].mean(), abs=0.02)


# --- wrong labels that models learn ----------------------------------------------------------------


def of_one_other(
    n_clips: int, n_verified: int, likely: float = 0.75, wrong: float = 1 / 3
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Scores of models that learned that a class is often labelled as another; labels, true classes, and verified.

    The models are right on 19 of 20 clips and unsure of the others; of unverified labels a share is wrong, all from
    one other class.
    """
    rng = np.random.default_rng(7)
    n_classes, verified = 12, np.arange(n_clips) < n_verified
    truth = rng.integers(0, n_classes, n_clips)
    unsure = rng.random(n_clips) < 0.05
    scores = rng.dirichlet(np.full(n_classes, 5), n_clips) * (0.8 - likely)
    scores[np.arange(n_clips), truth] += np.where(unsure, 0.3, likely)
    scores[np.arange(n_clips), truth ^ 1] += np.where(unsure, likely - 0.1, 0.2)
    given = np.where(~verified & (rng.random(n_clips) < wrong), truth ^ 1, truth)
    return np.float32(scores / scores.sum(axis=1, keepdims=True)), given, truth, verified


def test_wrong_labels_from_one_class_are_not_believed() -> None:
    scores, given, truth, verified = of_one_other(600, 200)
    assert wrong_share(scores[np.arange(600), given][~verified], 12)[0] < 1e-5  # by the scores as they are
    found = estimate(scores, given, verified)
    assert found.power > 2
    wrong = (given != truth)[~verified]
    assert wrong.mean() / 3 < found.share < wrong.mean()
    believed = beliefs(sharpened(scores, found.power), given, found.share)[~verified]
    decisions, classes, _ = decide(believed, given[~verified], np.zeros(400, dtype=bool), Thresholds())
    accepted, replaced = decisions == "accept", decisions == "relabel"
    assert wrong[accepted].mean() < wrong.mean() * 2 / 3
    assert np.mean(classes[replaced] == truth[~verified][replaced]) > 0.95
    differs = scores.argmax(axis=1) != given
    assert found.warning.startswith(
        f"the best guess differs from {differs[~verified].sum()} of 400 unverified labels and from "
        f"{differs[verified].sum()} of 200 verified ones, so that "
    )
    assert f"their probabilities say 0%, and {found.share:.0%} once they are sharpened" in found.warning


@pytest.mark.parametrize(
    ("n_verified", "words"),
    [
        (40, "their probabilities say 0%: labels are accepted that are likely wrong; train longer"),
        (1, "of 1 verified ones, which are too few to tell whether labels or models are wrong"),
        (0, "of 0 verified ones, which are too few to tell whether labels or models are wrong"),
    ],
)
def test_few_verified_labels_do_not_sharpen(n_verified: int, words: str) -> None:
    scores, given, _, verified = of_one_other(440, n_verified)
    found = estimate(scores, given, verified)
    assert (found.power, found.share < 1e-5) == (1, True)
    assert words in found.warning


def test_a_share_that_fits_the_guesses_is_unchanged() -> None:
    """To the bit, and without a warning, if labels are wrong as assumed, or models and not labels."""
    scores, given, truth = noisy(600, 10, 0.35)
    verified = np.arange(600) < 200
    given[verified] = truth[verified]
    of_label = np.float32(scores)[np.arange(600), given]
    share, _ = wrong_share(of_label[~verified], 10)
    assert 0.2 < share < 0.5
    assert estimate(np.float32(scores), given, verified) == Estimate(share)
    assert sharpened(scores, 1) is scores
    scores, given, _, verified = of_one_other(600, 200, wrong=0)
    share, _ = wrong_share(scores[np.arange(600), given][~verified], 12)
    assert estimate(scores, given, verified) == Estimate(share)


def test_a_share_that_is_much_too_small_is_a_warning() -> None:
    scores, given, _, verified = of_one_other(600, 200, likely=0.7)
    scores = np.float32(sharpened(scores, 3))
    share, _ = wrong_share(scores[np.arange(600), given][~verified], 12)
    assert 0.05 < share < 0.15
    found = estimate(scores, given, verified)
    assert (found.share, found.power) == (share, 1)
    assert f"their probabilities say {share:.0%}: labels are accepted that are likely wrong" in found.warning


def test_the_lower_bound_by_hand() -> None:
    verified = np.arange(444) < 180
    differs = np.zeros(444, dtype=bool)
    differs[:8] = differs[180:265] = True
    others, checked = 86 / 266, 9 / 182
    error = np.sqrt(others * (1 - others) / 266 + checked * (1 - checked) / 182)
    assert least_wrong(differs, verified) == pytest.approx((others - checked - 2 * error) / (1 - checked))
    assert least_wrong(differs, ~verified) == 0
    assert least_wrong(differs, np.zeros(444, dtype=bool)) == 0
    assert least_wrong(np.ones(3, dtype=bool), np.zeros(3, dtype=bool)) == 0


def test_sharpness_is_estimated() -> None:
    scores, _, truth = noisy(5000, 6, 0)
    assert sharpness(sharpened(scores, 0.4), truth) == pytest.approx(2.5, rel=0.05)
    assert sharpness(sharpened(scores, 3), truth) == pytest.approx(1, abs=1e-3)
    assert sharpness(np.float32([[0.6, 0.4, 0]]), np.array([0])) == pytest.approx(SHARPEST, rel=1e-3)
    np.testing.assert_allclose(sharpened(np.float32([[0.5, 0.25, 0.25]]), 2), [[2 / 3, 1 / 6, 1 / 6]], rtol=1e-6)


# --- through a tracking store ----------------------------------------------------------------------

TINY = {"sampling_rate": 8000, "audio_duration": 0.25, "n_folds": 2, "max_epochs": 3, "batch_size": 8}
WRONG = {"bell_00.wav": "Cello", "cello_01.wav": "Flute", "flute_02.wav": "Bell", "bell_03.wav": "Flute"}
LABELS = ["Bell", "Cello", "Flute"]
SETTLED = ("accept", "relabel", "drop")


def logmel(**options: object) -> Config:
    return Config(**{"model": "cnn_logmel", "n_mels": 16, "checkpoint": "last", **TINY, **options})


def dummy(**options: object) -> Config:
    return Config(model="dummy1d", **TINY, **options)


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Source:
    """30 clips, half of them unverified, four of those with a wrong label."""
    folder = tmp_path_factory.mktemp("data") / "tones"
    return Source(make_dataset(folder, clips_per_class=10, unverified=0.5, wrong=WRONG, test_clips=2))


@pytest.fixture(scope="module")
def given(source) -> pd.DataFrame:
    return pd.read_csv(source.data_dir / "train.csv")


@pytest.fixture(scope="module")
def study(store, source) -> list:
    """Models that are sure of some clips, after a few epochs, and unsure of others."""
    return cross_validate(source, logmel(max_epochs=4, learning_rate=0.003))


def fetch(run_id: str, path: str) -> Path:
    return Path(mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=path))


def clip_table(run_id: str) -> pd.DataFrame:
    table = pd.read_csv(fetch(run_id, "predictions/clips.csv"), keep_default_na=False)
    return table[table["split"] != "test"].reset_index(drop=True)


def out_of_fold(records: list) -> np.ndarray:
    scores = [np.load(fetch(record.run_id, "predictions/train.npy")) for record in records]
    held_out = [(clip_table(record.run_id)["split"] == "val").to_numpy() for record in records]
    assert (np.sum(held_out, axis=0) == 1).all()
    return np.sum([part * own[:, None] for part, own in zip(scores, held_out, strict=True)], axis=0)


def believed(scores: np.ndarray, given: pd.DataFrame) -> np.ndarray:
    """Probabilities of the true class for unverified clips, a clip at a time; the scores of the others."""
    unverified = (given["manually_verified"] == 0).to_numpy()
    p = scores[np.arange(len(given)), given["label"].map(LABELS.index)][unverified].astype(np.float64)
    share, rows = 0.5, scores.astype(np.float64)
    for _ in range(20_000):  # expectation maximisation of the share of wrong labels
        share = np.mean(share * (1 - p) / 2 / ((1 - share) * p + share * (1 - p) / 2))
    for row, clip in zip(rows, given.itertuples(), strict=True):
        if clip.manually_verified == 0:
            row *= [1 - share if label == clip.label else share / 2 for label in LABELS]
            row /= row.sum()
    return rows


def expected_table(scores: np.ndarray, given: pd.DataFrame, thresholds: Thresholds) -> pd.DataFrame:
    """The decisions, a clip at a time."""
    rows = []
    for row, clip in zip(believed(scores, given), given.itertuples(), strict=True):
        of_label, best = row[LABELS.index(clip.label)], LABELS[int(row.argmax())]
        if clip.manually_verified == 1:
            decided = (clip.label, of_label, "verified")
        elif best == clip.label and of_label >= thresholds.accept:
            decided = (clip.label, of_label, "accept")
        elif best != clip.label and row.max() >= thresholds.relabel:
            decided = (best, row.max(), "relabel")
        elif of_label < thresholds.drop:
            decided = ("", 1 - of_label, "drop")
        else:
            decided = (clip.label, of_label, "keep")
        rows.append((clip.fname, clip.label, *decided))
    return pd.DataFrame(rows, columns=["fname", "label", "new_label", "score", "decision"])


def within(values: np.ndarray) -> float:
    """A threshold in the widest gap between two of these values."""
    values = np.sort(values.astype(np.float64))
    gap = int(np.diff(values).argmax())
    return float(values[gap : gap + 2].mean())


@pytest.fixture(scope="module")
def middling(study, given) -> Thresholds:
    """Thresholds at which some labels are accepted, some relabelled, and all others dropped."""
    scores = believed(out_of_fold(study), given)[given["manually_verified"] == 0]
    targets = given["label"][given["manually_verified"] == 0].map(LABELS.index).to_numpy()
    right = scores.argmax(axis=1) == targets
    return Thresholds(within(scores.max(axis=1)[right]), within(scores.max(axis=1)[~right]), 1.0)


def assert_logged(made: Verified, expected: pd.DataFrame) -> None:
    """The table, the artifact and the metrics are as expected."""
    logged = pd.read_csv(fetch(made.run_id, "labels.csv"), keep_default_na=False)
    assert logged.columns.tolist() == expected.columns.tolist()
    pd.testing.assert_frame_equal(logged, made.table, check_dtype=False)
    exact = ["fname", "label", "new_label", "decision"]
    pd.testing.assert_frame_equal(logged[exact], expected[exact])
    np.testing.assert_allclose(logged["score"], expected["score"], atol=2e-5)
    counts = {name: int((expected["decision"] == name).sum()) for name in DECISIONS}
    assert made.counts == counts
    run = mlflow.get_run(made.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {f"n_{name}": number for name, number in counts.items()} | {
        "wrong_share": made.wrong_share
    }


def test_each_unverified_clip_is_decided_on_by_the_fold_that_did_not_see_it(study, given, middling) -> None:
    scores, seen = out_of_fold(study), set()
    for thresholds in (Thresholds(), Thresholds(0, 0, 0), Thresholds(1, 1, 0), middling):
        made = verify(run_ids=[record.run_id for record in study], thresholds=thresholds)
        expected = expected_table(scores, given, thresholds)
        assert_logged(made, expected)
        untouched = made.table[(given["manually_verified"] == 1).to_numpy()]
        assert set(untouched["decision"]) == {"verified"}
        assert untouched["new_label"].tolist() == untouched["label"].tolist()
        params = mlflow.get_run(made.run_id).data.params
        assert {name: float(params[f"{name}_at"]) for name in vars(thresholds)} == vars(thresholds)
        seen |= set(made.table["decision"])
    assert seen == set(DECISIONS)


def test_a_run_of_verify_has_the_tags_of_its_study(first_round, study) -> None:
    tags = mlflow.get_run(first_round.run_id).data.tags
    assert tags["fsat.stage"] == "verify"
    assert tags["fsat.studies"] == study[0].study
    assert tags["fsat.dataset"] == study[0].dataset
    assert tags["fsat.data_dir"] == study[0].data_dir
    assert (tags["fsat.round"], tags["fsat.labels_run_id"]) == ("1", "none")
    assert tags["mlflow.runName"] == "verify, round 1"


@pytest.fixture(scope="module")
def first_round(study, middling) -> Verified:
    return verify(run_ids=[record.run_id for record in study], thresholds=middling)


@pytest.fixture(scope="module")
def taught(store, source, first_round) -> list:
    """A study that is trained on the labels of the first round."""
    return cross_validate(source, dummy(labels_run_id=first_round.run_id.upper()))


def test_labels_are_fetched_by_the_id_of_their_run(first_round, study) -> None:
    labels = fetch_labels(first_round.run_id)
    assert (labels.run_id, labels.dataset) == (first_round.run_id, study[0].dataset)
    assert round_of(first_round.run_id) == 1
    table = first_round.table
    assert labels.new_labels == {row.fname: row.new_label for row in table.itertuples() if row.decision in SETTLED}
    assert {"", *LABELS} >= set(labels.new_labels.values()) > {""}
    assert labels.certainty == {row.fname: row.score for row in table.itertuples() if row.decision in SETTLED}


def test_a_study_is_trained_on_the_labels_of_a_run(taught, first_round, source, given) -> None:
    run_ids = {record.config.labels_run_id for record in taught}
    assert run_ids == {first_round.run_id}
    plain = train_fold(source, dummy(), 0)
    assert taught[0].study != mlflow.get_run(plain).data.tags["fsat.study"]
    dropped = set(first_round.table.loc[first_round.table["decision"] == "drop", "fname"])
    assert dropped
    unused = set()
    for record in taught:
        clips = clip_table(record.run_id)
        assert clips["label"].tolist() == given["label"].tolist()
        assert clips["manually_verified"].tolist() == given["manually_verified"].astype(str).tolist()
        own = set(clips.loc[clips["split"] == "val", "fname"])
        out = set(clips.loc[clips["split"] == "unused", "fname"])
        assert out == dropped - own
        unused |= out
        params = mlflow.get_run(record.run_id).data.params
        assert int(params["n_train"]) == (clips["split"] == "train").sum()
    assert unused == dropped
    arrays = [np.load(fetch(run_id, "predictions/train.npy")) for run_id in (plain, taught[0].run_id)]
    assert np.abs(arrays[0] - arrays[1]).max() > 1e-6
    again = cross_validate(source, dummy(labels_run_id=first_round.run_id))
    assert [record.run_id for record in again] == [record.run_id for record in taught]


def test_labels_that_nobody_has_checked_are_trusted_once_they_are_settled(source, study, middling) -> None:
    """With unverified_weight=0 just those that are neither settled nor verified are left out."""
    made = verify(studies=[study[0].study], thresholds=Thresholds(middling.accept, middling.relabel, 0))
    decisions = made.table["decision"]
    first = int((decisions == "keep").to_numpy().argmax())
    fold = next(record.fold for record in study if clip_table(record.run_id)["split"][first] == "train")
    clips = clip_table(train_fold(source, logmel(labels_run_id=made.run_id, unverified_weight="0"), fold))
    others = clips["split"] != "val"
    assert clips["split"][first] == "unused"
    trusted = decisions[others].isin(["verified", "accept", "relabel"])
    assert (clips["split"][others] == "train").tolist() == trusted.tolist()


def test_the_second_round_is_about_the_given_labels_again(taught, first_round, given) -> None:
    made = verify(studies=[taught[0].study])
    assert_logged(made, expected_table(out_of_fold(taught), given, Thresholds()))
    tags = mlflow.get_run(made.run_id).data.tags
    assert (tags["fsat.round"], tags["fsat.labels_run_id"]) == ("2", first_round.run_id)
    assert tags["mlflow.runName"] == "verify, round 2"
    assert tags["fsat.studies"] == taught[0].study
    assert round_of(made.run_id) == 2


def test_a_study_on_labels_of_verify_says_that_its_score_may_be_too_good(study, taught) -> None:
    tags = [mlflow.get_run(records[0].run_id).data.tags["fsat.selected_on"] for records in (study, taught)]
    assert tags == ["nothing", "own fold, labels"]


def test_several_studies_decide_together(study, taught, first_round, given) -> None:
    made = verify(studies=[study[0].study, taught[0].study])
    mean = gmean([out_of_fold(study).astype(np.float64), out_of_fold(taught).astype(np.float64)], axis=0)
    assert_logged(made, expected_table(mean / mean.sum(axis=1, keepdims=True), given, Thresholds()))
    tags = mlflow.get_run(made.run_id).data.tags
    assert tags["fsat.studies"] == f"{study[0].study},{taught[0].study}"
    assert (tags["fsat.round"], tags["fsat.labels_run_id"]) == ("2", first_round.run_id)
    members = json.loads(fetch(made.run_id, "members.json").read_text())
    assert members == [record.run_id for record in [*study, *taught]]


def test_the_command_prints_the_id_of_its_run(study) -> None:
    options = ["--studies", study[0].study, "--accept_at", "1", "--relabel_at", "1", "--drop_at", "0"]
    result = CliRunner().invoke(cli, ["verify", *options])
    assert result.exit_code == 0, result.output
    run_id = result.stdout.strip()
    run = mlflow.get_run(run_id)
    assert run.data.tags["fsat.stage"] == "verify"
    assert run.data.metrics["n_keep"] == 15
    share = run.data.metrics["wrong_share"]
    line = (
        f"verify: run {run_id}: round 1, of 15 unverified labels, about {share:.0%} of them wrong, 0 are accepted, "
        "0 replaced, 0 dropped, 15 left unchanged"
    )
    assert line in result.stderr


# --- errors ----------------------------------------------------------------------------------------


def labels_refused(source: Source, run_id: str) -> str:
    with pytest.raises(RunError) as caught:
        train_fold(source, dummy(labels_run_id=run_id), 0)
    line = one_line(caught.value)
    assert line.startswith(f"labels_run_id={run_id}: ")
    return line


def verify_refused(**arguments: object) -> str:
    with pytest.raises(RunError) as caught:
        verify(**arguments)
    return one_line(caught.value)


def verify_run(dataset: str, table: str | None, status: str = "FINISHED") -> str:
    """A run like one of `verify`; its id."""
    with mlflow.start_run() as run:
        mlflow.set_tags({"fsat.stage": "verify", "fsat.dataset": dataset})
        if table is not None:
            mlflow.log_text(table, "labels.csv")
    mlflow.MlflowClient().update_run(run.info.run_id, status=status)
    return run.info.run_id


def test_labels_of_no_run_of_verify(source, study) -> None:
    assert "no such run on sqlite:///" in labels_refused(source, "0123abcd")
    line = labels_refused(source, study[0].run_id)
    assert line.endswith("the run is of stage train_fold; expected a run of verify")
    with mlflow.start_run() as other:
        pass
    assert "of stage no fsat stage" in labels_refused(source, other.info.run_id)


@pytest.mark.parametrize("status", ["FAILED", "RUNNING", "KILLED", "deleted"])
def test_labels_of_a_run_that_is_not_finished(source, study, status: str) -> None:
    run_id = verify_run(study[0].dataset, "", status if status != "deleted" else "FINISHED")
    if status == "deleted":
        mlflow.MlflowClient().delete_run(run_id)
    assert labels_refused(source, run_id).endswith(f"the run is {status}; expected a FINISHED one: run verify again")


@pytest.mark.parametrize("table", [None, "", "fname,label\na.wav,Bell\n", "\0\n"])
def test_labels_without_their_table(source, study, table: str | None) -> None:
    line = labels_refused(source, verify_run(study[0].dataset, table))
    assert "labels.csv cannot be fetched (" in line
    assert line.endswith("run verify again")


def test_labels_of_another_dataset(study, first_round, tmp_path: Path) -> None:
    other = Source(make_dataset(tmp_path / "other", clips_per_class=10, unverified=0.5, test_clips=2, seed=1))
    line = labels_refused(other, first_round.run_id)
    assert f"of another dataset (digest {study[0].dataset})" in line
    assert str(tmp_path / "other") in line
    assert line.endswith("run verify on a study of this one")


def test_a_study_that_lacks_a_fold(source, study) -> None:
    alone = train_fold(source, dummy(seed=77), 1)
    line = verify_refused(run_ids=[alone])
    assert "lacks fold 0 of 2; train what is missing with `mlflow run . -e cross_validate" in line
    assert "-P seed=77" in line
    assert line == verify_refused(studies=[mlflow.get_run(alone).data.tags["fsat.study"]])
    assert "lacks fold 0" in verify_refused(run_ids=[record.run_id for record in study] + [alone])


def test_unknown_runs_and_studies(study) -> None:
    assert "no run 0123abcd" in verify_refused(run_ids=["0123abcd"])
    assert "no study nowhere" in verify_refused(studies=["nowhere"])
    assert "both given" in verify_refused(run_ids=[study[0].run_id], studies=[study[0].study])


def test_models_no_better_than_chance_are_a_warning(study, source, capfd) -> None:
    """The models see only a clip's greatest sample."""
    made = verify(studies=[study[0].study])
    assert "hardly know" not in capfd.readouterr().err
    assert "hardly know" not in made.warning
    made = verify(run_ids=[record.run_id for record in cross_validate(source, dummy(seed=5))])
    assert "hardly know more of the unverified labels than a draw" in made.warning
    assert f": {made.warning}" in capfd.readouterr().err
    tags = mlflow.get_run(made.run_id).data.tags
    assert tags["fsat.warning"] == made.warning
    assert f"**Warning**: {made.warning}." in tags["mlflow.note.content"]


def test_studies_of_different_datasets(study, tmp_path: Path) -> None:
    other = Source(make_dataset(tmp_path / "other", clips_per_class=6, unverified=0.5, test_clips=2))
    others = cross_validate(other, dummy())
    assert "disagrees with run" in verify_refused(studies=[study[0].study, others[0].study])


def test_nothing_to_verify(store, tmp_path: Path) -> None:
    records = cross_validate(Source(make_dataset(tmp_path / "all", clips_per_class=4, test_clips=2)), dummy())
    line = verify_refused()  # the newest complete study
    assert line == f"study {records[0].study}: every label is verified by hand; there is nothing to verify"


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--accept_at", "1.5"], 2, "1.5 is not in the range 0<=x<=1"),
        (["--relabel_at", "-0.1"], 2, "-0.1 is not in the range"),
        (["--drop_at", "much"], 2, "'much' is not a valid float"),
        (["--drop_at", "inf"], 2, "inf is not in the range"),
        (["--studies", ","], 2, "--studies is empty; expected ids separated by commas"),
        (["--run_ids", ""], 2, "--run_ids is empty"),
    ],
)
def test_wrong_options(options: list[str], code: int, words: str) -> None:
    result = CliRunner().invoke(cli, ["verify", *options])
    assert result.exit_code == code
    assert words in result.output
    assert "Traceback" not in result.output
