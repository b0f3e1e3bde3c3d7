"""A store full of records: how long `ensemble` takes to find its runs among 100 folds of 1,000 epochs each."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
import uuid
from pathlib import Path
from typing import Any

from benchmarks.faults.processes import Place, Server
from benchmarks.harness import Bench, BenchmarkError, Row, Samples, Section, alternate, call

FOLDS, EPOCHS = 100, 1000
PER_EPOCH = ("loss", "acc", "learning_rate", "epoch_seconds", "clips_per_second", "val_loss", "val_acc", "val_map3")
AT_MOST = 3.0
"""Seconds."""


def run(bench: Bench) -> Section:
    """Train one fold, copy its records, and look for the study."""
    n_folds, n_epochs = bench.pick(FOLDS, 10), bench.pick(EPOCHS, 20)
    place = Place(bench.folder / "store")
    options = {"data_dir": bench.data_dir, "model": "dummy1d", "audio_duration": 0.5, "max_epochs": 1}
    sitting = place.start("train_fold", fold=0, **options)
    if code := sitting.wait():
        raise BenchmarkError(f"train_fold ended with {code}\n{sitting.said[-3000:]}")
    database = place.folder / "mlflow.db"
    n_rows = fill(database, n_folds, n_epochs)
    megabytes = database.stat().st_size / 1e6
    with Server(bench.folder / "server") as server:
        server.stop()
        for name in ("server.db", "server.db-wal", "server.db-shm"):
            (server.folder / name).unlink(missing_ok=True)
        shutil.copy(database, server.folder / "server.db")
        os.sync()  # so that nothing is still written while it is timed
        server.start()
        places = {"the SQLite store": place, "`mlflow server`": Place(bench.folder / "asking", server.uri)}
        sides = {name: (lambda where=where: _ask(where, n_folds)) for name, where in places.items()}
        found = alternate(max(3, bench.repeats), sides)
    rows = []
    for name, results in found.items():
        limit = None if bench.quick else AT_MOST
        times = {key: Samples("", [result[key] for result in results], "s") for key in ("finding", "process")}
        rows.append(Row(f"its runs found, {name}", times["finding"], at_most=limit))
        rows.append(Row(f"the whole process, with its start and imports, {name}", times["process"]))
    notes = [
        f"A study of {n_folds} FINISHED fold runs, copies of the records of a real one with all their parameters and "
        f"tags, and {n_epochs} epochs of {len(PER_EPOCH)} metrics in each: {n_rows} metrics, {megabytes:.0f} MB, "
        "written into MLflow's tables by SQL. Timed is what `ensemble` does first where it is told no runs: finding "
        "the newest complete study (`fsat.tracking.select_runs.choose`), in a fresh process; then that process as a "
        "whole."
    ]
    return Section(rows, notes, ["mlflow", "sqlalchemy"])


def _ask(place: Place, n_folds: int) -> dict[str, float]:
    begun = time.perf_counter()
    variables = {key: value for key, value in place.environment.items() if os.environ.get(key) != value}
    result = call("benchmarks.faults.records:find", environment=variables, cwd=place.folder)
    if result["folds"] != list(range(n_folds)):
        raise BenchmarkError(f"expected {n_folds} folds, found {result['folds']}")
    return {"finding": result["seconds"], "process": time.perf_counter() - begun}


def find() -> dict[str, Any]:
    """Find the newest complete study; its folds, and the seconds without imports."""
    from fsat.tracking.select_runs import choose

    begun = time.perf_counter()
    (members,) = choose([], [], False).values()
    return {"seconds": time.perf_counter() - begun, "folds": [member.fold for member in members]}


def fill(database: Path, n_folds: int, n_epochs: int) -> int:
    """Copy the only FINISHED fold run of a store to all other folds, and give each run metrics for every epoch.

    Returns:
        how many metrics the store then has.
    """
    with sqlite3.connect(database) as store:
        (first,) = store.execute("SELECT run_uuid FROM runs WHERE status = 'FINISHED'").fetchone()
        ids = [first, *(uuid.uuid4().hex for _ in range(n_folds - 1))]
        for fold, run_id in enumerate(ids[1:], start=1):
            for table in ("runs", "params", "tags", "metrics", "latest_metrics"):
                _copy(store, table, "run_uuid", first, run_id)
            _copy(store, "inputs", "destination_id", first, run_id)
            for table, key in (("tags", "fsat.fold"), ("params", "fold")):
                store.execute(f"UPDATE {table} SET value = ? WHERE run_uuid = ? AND key = ?", (str(fold), run_id, key))
        store.execute("UPDATE params SET value = ? WHERE key = 'n_folds'", (str(n_folds),))
        now = time.time_ns() // 1_000_000
        store.executemany(
            "INSERT OR REPLACE INTO metrics (key, value, timestamp, run_uuid, step, is_nan) VALUES (?, ?, ?, ?, ?, 0)",
            (
                (key, 1 / (1 + epoch), now + epoch, run_id, epoch)
                for run_id in ids for epoch in range(1, n_epochs) for key in PER_EPOCH
            ),
        )  # fmt: skip
        store.executemany(
            "INSERT OR REPLACE INTO latest_metrics (key, value, timestamp, step, is_nan, run_uuid) "
            "VALUES (?, ?, ?, ?, 0, ?)",
            ((key, 1 / n_epochs, now + n_epochs - 1, n_epochs - 1, run_id) for run_id in ids for key in PER_EPOCH),
        )
        return store.execute("SELECT count(*) FROM metrics").fetchone()[0]


def _copy(store: sqlite3.Connection, table: str, key: str, old: str, new: str) -> None:
    """Copy a run's rows of a table to another run, with ids of their own where they have such."""
    columns = [row[1] for row in store.execute(f"PRAGMA table_info({table})")]
    changed = {key: "?", "input_uuid": "lower(hex(randomblob(16)))"}
    values = ", ".join(changed.get(name, name) for name in columns)
    store.execute(
        f"INSERT INTO {table} ({', '.join(columns)}) SELECT {values} FROM {table} WHERE {key} = ?", (new, old)
    )
