"""A training that was stopped continues after its last complete epoch, with the same results, bit for bit."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from unittest.mock import ANY, Mock

import numpy as np
import pytest
from clip_files import flip, halve
from helpers import error_line, make_dataset

from fsat.config import Config
from fsat.data.dataset import load_dataset
from fsat.errors import FsatError
from fsat.models import build_for_training, import_keras
from fsat.training.checkpoint import PACKAGES, TrainingState, restore, write_checkpoint
from fsat.training.fold import FoldResult, train_fold

keras = import_keras()

SMALL = {
    "sampling_rate": 8000, "audio_duration": 0.25, "n_folds": 3, "max_epochs": 4, "batch_size": 8, "eval_crops": 1,
    "precision": "float32", "patience": 9,
}  # fmt: skip
CASES = {
    "dropout": {"model": "conv1d"},
    "early stopping": {"model": "dummy1d", "learning_rate": 3, "patience": 2, "max_epochs": 12, "holdout": 0.2},
    "mfcc": {"model": "conv2d_mfcc", "audio_duration": 1, "n_mfcc": 20, "max_epochs": 3},
    "average": {
        "model": "cnn_logmel", "n_mels": 16, "checkpoint": "average", "average_last": 0.6, "schedule": "cosine",
        "warmup": 0.3, "mixup": 0.4, "weight_decay": 0.01, "max_epochs": 4, "gain": 6, "stretch": 0.2, "mel_shift": 2,
        "time_mask": 0.05, "mel_mask": 4, "label_smoothing": 0.1,
    },
    "dropped losses": {"model": "dummy1d", "drop_losses": 0.4, "warmup": 0.6, "loss": "lq", "checkpoint": "last"},
    "sigmoid": {
        "model": "dummy1d", "reject": "auto", "focal": 1, "drop_losses": 0.4, "warmup": 0.6, "loss": "lq", "mixup": 0.4,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "tones", clips_per_class=8, unverified=0.5, test_clips=3)


def events(folder: Path) -> list[tuple[str, int, str, float]]:
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    paths = sorted(folder.glob("tensorboard/*/*"))
    loaded = [(path.parent.name, event) for path in paths for event in EventFileLoader(str(path)).Load()]
    return [(name, e.step, value.tag, value.tensor.float_val[0]) for name, e in loaded for value in e.summary.value]


def assert_same(result: FoldResult, expected: FoldResult) -> None:
    for name in ("train", "test", "splits"):
        np.testing.assert_array_equal(getattr(result, name), getattr(expected, name))
    for row, other in zip(result.state.history, expected.state.history, strict=True):
        assert row | dict.fromkeys(("epoch_seconds", "clips_per_second"), ANY) == other
    assert result.state.best_epoch == expected.state.best_epoch
    assert (result.scores, result.summary) == (expected.scores, expected.summary)
    assert events(result.folder) == events(expected.folder)
    assert len(events(result.folder)) >= 4 * len(result.state.history)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_resumed_training_has_the_results_of_an_uninterrupted_one(case, folder, tmp_path) -> None:
    config = Config(**{**SMALL, **CASES[case]})
    dataset, checkpoint = load_dataset(folder, config), tmp_path / "checkpoint"

    def train(name: str, checkpoint: Path, on_epoch: Callable[..., object]) -> FoldResult:
        (tmp_path / name).mkdir()
        return train_fold(dataset, 1, tmp_path / name, on_epoch, checkpoint)

    whole = train("whole", checkpoint, lambda epoch, *_: shutil.copy(checkpoint, tmp_path / f"after {epoch + 1}"))
    n_epochs = whole.state.n_epochs
    for epochs in (1, n_epochs) if case == "early stopping" else (n_epochs // 2,):
        on_epoch = Mock()
        result = train(f"rest {epochs}", tmp_path / f"after {epochs}", on_epoch)
        assert_same(result, whole)
        reported = [call.args for call in on_epoch.call_args_list]
        assert reported == list(zip(range(n_epochs), result.state.history, result.state.times, strict=True))
    assert case != "early stopping" or n_epochs < config.max_epochs


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A checkpoint after two epochs."""
    write_two_epochs(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def write_two_epochs(path: Path) -> None:
    model = new_model()
    state = TrainingState([{"loss": 1.0}, {"loss": 0.5}], [1, 2], weights=model.get_weights())
    write_checkpoint(path, state, model)


def new_model(name: str = "dummy1d") -> keras.Model:
    return build_for_training(Config(**{**SMALL, "model": name}), 3)


@pytest.mark.parametrize("damage", [halve, lambda path: flip(path, path.stat().st_size // 2)], ids=["halve", "flip"])
def test_a_damaged_checkpoint_is_not_used(damage, checkpoint, capsys) -> None:
    damage(checkpoint)
    assert restore(checkpoint, new_model(), 0) == TrainingState()
    (message,) = [line for line in capsys.readouterr().err.splitlines() if str(checkpoint) in line]
    assert "trained from the beginning" in message


def test_a_checkpoint_of_another_model_is_not_used(checkpoint, capsys) -> None:
    assert restore(checkpoint, new_model("conv1d"), 0) == TrainingState()
    assert "of another model" in capsys.readouterr().err


def test_other_versions_are_reported(checkpoint, capsys, monkeypatch) -> None:
    for name in PACKAGES:
        monkeypatch.setattr(f"{name}.__version__", "9.0.0+cluster")
    assert restore(checkpoint, new_model(), 0).n_epochs == 2
    messages = capsys.readouterr().err
    assert "now 9.0.0+cluster; numpy" in messages
    assert "resumes after epoch 2" in messages


def test_a_checkpoint_that_cannot_be_written_is_one_line_and_leaves_the_previous_one(checkpoint, monkeypatch) -> None:
    before = checkpoint.read_bytes()
    monkeypatch.setattr("fsat.files.os.fsync", Mock(side_effect=OSError(28, "No space left on device")))
    line = error_line(FsatError, write_two_epochs, checkpoint)
    assert "No space left on device" in line
    assert "FSAT_CACHE_DIR" in line
    assert checkpoint.read_bytes() == before
    assert not list(checkpoint.parent.glob("*.unfinished"))
