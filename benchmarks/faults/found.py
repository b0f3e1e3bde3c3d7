"""What a tracking store has of a fold after all that was done to it, and how that differs from an undisturbed one.

`look` runs in a process of its own (`Place.ask`); what it returns is compared here without MLflow.
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

TIMED = ("epoch_seconds", "clips_per_second", "train_seconds")
"""Metrics that are not the same twice."""

SAME = (
    "predictions/train.npy", "predictions/test.npy", "predictions/clips.csv", "predictions/submission.csv",
    "weights/best.weights.h5", "labels.json", "config.json", "model.txt",
)  # fmt: skip
"""Artifacts that must be the same, byte for byte."""

CHECKSUMS = "checksums.json"


def look(sweep: bool = False) -> dict[str, Any]:
    """All runs of the default experiment, and of FINISHED folds their metrics and the digests of their artifacts.

    Args:
        sweep: first mark what dead processes have left RUNNING, as the next launch would.

    Returns:
        ``runs``: ``id``, ``status``, ``stage``, ``fold`` of each that is not deleted; ``folds``: what is found of each
        FINISHED fold run, by id.
    """
    import mlflow

    if sweep:
        from fsat.tracking import ownership

        ownership.sweep()
    client = mlflow.MlflowClient()
    runs, folds = [], {}
    for run in client.search_runs(["0"], max_results=1000):
        tags = run.data.tags
        facts = {"id": run.info.run_id, "status": run.info.status, "stage": tags.get("fsat.stage", "")}
        runs.append({**facts, "fold": tags.get("fsat.fold", "")})
        if (run.info.status, tags.get("fsat.stage")) == ("FINISHED", "train_fold"):
            folds[run.info.run_id] = _fold(client, run)
    return {"runs": runs, "folds": folds}


def _fold(client: Any, run: Any) -> dict[str, Any]:
    import mlflow

    run_id = run.info.run_id
    metrics = {
        key: sorted([metric.step, metric.value] for metric in client.get_metric_history(run_id, key))
        for key in run.data.metrics
    }
    with tempfile.TemporaryDirectory(prefix="fsat-bench-") as name:
        folder = Path(mlflow.artifacts.download_artifacts(run_id=run_id, dst_path=name))
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        artifacts = {path.relative_to(folder).as_posix(): _digest(path) for path in files}
        table = folder / CHECKSUMS
        expected = json.loads(table.read_text()) if table.exists() else {}
    return {
        "metrics": metrics,
        "artifacts": artifacts,
        "expected": expected,
        "tag": run.data.tags.get("fsat.checksums", ""),
        "n_params": len(run.data.params),
    }


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def faults_of(found: Mapping[str, Any], whole: Mapping[str, Any]) -> list[str]:
    """What is wrong with a store in which a fold was trained against all odds; an empty list if nothing is.

    Args:
        found: what `look` returned there.
        whole: what it returned where nothing was done to the fold.
    """
    wrong = []
    if left := [run for run in found["runs"] if run["status"] == "RUNNING"]:
        wrong.append(f"{len(left)} runs are RUNNING still")
    if len(found["folds"]) != 1:
        return [*wrong, f"{len(found['folds'])} FINISHED runs of the fold, expected 1"]
    (fold,), (undisturbed,) = found["folds"].values(), whole["folds"].values()
    return wrong + differences(fold, undisturbed)


def differences(fold: Mapping[str, Any], whole: Mapping[str, Any]) -> list[str]:
    """How what is there of a fold departs from the undisturbed one, both as `look` gives them."""
    wrong = unsound(fold)
    for key in sorted(set(fold["metrics"]) ^ set(whole["metrics"])):
        wrong.append(f"metric {key}: {'is missing' if key in whole['metrics'] else 'is new'}")
    for key in sorted(set(fold["metrics"]) & set(whole["metrics"])):
        points, expected = fold["metrics"][key], whole["metrics"][key]
        if [step for step, _ in points] != [step for step, _ in expected]:
            missing = len({step for step, _ in expected} - {step for step, _ in points})
            wrong.append(f"metric {key}: {_twice(points)} steps twice, {missing} missing")
        elif key not in TIMED and points != expected:
            wrong.append(f"metric {key}: other values than undisturbed")
    names, expected = ({_stable(name) for name in side["artifacts"]} for side in (fold, whole))
    wrong += [f"artifact {name}: {'is missing' if name in expected else 'is new'}" for name in sorted(names ^ expected)]
    both = [name for name in SAME if name in fold["artifacts"] and name in whole["artifacts"]]
    wrong += [f"{name}: other bytes" for name in both if fold["artifacts"][name] != whole["artifacts"][name]]
    if fold["n_params"] != whole["n_params"]:
        wrong.append(f"{fold['n_params']} parameters, expected {whole['n_params']}")
    return wrong


def unsound(fold: Mapping[str, Any]) -> list[str]:
    """What is wrong with a fold whatever it should be: steps twice, artifacts that are not what was uploaded."""
    wrong = [f"metric {key}: {n} steps twice" for key, points in fold["metrics"].items() if (n := _twice(points))]
    there = {name: digest for name, digest in fold["artifacts"].items() if name != CHECKSUMS}
    if there != fold["expected"] or fold["artifacts"].get(CHECKSUMS) != fold["tag"]:
        wrong.append("the artifacts are not those of checksums.json")
    return wrong


def verdict(wrong: list[str]) -> str:
    """Faults in a cell of a table."""
    return "; ".join(wrong[:4]) + (f"; and {len(wrong) - 4} more" if len(wrong) > 4 else "")


def statuses(found: Mapping[str, Any]) -> str:
    """How many runs came to which end, in words."""
    return ", ".join(f"{n} {status}" for status, n in sorted(Counter(run["status"] for run in found["runs"]).items()))


def _twice(points: list[list[float]]) -> int:
    return len(points) - len({step for step, _ in points})


def _stable(name: str) -> str:
    """An artifact's name without the time and the process that TensorBoard puts into it."""
    return re.sub(r"tfevents\..*", "tfevents", name)
