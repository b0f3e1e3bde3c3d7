"""An ensemble takes nothing that is not as its fold left it, and says which fold to train again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest
from helpers import make_dataset, one_line

from fsat.commands.ensemble import ensemble
from fsat.commands.train import cross_validate, train_fold
from fsat.config import Config
from fsat.data.dataset import Source
from fsat.errors import RunError
from fsat.options import Launch
from fsat.tracking.run_folder import checksums

TINY = {"model": "dummy1d", "sampling_rate": 100, "audio_duration": 0.25, "n_folds": 2, "max_epochs": 2}
PARTS = (
    "labels.json", "weights/best.weights.h5", "predictions/train.npy", "predictions/test.npy", "predictions/clips.csv",
    "checksums.json",
)  # fmt: skip


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Source:
    return Source(make_dataset(tmp_path_factory.mktemp("data") / "tones", clips_per_class=4, test_clips=2))


@pytest.fixture(scope="module")
def study(store, source) -> list:
    return cross_validate(source, Config.resolve(TINY))


def artifacts(run_id: str) -> Path:
    return Path(mlflow.get_run(run_id).info.artifact_uri.removeprefix("file://"))


def remove(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def alter(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [remove, cut, alter])
@pytest.mark.parametrize("part", PARTS)
def test_what_is_not_as_it_was_left_is_named_and_nothing_is_registered(
    part: str, damage: Callable[[Path], None], study, source
) -> None:
    path = artifacts(study[1].run_id) / part
    before = path.read_bytes()
    damage(path)
    try:
        with pytest.raises(RunError) as caught:
            ensemble(run_ids=[record.run_id for record in study], register_as="damaged")
    finally:
        path.write_bytes(before)
    line = one_line(caught.value)
    assert study[1].run_id in line
    assert part in line
    assert "train fold 1 again" in line
    assert "-P resume=false" in line
    assert not mlflow.MlflowClient().search_registered_models(filter_string="name = 'damaged'")


def test_every_file_is_in_the_list(study) -> None:
    folder = artifacts(study[0].run_id)
    listed = json.loads((folder / "checksums.json").read_text())
    assert {**listed, "checksums.json": checksums(folder)["checksums.json"]} == checksums(folder)
    assert set(PARTS) - {"checksums.json"} <= set(listed)


def test_the_fold_that_was_named_is_trained_again_and_then_it_works(study, source) -> None:
    path = artifacts(study[0].run_id) / "predictions" / "train.npy"
    before = path.read_bytes()
    alter(path)
    try:
        again = train_fold(source, Config.resolve(TINY), 0, Launch(resume=False))
        made = ensemble(register_as="mended")
    finally:
        path.write_bytes(before)
    assert again != study[0].run_id
    assert again in made.scores["run_id"].tolist()


def test_runs_of_older_versions_have_no_list(study) -> None:
    client = mlflow.MlflowClient()
    for record in study:
        client.delete_tag(record.run_id, "fsat.checksums")
    assert ensemble(run_ids=[record.run_id for record in study], register_as="older").registered.version == 1


def test_a_full_disk_is_not_blamed_on_the_run(study, monkeypatch) -> None:
    def full(**where: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(mlflow.artifacts, "download_artifacts", full)
    with pytest.raises(RunError, match="no space left") as caught:
        ensemble(run_ids=[record.run_id for record in study], register_as="full")
    assert "again" not in one_line(caught.value)
