"""Curated and noisy clips of any number of labels: trained on, verified, and trained on again.

As in `test_verify`, predictions of a model that learns nothing are replaced by scores that say something.
"""

from __future__ import annotations

import io

import mlflow
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from mixtures import make_mixtures
from stores import artifacts, copy_run, write_artifact

from fsat.cli import cli
from fsat.commands.train import cross_validate, prepare_dataset
from fsat.commands.verify_labels import Verified, verify
from fsat.commands.verify_multilabel import decide_pairs, estimate_pairs
from fsat.config import Config
from fsat.data.dataset import Dataset, Source
from fsat.metrics.multilabel_noise import DECISIONS
from fsat.options import Thresholds
from fsat.tracking.select_runs import FoldRun, by_run_ids, fetch_labels
from fsat.training.fold import assign_splits

pytestmark = pytest.mark.slow

LABELS = ["Bell", "Cello", "Flute"]
MIDDLING = Thresholds(0.8, 0.7, 0.4)
"""All decisions are made."""


def multi(**options: object) -> Config:
    settings = {"model": "dummy1d", "sampling_rate": 8000, "audio_duration": 0.25, "precision": "float32"}
    return Config(n_folds=2, max_epochs=2, batch_size=16, **settings, **options)


@pytest.fixture(scope="module")
def mixtures(tmp_path_factory) -> tuple[Source, dict[str, np.ndarray]]:
    """56 curated and 72 noisy clips, and the truth by name."""
    folder, truth = make_mixtures(tmp_path_factory.mktemp("data") / "mixtures", n_curated=56, n_noisy=72)
    names = [f"train_curated/{i:02d}.wav" for i in range(56)] + [f"train_noisy/{i:02d}.wav" for i in range(72)]
    return Source(folder), dict(zip(names, truth, strict=True))


@pytest.fixture(scope="module")
def dataset(mixtures) -> Dataset:
    return prepare_dataset(mixtures[0], multi(), quiet=True)


@pytest.fixture(scope="module")
def plain(store, mixtures) -> list[FoldRun]:
    """Noisy labels count less, by a loss that tolerates wrong ones."""
    return cross_validate(mixtures[0], multi(unverified_weight="0:1,2:0.5", loss="lq", drop_losses=0.1))


@pytest.fixture(scope="module")
def scores(mixtures, dataset) -> np.ndarray:
    """What models know that are certain of some pairs, and not of others."""
    truth = np.array([mixtures[1][name] for name in dataset.manifest.train["fname"]])
    noise = np.random.default_rng(5).normal(size=truth.shape)
    return np.float32(1 / (1 + np.exp(-(4 * truth - 2.5 + 1.2 * noise))))


@pytest.fixture(scope="module")
def study(plain, scores) -> list[FoldRun]:
    """A copy of the study with these scores, out of fold only."""
    run_ids = []
    for record in plain:
        clips = pd.read_csv(artifacts(record.run_id) / "predictions" / "clips.csv", keep_default_na=False)
        held_out = (clips["split"] == "val").to_numpy()[:, np.newaxis]
        file = io.BytesIO()
        np.save(file, np.where(held_out, scores, 1 - scores))
        run_ids.append(copy_run(record.run_id, tags={"fsat.study": "known"}))
        write_artifact(run_ids[-1], "predictions/train.npy", file.getvalue())
    return by_run_ids(run_ids)


@pytest.fixture(scope="module")
def first_round(study) -> Verified:
    return verify(run_ids=[record.run_id for record in study], thresholds=MIDDLING)


def test_curated_clips_are_verified(plain, dataset) -> None:
    for record in plain:
        clips = pd.read_csv(artifacts(record.run_id) / "predictions" / "clips.csv", keep_default_na=False)
        curated = clips["fname"].str.startswith("train_curated/")
        assert clips["manually_verified"].tolist() == curated.astype(int).tolist()
        metrics = mlflow.get_run(record.run_id).data.metrics
        assert {"val_lwlrap", "val_lwlrap_verified", "val_map_verified"} <= metrics.keys()
    assert dataset.verified.sum() == 56


def test_out_of_fold_scores_decide_on_each_label(first_round, study, dataset, scores) -> None:
    fnames = dataset.manifest.train["fname"].tolist()
    folds = np.where(assign_splits(dataset, 0) == "val", 0, 1)
    found = estimate_pairs(scores, dataset.targets, dataset.verified, folds, LABELS)
    expected = decide_pairs(found, dataset.targets, dataset.verified, fnames, LABELS, MIDDLING)
    exact = ["fname", "label", "given", "decision"]
    table = pd.read_csv(artifacts(first_round.run_id) / "labels.csv", keep_default_na=False)
    for made in (first_round.table, table):
        pd.testing.assert_frame_equal(made[exact], expected.table[exact], check_dtype=False)
        np.testing.assert_allclose(made["score"], expected.table["score"], atol=2e-5)
    assert set(table["decision"]) == set(DECISIONS)
    assert first_round.counts == expected.counts
    run = mlflow.get_run(first_round.run_id)
    shares = {"wrong_share": first_round.wrong_share, "missing_share": first_round.missing_share}
    assert run.data.metrics == shares | {f"n_{name}": number for name, number in expected.counts.items()}
    assert {name: run.data.tags[f"fsat.{name}"] for name in ("task", "round", "studies")} == {
        "task": "multi", "round": "1", "studies": "known",
    }  # fmt: skip
    classes = pd.read_csv(artifacts(first_round.run_id) / "classes.csv")
    pd.testing.assert_frame_equal(classes, expected.classes, check_dtype=False)
    note = run.data.tags["mlflow.note.content"]
    row = classes.set_index("label").loc["Bell"]
    cells = f"{row['wrong_share']:.0%} | {row['missing_share']:.0%} | {row['accept']:g} | {row['remove']:g}"
    assert f"\n| `Bell` | {row['labels']:g} | {cells} | {row['add']:g} |\n" in note


def test_most_decisions_are_right(first_round, mixtures) -> None:
    """A label that is removed is wrong, one that is added was missing, and one that is accepted is right."""
    rows = first_round.table[first_round.table["label"] != ""]
    truth = np.array([mixtures[1][row.fname][LABELS.index(row.label)] for row in rows.itertuples()])
    right = {name: truth[(rows["decision"] == name) & (rows["given"] == 1)].mean() for name in ("accept", "remove")}
    assert right["accept"] > 0.85
    assert right["remove"] < 0.15
    assert truth[rows["decision"] == "add"].mean() > 0.85


def test_labels_are_fetched_for_training(first_round, mixtures, dataset) -> None:
    labels = fetch_labels(first_round.run_id)
    assert labels.fnames == dataset.manifest.train["fname"].tolist()
    changed = prepare_dataset(mixtures[0], multi(labels_run_id=first_round.run_id), quiet=True)
    counts, there = first_round.counts, changed.target_classes
    assert (there & ~changed.targets).sum() == counts["add"]
    assert (changed.targets & ~there & (changed.certainty > 0)).sum() == counts["remove"]
    assert (changed.certainty == 0).sum() == counts["drop"] + counts["drop_absent"] > 0
    assert (~changed.trusted).sum() == counts["keep"] + counts["keep_absent"] > 0
    assert changed.trusted[changed.verified].all()
    assert (changed.certainty[changed.verified] == 1).all()
    row = first_round.table[first_round.table["decision"] == "add"].iloc[0]
    clip, label = labels.fnames.index(row["fname"]), LABELS.index(row["label"])
    assert changed.certainty[clip, label] == np.float32(row["score"])
    np.testing.assert_array_equal(changed.targets, dataset.targets)


@pytest.fixture(scope="module")
def taught(mixtures, first_round) -> list[FoldRun]:
    """A study that is trained on the labels of the first round."""
    return cross_validate(mixtures[0], multi(labels_run_id=first_round.run_id, unverified_weight="0"))


def test_a_second_round_is_about_the_given_labels_again(taught, plain, first_round, dataset) -> None:
    before, after = (np.load(artifacts(each[0].run_id) / "predictions" / "train.npy") for each in (plain, taught))
    assert np.abs(before - after).max() > 1e-6
    assert mlflow.get_run(taught[0].run_id).data.tags["fsat.selected_on"] == "own fold, labels"
    result = CliRunner().invoke(cli, ["verify", "--studies", f"known,{taught[0].study}", "--accept_at", "0.9"])
    assert result.exit_code == 0, result.output
    run_id = result.stdout.strip()
    tags = mlflow.get_run(run_id).data.tags
    assert (tags["fsat.round"], tags["fsat.labels_run_id"]) == ("2", first_round.run_id)
    table = pd.read_csv(artifacts(run_id) / "labels.csv", keep_default_na=False)
    noisy = table[(table["decision"] != "verified") & (table["given"] == 1)]
    assert len(noisy) == dataset.targets[~dataset.verified].sum()
    metrics = mlflow.get_run(run_id).data.metrics
    n_labels, missing = len(noisy), f"about {metrics['missing_share']:.0%} of the sounds lack their label"
    assert f"of {n_labels} unverified labels, about {metrics['wrong_share']:.0%} of them wrong, " in result.stderr
    assert f"; {metrics['n_add']:g} added, as {missing}" in result.stderr


def test_models_no_better_than_chance_are_a_warning(plain) -> None:
    made = verify(run_ids=[record.run_id for record in plain])
    assert "hardly know more of the unverified labels than a draw would; train a better study first" in made.warning
    assert made.counts["keep"] == made.table["given"].sum() - made.counts["verified"]
