"""Compare the fold runs of a tracking store with those of an undisturbed one.

`describe_store` runs in a process of its own (`Workspace.describe_store`); its results are compared without MLflow.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TIMES = ("epoch_seconds", "clips_per_second", "train_seconds")
"""Metrics that differ from run to run."""

REPRODUCIBLE = (
    "predictions/train.npy",
    "predictions/test.npy",
    "predictions/clips.csv",
    "predictions/submission.csv",
    "weights/best.weights.h5",
    "labels.json",
    "config.json",
    "model.txt",
)
"""Artifacts that must be equal byte for byte."""

CHECKSUMS = "checksums.json"
NOT_IN_CHECKSUMS = (CHECKSUMS, "exclusions.csv")


def describe_store(sweep: bool = False) -> dict[str, Any]:
    """Describe all runs of the default experiment, and the metrics and artifacts of FINISHED folds.

    Args:
        sweep: first mark runs of dead processes, as the next command would.

    Returns:
        ``runs``: ``id``, ``status``, ``stage`` and ``fold`` of each run that is not deleted; ``folds``: metrics,
        artifact digests and checksums of each FINISHED fold run, by id.
    """
    import mlflow

    if sweep:
        from fsat.tracking import ownership

        ownership.sweep()
    client = mlflow.MlflowClient()
    runs, folds = [], {}
    for run in client.search_runs(["0"], max_results=1000):
        tags = run.data.tags
        stage, status = tags.get("fsat.stage", ""), run.info.status
        runs.append({"id": run.info.run_id, "status": status, "stage": stage, "fold": tags.get("fsat.fold", "")})
        if (status, stage) == ("FINISHED", "train_fold"):
            folds[run.info.run_id] = _describe_fold(client, run)
    return {"runs": runs, "folds": folds}


def _describe_fold(client: Any, run: Any) -> dict[str, Any]:
    import mlflow

    run_id = run.info.run_id
    metrics = {
        key: sorted([metric.step, metric.value] for metric in client.get_metric_history(run_id, key))
        for key in run.data.metrics
    }
    with tempfile.TemporaryDirectory(prefix="fsat-bench-") as name:
        folder = Path(mlflow.artifacts.download_artifacts(run_id=run_id, dst_path=name))
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        artifacts = {
            path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
        }
        checksums = folder / CHECKSUMS
        expected = json.loads(checksums.read_text()) if checksums.exists() else {}
    return {
        "metrics": metrics,
        "artifacts": artifacts,
        "expected": expected,
        "tag": run.data.tags.get("fsat.checksums", ""),
        "n_params": len(run.data.params),
    }


def compare_stores(received: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """List the problems of a store with one fold, compared with an undisturbed store, both from `describe_store`."""
    problems = []
    if running := [run for run in received["runs"] if run["status"] == "RUNNING"]:
        problems.append(f"{len(running)} runs are still RUNNING")
    if len(received["folds"]) != 1:
        return [*problems, f"{len(received['folds'])} FINISHED runs of the fold, expected 1"]
    (fold,), (undisturbed,) = received["folds"].values(), expected["folds"].values()
    return problems + compare_folds(fold, undisturbed)


def compare_folds(received: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """List the differences between two folds, both as in `describe_store`."""
    problems = check_fold(received)
    for key in sorted(set(received["metrics"]) ^ set(expected["metrics"])):
        problems.append(f"metric {key}: {'is missing' if key in expected['metrics'] else 'is new'}")
    for key in sorted(set(received["metrics"]) & set(expected["metrics"])):
        points, expected_points = received["metrics"][key], expected["metrics"][key]
        if [step for step, _ in points] != [step for step, _ in expected_points]:
            missing = {step for step, _ in expected_points} - {step for step, _ in points}
            problems.append(f"metric {key}: {_count_duplicates(points)} steps twice, {len(missing)} missing")
        elif key not in TIMES and points != expected_points:
            problems.append(f"metric {key}: values differ")
    names, expected_names = ({_stable_name(name) for name in fold["artifacts"]} for fold in (received, expected))
    for name in sorted(names ^ expected_names):
        problems.append(f"artifact {name}: {'is missing' if name in expected_names else 'is new'}")
    for name in REPRODUCIBLE:
        digests = [fold["artifacts"].get(name) for fold in (received, expected)]
        if None not in digests and digests[0] != digests[1]:
            problems.append(f"{name}: bytes differ")
    if received["n_params"] != expected["n_params"]:
        problems.append(f"{received['n_params']} parameters, expected {expected['n_params']}")
    return problems


def check_fold(fold: Mapping[str, Any]) -> list[str]:
    """List the problems of a fold by itself: duplicate steps, artifacts that differ from checksums.json."""
    duplicates = {key: _count_duplicates(points) for key, points in fold["metrics"].items()}
    problems = [f"metric {key}: {n} steps twice" for key, n in duplicates.items() if n]
    artifacts = {name: digest for name, digest in fold["artifacts"].items() if name not in NOT_IN_CHECKSUMS}
    if artifacts != fold["expected"] or fold["artifacts"].get(CHECKSUMS) != fold["tag"]:
        problems.append("the artifacts differ from checksums.json")
    return problems


def summarise(problems: list[str]) -> str:
    """Return up to four problems and the number of the others."""
    return "; ".join(problems[:4]) + (f"; and {len(problems) - 4} more" if len(problems) > 4 else "")


def count_statuses(store: Mapping[str, Any]) -> str:
    """Return the number of runs with each status, such as ``1 FINISHED, 2 KILLED``."""
    counts = Counter(run["status"] for run in store["runs"])
    return ", ".join(f"{n} {status}" for status, n in sorted(counts.items()))


def _count_duplicates(points: list[list[float]]) -> int:
    return len(points) - len({step for step, _ in points})


def _stable_name(name: str) -> str:
    """Return an artifact's name without the time and the process that TensorBoard adds."""
    return re.sub(r"tfevents\..*", "tfevents", name)
