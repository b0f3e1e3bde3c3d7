"""Fold artifacts are read as they were written, and an ensemble rejects files that were changed since."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest import mock

import mlflow
import numpy as np
import pandas as pd
import pytest
from clip_files import flip, halve
from helpers import error_line
from stores import artifacts, copy_run

from fsat.commands.ensemble import ensemble
from fsat.errors import RunError
from fsat.tracking import fold_artifacts
from fsat.tracking.fold_artifacts import CHECKSUMS, MEMBER_FILES, Member, Predictions, checksums, download
from fsat.tracking.select_runs import FoldRun

flip_first = partial(flip, offset=0)


@pytest.fixture(scope="module")
def study(trained_store) -> list[FoldRun]:
    return trained_store.fold_runs


@pytest.mark.parametrize("rows_at_once", [2, 50_000])
def test_a_member_is_what_was_written(rows_at_once, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(fold_artifacts, "CLIPS_AT_ONCE", rows_at_once)
    scores = np.random.default_rng(0).random((6, 2), dtype=np.float32)
    splits = np.array(["train", "val", "holdout", "unused"])
    train = pd.DataFrame({"fname": list("abcd"), "label": ["1", "2", "2", "1"], "manually_verified": [1, 0, 1, 0]})
    clips = fold_artifacts.clip_table(train, splits, pd.DataFrame({"fname": ["e", "f"], "frames": [1, 2]}))
    folder, events = tmp_path / "artifacts", tmp_path / "events"
    folder.mkdir()
    events.mkdir()
    (events / "train").write_bytes(b"events")
    (tmp_path / "h5").write_bytes(b"weights")
    predictions = Predictions(scores[:4], scores[4:], clips, clips[["fname", "label"]])
    fold_artifacts.write_artifacts(folder, {}, ["1", "2"], predictions, tmp_path / "h5", "a summary", events)
    fold_artifacts.write_checksums(folder)
    assert fold_artifacts.is_intact(folder)
    others = {"config.json", "model.txt", "predictions/submission.csv", "tensorboard/train"}
    assert set(json.loads((folder / CHECKSUMS).read_text())) == {*MEMBER_FILES, *others}
    member = Member(None, folder)
    np.testing.assert_array_equal(member.train, scores[:4])
    np.testing.assert_array_equal(member.test, scores[4:])
    assert (member.labels, member.weights.read_bytes()) == (["1", "2"], b"weights")
    assert member.clips["split"].tolist() == [*splits, "test", "test"]
    assert member.clips["label"].tolist() == ["1", "2", "2", "1", "", ""]
    assert fold_artifacts.is_test(member.clips).tolist() == [False] * 4 + [True] * 2
    assert fold_artifacts.without_fold(member.clips)["split"].tolist() == ["train"] * 4 + ["test"] * 2
    assert member.facts.held_out.tolist() == [False, True, False, False]
    assert (member.facts.n_train, member.facts.n_test) == (4, 2)


@pytest.fixture
def damaged(study):
    """A function that damages a file of a fold run until the test ends."""
    before = {}

    def damage(fold: int, name: str, how: Callable[[Path], None]) -> None:
        path = artifacts(study[fold].run_id) / name
        before[path] = path.read_bytes()
        how(path)

    yield damage
    for path, data in before.items():
        path.write_bytes(data)


@pytest.mark.parametrize("damage", [Path.unlink, halve, flip_first], ids=["unlink", "halve", "flip"])
@pytest.mark.parametrize("name", [*MEMBER_FILES, CHECKSUMS])
def test_a_damaged_artifact_is_named(name, damage, study, damaged, tmp_path) -> None:
    damaged(1, name, damage)
    line = error_line(RunError, download, study[1], tmp_path)
    assert line.startswith(f"run {study[1].run_id}: {name} ")
    assert "train fold 1 again" in line
    assert "-P resume=false" in line


def test_an_ensemble_with_a_damaged_member_registers_nothing_until_its_fold_is_trained_again(study, damaged) -> None:
    again = copy_run(study[0].run_id, status="RUNNING")
    damaged(0, "predictions/train.npy", flip_first)
    with pytest.raises(RunError, match="train fold 0 again"):
        ensemble(register_as="damaged")
    assert not mlflow.MlflowClient().search_registered_models(filter_string="name = 'damaged'")
    mlflow.MlflowClient().set_terminated(again)
    assert again in ensemble(register_as="repaired").scores["run_id"].tolist()


def test_every_file_of_a_fold_has_a_checksum(study) -> None:
    folder = artifacts(study[0].run_id)
    files = {name: digest for name, digest in checksums(folder).items() if name not in (CHECKSUMS, "exclusions.csv")}
    assert json.loads((folder / CHECKSUMS).read_text()) == files


def test_a_full_disk_is_not_blamed_on_the_run(study, monkeypatch, tmp_path) -> None:
    full = mock.Mock(side_effect=OSError(28, "No space left on device"))
    monkeypatch.setattr(mlflow.artifacts, "download_artifacts", full)
    line = error_line(RunError, download, study[0], tmp_path)
    assert "No space left" in line
    assert "again" not in line
