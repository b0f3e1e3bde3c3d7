"""Measure how long `ensemble` takes to find its runs in a store with 100 folds of 1,000 epochs."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
import uuid
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.faults.processes import Server, Workspace
from benchmarks.harness import Bench, BenchmarkError, Row, Samples, Section, alternate

FOLDS, EPOCHS = 100, 1000
METRICS = ("loss", "acc", "learning_rate", "epoch_seconds", "clips_per_second", "val_loss", "val_acc", "val_map3")
LIMIT_SECONDS = 3.0
INSERT_METRIC = (
    "INSERT OR REPLACE INTO metrics (key, value, timestamp, run_uuid, step, is_nan) VALUES (?, ?, ?, ?, ?, 0)"
)
INSERT_LATEST = (
    "INSERT OR REPLACE INTO latest_metrics (key, value, timestamp, step, is_nan, run_uuid) VALUES (?, ?, ?, ?, 0, ?)"
)


def run(bench: Bench) -> Section:
    """Train one fold, copy its records, and find the study."""
    n_folds, n_epochs = bench.pick(FOLDS, 10), bench.pick(EPOCHS, 20)
    workspace = Workspace(bench.folder / "store")
    options = {"data_dir": bench.data_dir, "model": "dummy1d", "audio_duration": 0.5, "max_epochs": 1}
    workspace.run("train_fold", fold=0, **options)
    database = workspace.folder / "mlflow.db"
    n_metrics = copy_records(database, n_folds, n_epochs)
    megabytes = database.stat().st_size / 1e6
    with Server(bench.folder / "server") as server:
        server.stop()
        for name in ("server.db", "server.db-wal", "server.db-shm"):
            (server.folder / name).unlink(missing_ok=True)
        shutil.copy(database, server.folder / "server.db")
        os.sync()  # finish writing before timing
        server.start()
        client = Workspace(bench.folder / "client", server.uri)
        sides = {
            "the SQLite store": partial(_time_find, workspace, n_folds),
            "`mlflow server`": partial(_time_find, client, n_folds),
        }
        results = alternate(max(3, bench.repeats), sides)
    rows = []
    for name, times in results.items():
        limit = None if bench.quick else LIMIT_SECONDS
        finding, process = (Samples("", [result[key] for result in times], "s") for key in ("finding", "process"))
        rows.append(Row(f"finding the runs, {name}", finding, at_most=limit))
        rows.append(Row(f"the whole process, with start and imports, {name}", process))
    notes = [
        f"A study of {n_folds} FINISHED fold runs, copies of the records of a real one with all parameters and tags, "
        f"and {n_epochs} epochs of {len(METRICS)} metrics each: {n_metrics} metrics, {megabytes:.0f} MB, written into "
        "MLflow's tables by SQL. Timed is what `ensemble` does first without options: finding the newest complete "
        "study (`fsat.tracking.select_runs`), in a new process; then that process as a whole."
    ]
    return Section(rows, notes, ["mlflow", "sqlalchemy"])


def _time_find(workspace: Workspace, n_folds: int) -> dict[str, float]:
    start = time.perf_counter()
    result = workspace.call("benchmarks.faults.records:find")
    if result["folds"] != list(range(n_folds)):
        raise BenchmarkError(f"expected {n_folds} folds, received {result['folds']}")
    return {"finding": result["seconds"], "process": time.perf_counter() - start}


def find() -> dict[str, Any]:
    """Find the newest complete study; return its folds, and the seconds without imports."""
    from fsat.tracking.select_runs import choose

    start = time.perf_counter()
    (members,) = choose([], [], False).values()
    return {"seconds": time.perf_counter() - start, "folds": [member.fold for member in members]}


def copy_records(database: Path, n_folds: int, n_epochs: int) -> int:
    """Copy a store's only FINISHED fold run to all other folds, give each run metrics for every epoch.

    Returns:
        the number of metrics in the store.
    """
    with sqlite3.connect(database) as store:
        (first,) = store.execute("SELECT run_uuid FROM runs WHERE status = 'FINISHED'").fetchone()
        run_ids = [first, *(uuid.uuid4().hex for _ in range(n_folds - 1))]
        for fold, run_id in enumerate(run_ids[1:], start=1):
            for table in ("runs", "params", "tags", "metrics", "latest_metrics"):
                _copy_rows(store, table, "run_uuid", first, run_id)
            _copy_rows(store, "inputs", "destination_id", first, run_id)
            for table, key in (("tags", "fsat.fold"), ("params", "fold")):
                store.execute(f"UPDATE {table} SET value = ? WHERE run_uuid = ? AND key = ?", (str(fold), run_id, key))
        store.execute("UPDATE params SET value = ? WHERE key = 'n_folds'", (str(n_folds),))
        now = time.time_ns() // 1_000_000
        epochs = [(run_id, epoch) for run_id in run_ids for epoch in range(1, n_epochs)]
        values = ((key, 1 / (1 + epoch), now + epoch, run_id, epoch) for run_id, epoch in epochs for key in METRICS)
        store.executemany(INSERT_METRIC, values)
        last = n_epochs - 1
        latest = ((key, 1 / n_epochs, now + last, last, run_id) for run_id in run_ids for key in METRICS)
        store.executemany(INSERT_LATEST, latest)
        return store.execute("SELECT count(*) FROM metrics").fetchone()[0]


def _copy_rows(store: sqlite3.Connection, table: str, key: str, old: str, new: str) -> None:
    """Copy a run's rows of a table to another run, with new ids."""
    columns = [row[1] for row in store.execute(f"PRAGMA table_info({table})")]
    changed = {key: "?", "input_uuid": "lower(hex(randomblob(16)))"}
    values = ", ".join(changed.get(name, name) for name in columns)
    store.execute(
        f"INSERT INTO {table} ({', '.join(columns)}) SELECT {values} FROM {table} WHERE {key} = ?", (new, old)
    )
