"""`verify`: decisions on unverified labels are logged, trained on, and decided on again.

One study of a model that learns nothing is trained. Its predictions are replaced by scores that say something.
"""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from helpers import error_line, make_dataset
from scipy.stats import gmean
from stores import copy_run, write_artifact

from fsat.cli import cli
from fsat.commands.train import cross_validate, prepare_dataset, train_fold
from fsat.commands.verify_labels import Verified, label_table, verify
from fsat.config import Config
from fsat.data.dataset import Source
from fsat.data.manifest import read_manifest
from fsat.errors import RunError
from fsat.metrics.label_noise import DECISIONS, beliefs, decide, wrong_share
from fsat.options import Thresholds
from fsat.tracking.fold_artifacts import download
from fsat.tracking.select_runs import LABELS_COLUMNS, FoldRun, by_run_ids, fetch_labels, round_of

pytestmark = pytest.mark.slow

WRONG = {"bell_00.wav": "Cello", "cello_01.wav": "Flute", "flute_02.wav": "Bell", "bell_03.wav": "Flute"}
LABELS = ["Bell", "Cello", "Flute"]
SETTLED = ("accept", "relabel", "drop")
MIDDLING = Thresholds(0.95, 0.95, 1.0)
"""Some labels are accepted, some relabelled, and all others dropped."""


def dummy(**options: object) -> Config:
    settings = {"model": "dummy1d", "sampling_rate": 8000, "audio_duration": 0.25, "precision": "float32"}
    return Config(n_folds=2, max_epochs=3, batch_size=8, **settings, **options)


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Source:
    """30 clips, half of them unverified, four of those with a wrong label."""
    folder = tmp_path_factory.mktemp("data") / "tones"
    return Source(make_dataset(folder, clips_per_class=10, unverified=0.5, wrong=WRONG, test_clips=2))


@pytest.fixture(scope="module")
def given(source) -> pd.DataFrame:
    """The table of the clips, in the order of predictions."""
    manifest, _ = read_manifest(source.data_dir).in_canonical_order()
    return pd.read_csv(io.StringIO(manifest.train.to_csv(index=False)))


@pytest.fixture(scope="module")
def plain(store, source) -> list[FoldRun]:
    """A study by a model that sees only the largest sample of a clip, which says nothing of its class."""
    return cross_validate(source, dummy())


@pytest.fixture(scope="module")
def study(plain, given) -> list[FoldRun]:
    """A study whose models are certain of some clips that they were not trained on, and not of others."""
    truth = given["fname"].str.partition("_")[0].str.capitalize().map(LABELS.index)
    scores = np.exp(np.random.default_rng(3).normal(size=(len(given), 3)) + 3 * np.eye(3)[truth])
    scores = (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32)
    records = []
    for record in plain:
        held_out = (clip_table(record.run_id)["split"] == "val").to_numpy()
        by_fold = np.where(held_out[:, np.newaxis], scores, np.roll(scores, 1, axis=1))
        records += copies([record], "certain", {"predictions/train.npy": array_bytes(by_fold)})
    return records


def copies(records: list[FoldRun], study: str, artifacts: dict[str, bytes], **tags: str) -> list[FoldRun]:
    """Copy fold runs as those of another study, with other artifacts."""
    run_ids = [copy_run(record.run_id, tags={"fsat.study": study, **tags}) for record in records]
    for run_id in run_ids:
        for name, data in artifacts.items():
            write_artifact(run_id, name, data)
    return by_run_ids(run_ids)


def array_bytes(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def fetch(run_id: str, path: str) -> Path:
    return Path(mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=path))


def clip_table(run_id: str) -> pd.DataFrame:
    table = pd.read_csv(fetch(run_id, "predictions/clips.csv"), keep_default_na=False)
    return table[table["split"] != "test"].reset_index(drop=True)


def out_of_fold(records: list[FoldRun]) -> np.ndarray:
    scores = [np.load(fetch(record.run_id, "predictions/train.npy")) for record in records]
    held_out = [(clip_table(record.run_id)["split"] == "val").to_numpy() for record in records]
    assert (np.sum(held_out, axis=0) == 1).all()
    return np.sum([part * own[:, None] for part, own in zip(scores, held_out, strict=True)], axis=0)


def expected_table(scores: np.ndarray, given: pd.DataFrame, thresholds: Thresholds) -> pd.DataFrame:
    """The decisions on out-of-fold scores, by the functions that `test_label_noise` tests."""
    verified = (given["manually_verified"] == 1).to_numpy()
    targets = given["label"].map(LABELS.index).to_numpy()
    share, _ = wrong_share(scores[np.arange(len(given)), targets][~verified], len(LABELS))
    believed = np.where(verified[:, np.newaxis], scores, beliefs(scores, targets, share))
    decisions, classes, confidence = decide(believed, targets, verified, thresholds)
    new_labels = np.array([*LABELS, ""], dtype=object)[classes]
    columns = given["fname"], given["label"], new_labels, confidence, decisions
    return pd.DataFrame(dict(zip(LABELS_COLUMNS, columns, strict=True)))


def assert_decided(table: pd.DataFrame, expected: pd.DataFrame) -> None:
    exact = ["fname", "label", "new_label", "decision"]
    assert table.columns.tolist() == expected.columns.tolist()
    pd.testing.assert_frame_equal(table[exact], expected[exact])
    np.testing.assert_allclose(table["score"], expected["score"], atol=2e-5)


def assert_logged(made: Verified, expected: pd.DataFrame) -> None:
    """The table, the artifact and the metrics are as expected."""
    logged = pd.read_csv(fetch(made.run_id, "labels.csv"), keep_default_na=False)
    pd.testing.assert_frame_equal(logged, made.table, check_dtype=False)
    assert_decided(logged, expected)
    counts = {name: int((expected["decision"] == name).sum()) for name in DECISIONS}
    assert made.counts == counts
    run = mlflow.get_run(made.run_id)
    assert run.info.status == "FINISHED"
    metrics = {f"n_{name}": number for name, number in counts.items()}
    assert run.data.metrics == metrics | {"wrong_share": made.wrong_share}


def test_each_unverified_clip_is_decided_on_by_the_fold_that_did_not_see_it(study, given, tmp_path) -> None:
    scores, seen = out_of_fold(study), set()
    members = [download(record, tmp_path) for record in study]
    for thresholds in (Thresholds(), Thresholds(0, 0, 0), Thresholds(1, 1, 0), MIDDLING):
        table, _ = label_table(members, thresholds)
        assert_decided(table, expected_table(scores, given, thresholds))
        seen |= set(table["decision"])
    assert seen == set(DECISIONS)


def test_sigmoids_of_clips_with_one_label_are_shares(study, given, tmp_path) -> None:
    """Even where the scores of all classes are low, as of sounds that fit none."""
    factors, run_ids = np.linspace(0.1, 1, len(given))[:, np.newaxis], []
    for record in study:
        run_ids.append(copy_run(record.run_id, params={"reject": "auto"}, tags={"fsat.study": "sigmoid"}))
        scores = np.load(fetch(record.run_id, "predictions/train.npy")) * factors
        write_artifact(run_ids[-1], "predictions/train.npy", array_bytes(scores.astype(np.float32)))
    table, _ = label_table([download(record, tmp_path) for record in by_run_ids(run_ids)], MIDDLING)
    assert_decided(table, expected_table(out_of_fold(study), given, MIDDLING))


@pytest.fixture(scope="module")
def first_round(study) -> Verified:
    return verify(run_ids=[record.run_id for record in study], thresholds=MIDDLING)


def test_a_run_of_verify_has_the_decisions_and_the_tags_of_its_study(first_round, study, given) -> None:
    assert_logged(first_round, expected_table(out_of_fold(study), given, MIDDLING))
    data = mlflow.get_run(first_round.run_id).data
    assert {name: float(data.params[f"{name}_at"]) for name in vars(MIDDLING)} == vars(MIDDLING)
    expected = {"stage": "verify", "studies": study[0].study, "dataset": study[0].dataset,
                "data_dir": study[0].data_dir, "round": "1", "labels_run_id": "none"}  # fmt: skip
    assert expected == {name: data.tags[f"fsat.{name}"] for name in expected}
    assert data.tags["mlflow.runName"] == "verify, round 1"


@pytest.fixture(scope="module")
def taught(source, first_round) -> list[FoldRun]:
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


def test_a_study_is_trained_on_the_labels_of_a_run(taught, plain, first_round, source, given) -> None:
    run_ids = {record.config.labels_run_id for record in taught}
    assert run_ids == {first_round.run_id}
    assert taught[0].study != plain[0].study
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
    arrays = [np.load(fetch(run_id, "predictions/train.npy")) for run_id in (plain[0].run_id, taught[0].run_id)]
    assert np.abs(arrays[0] - arrays[1]).max() > 1e-6
    again = cross_validate(source, dummy(labels_run_id=first_round.run_id))
    assert [record.run_id for record in again] == [record.run_id for record in taught]
    selected = [mlflow.get_run(records[0].run_id).data.tags["fsat.selected_on"] for records in (plain, taught)]
    assert selected == ["own fold", "own fold, labels"]  # so that the score may be too good


def test_the_second_round_is_about_the_given_labels_again(taught, first_round, given) -> None:
    made = verify(studies=[taught[0].study])
    assert_logged(made, expected_table(out_of_fold(taught), given, Thresholds()))
    tags = mlflow.get_run(made.run_id).data.tags
    assert (tags["fsat.round"], tags["fsat.labels_run_id"]) == ("2", first_round.run_id)
    assert tags["mlflow.runName"] == "verify, round 2"
    assert tags["fsat.studies"] == taught[0].study
    assert round_of(made.run_id) == 2


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
    labels = f"of 15 unverified labels, about {share:.0%} of them wrong"
    line = f"verify: run {run_id}: round 1, {labels}, 0 accepted, 0 replaced, 0 dropped, 15 left unchanged"
    assert line in result.stderr


def test_labels_follow_the_sounds_of_renamed_clips(source, first_round, tmp_path: Path) -> None:
    before = prepare_dataset(source, dummy(labels_run_id=first_round.run_id), quiet=True)
    folder = tmp_path / "renamed"
    shutil.copytree(source.data_dir, folder)
    table = pd.read_csv(folder / "train.csv", dtype=str)
    renamed = dict(zip(table["fname"], np.roll(table["fname"], 7), strict=True))
    for old, new in renamed.items():
        shutil.copyfile(source.data_dir / "audio_train" / old, folder / "audio_train" / new)
    table.assign(fname=table["fname"].map(renamed)).to_csv(folder / "train.csv", index=False)
    after = prepare_dataset(Source(folder), dummy(labels_run_id=first_round.run_id), quiet=True)
    assert after.study == before.study
    assert after.manifest.train["fname"].tolist() == before.manifest.train["fname"].map(renamed).tolist()
    for name in ("target_classes", "trusted", "certainty"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))


# --- errors ----------------------------------------------------------------------------------------


def labels_refused(run_id: str) -> str:
    line = error_line(RunError, fetch_labels, run_id)
    assert line.startswith(f"labels_run_id={run_id}: ")
    return line


def verify_refused(**arguments: object) -> str:
    return error_line(RunError, verify, **arguments)


def verify_run(dataset: str, table: str | None, status: str = "FINISHED") -> str:
    """A run like one of `verify`; its id."""
    with mlflow.start_run() as run:
        mlflow.set_tags({"fsat.stage": "verify", "fsat.dataset": dataset})
        if table is not None:
            mlflow.log_text(table, "labels.csv")
    mlflow.MlflowClient().update_run(run.info.run_id, status=status)
    return run.info.run_id


def test_labels_of_no_run_of_verify(study) -> None:
    assert "no such run on sqlite:///" in labels_refused("0123abcd")
    line = labels_refused(study[0].run_id)
    assert line.endswith("the run is of stage train_fold; expected a run of verify")
    with mlflow.start_run() as other:
        pass
    assert "of stage no fsat stage" in labels_refused(other.info.run_id)


@pytest.mark.parametrize("status", ["FAILED", "RUNNING", "deleted"])
def test_labels_of_a_run_that_is_not_finished(study, status: str) -> None:
    run_id = verify_run(study[0].dataset, "", status if status != "deleted" else "FINISHED")
    if status == "deleted":
        mlflow.MlflowClient().delete_run(run_id)
    assert labels_refused(run_id).endswith(f"the run is {status}; expected a FINISHED one: run verify again")


@pytest.mark.parametrize("table", [None, "", "fname,label\na.wav,Bell\n", "\0\n"])
def test_labels_without_their_table(study, table: str | None) -> None:
    line = labels_refused(verify_run(study[0].dataset, table))
    assert "labels.csv cannot be fetched (" in line
    assert line.endswith("run verify again")


def test_labels_of_another_dataset(study, first_round, tmp_path: Path) -> None:
    other = Source(make_dataset(tmp_path / "other", clips_per_class=10, unverified=0.5, test_clips=2, seed=1))
    line = error_line(RunError, train_fold, other, dummy(labels_run_id=first_round.run_id), 0)
    assert line.startswith(f"labels_run_id={first_round.run_id}: ")
    assert f"of another dataset (digest {study[0].dataset})" in line
    assert str(tmp_path / "other") in line
    assert line.endswith("run verify on a study of this one")


def test_a_study_that_lacks_a_fold(plain) -> None:
    (alone,) = copies(plain[1:], "alone", {})
    line = verify_refused(run_ids=[alone.run_id])
    assert "lacks fold 0 of 2; train what is missing with `mlflow run . -e cross_validate" in line
    assert line == verify_refused(studies=["alone"])
    assert "allow_incomplete" not in line


def test_models_no_better_than_chance_are_a_warning(study, plain, capfd) -> None:
    made = verify(studies=[study[0].study])
    assert "hardly know" not in capfd.readouterr().err
    assert "hardly know" not in made.warning
    made = verify(run_ids=[record.run_id for record in plain])
    assert "hardly know more of the unverified labels than a draw" in made.warning
    assert f": {made.warning}" in capfd.readouterr().err
    tags = mlflow.get_run(made.run_id).data.tags
    assert tags["fsat.warning"] == made.warning
    assert f"**Warning**: {made.warning}." in tags["mlflow.note.content"]


def test_nothing_to_verify(plain) -> None:
    for record in plain:
        clips = fetch(record.run_id, "predictions/clips.csv").read_text().replace(",0\n", ",1\n")
        copies([record], "checked", {"predictions/clips.csv": clips.encode()})
    line = verify_refused()  # the newest complete study
    assert line == "study checked: every label is verified by hand; there is nothing to verify"
