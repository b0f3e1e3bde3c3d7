"""A training that was stopped continues after its last complete epoch, with the same results, bit for bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import make_dataset, one_line

from fsat.config import Config
from fsat.data.dataset import load_dataset
from fsat.errors import FsatError
from fsat.training.fold import FoldResult, train_fold

pytestmark = pytest.mark.slow

SMALL = {
    "sampling_rate": 8000, "audio_duration": 0.25, "n_folds": 3, "max_epochs": 5, "batch_size": 8, "eval_crops": 1,
    "precision": "float32", "patience": 9,
}  # fmt: skip
CASES = {
    "dropout": {"model": "conv1d", "audio_duration": 0.9},
    "early stopping": {"model": "dummy1d", "learning_rate": 3, "patience": 2, "max_epochs": 12, "holdout": 0.2},
    "mfcc": {"model": "conv2d_mfcc", "audio_duration": 1, "n_mfcc": 20, "max_epochs": 3},
    "average": {
        "model": "cnn_logmel", "n_mels": 16, "checkpoint": "average", "average_last": 0.6, "schedule": "cosine",
        "warmup": 0.3, "mixup": 0.4, "weight_decay": 0.01, "time_mask": 0.05, "max_epochs": 4,
    },
    "dropped losses": {"model": "dummy1d", "drop_losses": 0.4, "warmup": 0.6, "loss": "lq", "checkpoint": "last"},
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "tones", clips_per_class=8, unverified=0.5, test_clips=3)


class Stop(Exception):
    """In place of a signal."""


def stopped_after(epochs: int):
    def on_epoch(epoch: int, metrics: dict, milliseconds: int) -> None:
        if epoch + 1 == epochs:
            raise Stop

    return on_epoch


def events(folder: Path) -> list[tuple[str, int, str, float]]:
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    return [
        (path.parent.name, event.step, value.tag, value.tensor.float_val[0])
        for path in sorted(folder.glob("tensorboard/*/*"))
        for event in EventFileLoader(str(path)).Load()
        for value in event.summary.value
    ]  # fmt: skip


def assert_same(found: FoldResult, expected: FoldResult) -> None:
    for name in ("train", "test", "splits"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    timed = ("epoch_seconds", "clips_per_second")
    histories = [
        [{name: value for name, value in row.items() if name not in timed} for row in result.state.history]
        for result in (found, expected)
    ]
    assert histories[0] == histories[1]
    assert found.state.best_epoch == expected.state.best_epoch
    assert (found.scores, found.summary) == (expected.scores, expected.summary)
    assert events(found.folder) == events(expected.folder)
    assert len(events(found.folder)) >= 4 * len(found.state.history)


@pytest.mark.parametrize("case", CASES)
def test_a_training_in_sittings_leaves_what_one_in_a_single_sitting_does(case, folder, tmp_path) -> None:
    config = Config(**{**SMALL, **CASES[case]})
    dataset = load_dataset(folder, config)
    (tmp_path / "whole").mkdir()
    whole = train_fold(dataset, 1, tmp_path / "whole")
    checkpoint = tmp_path / "checkpoint"
    after = {len(whole.history) // 2} | ({1, len(whole.history)} if case == "early stopping" else set())
    for epochs in sorted(after):
        sitting = tmp_path / f"sitting {epochs}"
        sitting.mkdir()
        with pytest.raises(Stop):
            train_fold(dataset, 1, sitting, stopped_after(epochs), checkpoint)
    told = []
    result = train_fold(dataset, 1, sitting, lambda *epoch: told.append(epoch), checkpoint)
    assert_same(result, whole)
    assert told == list(zip(range(len(result.state.history)), result.state.history, result.state.times, strict=True))
    if case == "early stopping":
        assert len(whole.history) < config.max_epochs


def test_no_checkpoint_is_written_unless_asked_for(folder, tmp_path) -> None:
    config = Config(**{**SMALL, "model": "dummy1d", "max_epochs": 1})
    train_fold(load_dataset(folder, config), 0, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"best.weights.h5", "tensorboard"}


@pytest.fixture
def stopped(folder, tmp_path):
    """A dataset, and the checkpoint after the second of its five epochs."""
    dataset = load_dataset(folder, Config(**{**SMALL, "model": "dummy1d"}))
    with pytest.raises(Stop):
        train_fold(dataset, 0, tmp_path, stopped_after(2), tmp_path / "checkpoint")
    return dataset, tmp_path / "checkpoint"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def alter(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut, alter, empty])
def test_a_damaged_checkpoint_is_never_gone_on_from(damage, stopped, capsys) -> None:
    dataset, checkpoint = stopped
    damage(checkpoint)
    told = []
    train_fold(dataset, 0, checkpoint.parent, lambda epoch, *_: told.append(epoch), checkpoint)
    assert told == [0, 1, 2, 3, 4]
    said = [line for line in capsys.readouterr().err.splitlines() if str(checkpoint) in line]
    assert len(said) == 1
    assert "trained from the beginning" in said[0]


def test_nor_is_one_of_another_model(stopped, folder, capsys) -> None:
    _, checkpoint = stopped
    other = load_dataset(folder, Config(**{**SMALL, "model": "dummy1d", "audio_duration": 0.3}))
    other = replace(other, config=replace(other.config, model="conv1d", max_epochs=1))
    train_fold(other, 0, checkpoint.parent, checkpoint=checkpoint)
    assert "of another model" in capsys.readouterr().err


def test_other_versions_are_said(stopped, capsys, monkeypatch) -> None:
    dataset, checkpoint = stopped
    monkeypatch.setattr("fsat.training.checkpoint.version", lambda name: "9.0.0")
    train_fold(dataset, 0, checkpoint.parent, checkpoint=checkpoint)
    said = capsys.readouterr().err
    assert "now 9.0.0; numpy" in said
    assert "resumes after epoch 2" in said


def test_a_checkpoint_that_cannot_be_written_is_one_line_and_the_one_before_stays(stopped, monkeypatch) -> None:
    dataset, checkpoint = stopped
    before = checkpoint.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fsat.files.os.fsync", full)
    with pytest.raises(FsatError, match="No space left on device") as caught:
        train_fold(dataset, 0, checkpoint.parent, checkpoint=checkpoint)
    assert "FSAT_CACHE_DIR" in one_line(caught.value)
    assert checkpoint.read_bytes() == before
    assert not list(checkpoint.parent.glob("*.unfinished"))
