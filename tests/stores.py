"""MLflow's SQLite stores for tests, as MLflow makes them at their first use; copied, as making one takes seconds."""

from __future__ import annotations

import functools
import shutil
import sqlite3
import tempfile
from pathlib import Path


def new_store(folder: Path, name: str = "mlflow.db", artifacts: str = "") -> str:
    """A store that nothing is in, unless there is one of that name in the folder.

    Args:
        folder: where its file is put.
        name: of the file.
        artifacts: where those of the default experiment go; by default to ``mlruns`` in the folder, as MLflow has it.

    Returns:
        its address.
    """
    path = folder / name
    if not path.exists():
        shutil.copy(_made() / "mlflow.db", path)
        with sqlite3.connect(path) as database:
            where = f"{artifacts or folder / 'mlruns'}/0"
            database.execute("UPDATE experiments SET artifact_location = ? WHERE experiment_id = 0", [where])
        database.close()
    return f"sqlite:///{path}"


@functools.cache
def _made() -> Path:
    import mlflow

    folder = tempfile.TemporaryDirectory(prefix="fsat-store-")
    _kept.append(folder)
    mlflow.MlflowClient(f"sqlite:///{folder.name}/mlflow.db").search_experiments()
    return Path(folder.name)


_kept: list[tempfile.TemporaryDirectory] = []
