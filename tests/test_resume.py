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


def assert_same(result: FoldResult, expected: FoldResult) -> None:
    for name in ("train", "test", "splits"):
        np.testing.assert_array_equal(getattr(result, name), getattr(expected, name))
    timed = ("epoch_seconds", "clips_per_second")
    histories = [
        [{name: value for name, value in row.items() if name not in timed} for row in each.state.history]
        for each in (result, expected)
    ]
    assert histories[0] == histories[1]
    assert result.state.best_epoch == expected.state.best_epoch
    assert (result.scores, result.summary) == (expected.scores, expected.summary)
    assert events(result.folder) == events(expected.folder)
    assert len(events(result.folder)) >= 4 * len(result.state.history)


@pytest.mark.parametrize("case", CASES)
def test_a_resumed_training_has_the_results_of_an_uninterrupted_one(case, folder, tmp_path) -> None:
    config = Config(**{**SMALL, **CASES[case]})
    dataset = load_dataset(folder, config)
    (tmp_path / "whole").mkdir()
    whole = train_fold(dataset, 1, tmp_path / "whole")
    checkpoint = tmp_path / "checkpoint"
    after = {whole.state.n_epochs // 2} | ({1, whole.state.n_epochs} if case == "early stopping" else set())
    for epochs in sorted(after):
        sitting = tmp_path / f"sitting {epochs}"
        sitting.mkdir()
        with pytest.raises(Stop):
            train_fold(dataset, 1, sitting, stopped_after(epochs), checkpoint)
    epochs_seen = []
    result = train_fold(dataset, 1, sitting, lambda *epoch: epochs_seen.append(epoch), checkpoint)
    assert_same(result, whole)
    state = result.state
    assert epochs_seen == list(zip(range(state.n_epochs), state.history, state.times, strict=True))
    if case == "early stopping":
        assert whole.state.n_epochs < config.max_epochs


def test_no_checkpoint_is_written_by_default(folder, tmp_path) -> None:
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
def test_a_damaged_checkpoint_is_not_used(damage, stopped, capsys) -> None:
    dataset, checkpoint = stopped
    damage(checkpoint)
    epochs_seen = []
    train_fold(dataset, 0, checkpoint.parent, lambda epoch, *_: epochs_seen.append(epoch), checkpoint)
    assert epochs_seen == [0, 1, 2, 3, 4]
    messages = [line for line in capsys.readouterr().err.splitlines() if str(checkpoint) in line]
    assert len(messages) == 1
    assert "trained from the beginning" in messages[0]


def test_a_checkpoint_of_another_model_is_not_used(stopped, folder, capsys) -> None:
    _, checkpoint = stopped
    other = load_dataset(folder, Config(**{**SMALL, "model": "dummy1d", "audio_duration": 0.3}))
    other = replace(other, config=replace(other.config, model="conv1d", max_epochs=1))
    train_fold(other, 0, checkpoint.parent, checkpoint=checkpoint)
    assert "of another model" in capsys.readouterr().err


def test_other_versions_are_reported(stopped, capsys, monkeypatch) -> None:
    dataset, checkpoint = stopped
    monkeypatch.setattr("fsat.training.checkpoint.version", lambda name: "9.0.0")
    train_fold(dataset, 0, checkpoint.parent, checkpoint=checkpoint)
    messages = capsys.readouterr().err
    assert "now 9.0.0; numpy" in messages
    assert "resumes after epoch 2" in messages


def test_a_checkpoint_that_cannot_be_written_is_one_line_and_leaves_the_previous_one(stopped, monkeypatch) -> None:
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
