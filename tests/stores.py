"""MLflow stores in SQLite for tests: an empty one, one with a trained study, and copies of both, which take no time."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import pickle
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from helpers import make_dataset

if TYPE_CHECKING:
    import mlflow

    from fsat.commands.ensemble import Ensembled
    from fsat.tracking.select_runs import FoldRun

CLASSES = ("Bell", "Cel<i>lo", "Flute")
PLANTED = "bell_00.wav"
"""A clip of a bell with the label Flute."""

SETTINGS = {
    "model": "conv1d", "sampling_rate": 8000, "audio_duration": 0.25, "n_folds": 2, "max_epochs": 15, "batch_size": 4,
    "learning_rate": 0.003, "patience": 15, "precision": "float32",
}  # fmt: skip
"""Of the trained study."""


@dataclass(frozen=True)
class TrainedStudy:
    """A study of two folds, the ensemble of both, and their tagger, registered as ``tones``.

    Attributes:
        data: the dataset: 24 training clips, of which one has a wrong label, and 6 test clips, of which one is empty.
        folder: of the store, ``mlflow.db`` and ``mlruns``. Do not write to it: `copy` it.
    """

    data: Path
    folder: Path

    def copy(self, folder: Path) -> None:
        """Copy the store into a folder."""
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        columns = {"experiments": "artifact_location", "runs": "artifact_uri", "logged_models": "artifact_location",
                   "model_versions": "storage_location"}  # fmt: skip
        with closing(sqlite3.connect(folder / "mlflow.db")) as database, database:
            for table, column in columns.items():
                update = f"UPDATE {table} SET {column} = replace({column}, ?, ?)"
                database.execute(update, [str(self.folder), str(folder)])

    @property
    def fold_runs(self) -> list[FoldRun]:
        """The runs of both folds, as the current store has them."""
        from fsat.tracking.select_runs import by_run_ids

        return by_run_ids(self._results()[0])

    @property
    def ensemble(self) -> Ensembled:
        """What `ensemble` returned."""
        return self._results()[1]

    def _results(self) -> tuple[list[str], Ensembled]:
        return pickle.loads((self.folder.parent / "results.pickle").read_bytes())


def train_study(root: Path) -> TrainedStudy:
    """Train the study in a folder, unless it is there."""
    from fsat.commands.ensemble import ensemble
    from fsat.commands.train import cross_validate
    from fsat.config import Config
    from fsat.data.dataset import Source

    study = TrainedStudy(root / "tones", root / "store")
    if not (root / "results.pickle").exists():
        make_dataset(study.data, classes=CLASSES, clips_per_class=8, test_clips=5, fold_column=2, unverified=0.25,
                     wrong={PLANTED: "Flute"})  # fmt: skip
        (study.data / "audio_test" / "empty.wav").write_bytes(b"")
        with open(study.data / "sample_submission.csv", "a") as table:
            table.write("empty.wav,\n")
        study.folder.mkdir()
        with current_store(study.folder):
            run_ids = [record.run_id for record in cross_validate(Source(study.data), Config.resolve(SETTINGS))]
            made = ensemble(run_ids=run_ids, register_as="tones")
        (root / "results.pickle").write_bytes(pickle.dumps((run_ids, made)))
    return study


@contextmanager
def current_store(folder: Path) -> Iterator[Path]:
    """Make a folder the working folder, and its store, which is created if missing, MLflow's tracking store."""
    import mlflow

    before = Path.cwd()
    os.chdir(folder)
    mlflow.set_tracking_uri(new_store(folder))
    try:
        yield folder
    finally:
        mlflow.set_tracking_uri(None)
        os.chdir(before)


def copy_run(
    run_id: str, *, status: str = "FINISHED", params: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
) -> str:  # fmt: skip
    """Copy a run with its artifacts, with other parameters and tags where given. Returns the id of the copy."""
    import mlflow
    from mlflow.entities import Param, RunTag

    client = mlflow.MlflowClient()
    run = client.get_run(run_id)
    copy = client.create_run(run.info.experiment_id, run_name=run.info.run_name)
    client.log_batch(
        copy.info.run_id,
        params=[Param(*pair) for pair in {**run.data.params, **(params or {})}.items()],
        tags=[RunTag(*pair) for pair in {**run.data.tags, **(tags or {})}.items()],
    )
    for name, value in run.data.metrics.items():
        client.log_metric(copy.info.run_id, name, value)
    source, target = (each.info.artifact_uri.removeprefix("file://") for each in (run, copy))
    shutil.copytree(source, target, dirs_exist_ok=True)
    client.set_terminated(copy.info.run_id, status)
    return copy.info.run_id


def artifacts(run_id: str, client: mlflow.MlflowClient | None = None) -> Path:
    """Return the artifact folder of a run."""
    import mlflow

    return Path((client or mlflow.MlflowClient()).get_run(run_id).info.artifact_uri.removeprefix("file://"))


def predictions(run_id: str, client: mlflow.MlflowClient | None = None) -> list[bytes]:
    """Return the files of a run's predictions of training and test clips."""
    return [(artifacts(run_id, client) / "predictions" / f"{name}.npy").read_bytes() for name in ("train", "test")]


def write_artifact(run_id: str, name: str, data: bytes) -> None:
    """Replace an artifact of a fold run, and its checksum."""
    import mlflow

    client, folder = mlflow.MlflowClient(), artifacts(run_id)
    (folder / name).write_bytes(data)
    checksums = json.loads((folder / "checksums.json").read_text())
    checksums[name] = hashlib.sha256(data).hexdigest()
    (folder / "checksums.json").write_text(json.dumps(checksums))
    client.set_tag(run_id, "fsat.checksums", hashlib.sha256((folder / "checksums.json").read_bytes()).hexdigest())


def new_store(folder: Path, name: str = "mlflow.db", artifacts: str = "") -> str:
    """Put an empty store into a folder, unless there is a file of that name; return the store's address.

    `artifacts` is the location of those of the default experiment, by default ``mlruns`` in the folder.
    """
    path = folder / name
    if not path.exists():
        shutil.copy(Path(_empty_store().name, "mlflow.db"), path)
        with closing(sqlite3.connect(path)) as database, database:
            location = f"{artifacts or folder / 'mlruns'}/0"
            database.execute("UPDATE experiments SET artifact_location = ? WHERE experiment_id = 0", [location])
    return f"sqlite:///{path}"


@functools.cache
def _empty_store() -> tempfile.TemporaryDirectory:
    """Have MLflow create the tables once, which takes seconds."""
    import mlflow

    folder = tempfile.TemporaryDirectory(prefix="fsat-store-")
    mlflow.MlflowClient(f"sqlite:///{folder.name}/mlflow.db").search_experiments()
    return folder
