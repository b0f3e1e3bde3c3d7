"""Labels that a run of `verify` has logged, found by the run's id."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import partial

import mlflow
import pandas as pd

from fsat.errors import RunError
from fsat.tracking.client import TAG, Refused, address, call
from fsat.tracking.runs import get_run

STAGE = "verify"
TABLE = "labels.csv"
COLUMNS = ("fname", "label", "new_label", "score", "decision")


@dataclass(frozen=True)
class VerifiedLabels:
    """The decisions of a run of `verify` on the dataset with this digest."""

    run_id: str
    dataset: str
    new_labels: dict[str, str]  # by clip that was accepted, relabelled or dropped; empty for a dropped clip
    certainty: dict[str, float]  # by clip, the probability of that decision


def round_of(run_id: str) -> int:
    """Return the round of a run of `verify`, from 1: one more than that of the labels trained on; raise `RunError`."""
    missing = f"run {run_id} of verify, whose labels a study was trained on, is not on {address()}"
    unknown = f"{missing}, so the round is unknown; name only studies without labels_run_id"
    return int(get_run(run_id, unknown).data.tags.get(TAG + "round", 1))


def fetch_labels(run_id: str) -> VerifiedLabels:
    """Return the labels of a FINISHED run of `verify`; raise `RunError` if it is not one, or its table is missing."""
    name = f"labels_run_id={run_id}"
    run = get_run(run_id, f"{name}: no such run on {address()}; expected the id that verify prints at its end")
    stage = run.data.tags.get(TAG + "stage", "no fsat stage")
    if stage != STAGE:
        raise RunError(f"{name}: the run is of stage {stage}; expected a run of verify")
    state = run.info.status if run.info.lifecycle_stage == "active" else "deleted"
    if state != "FINISHED":
        raise RunError(f"{name}: the run is {state}; expected a FINISHED one: run verify again")
    with tempfile.TemporaryDirectory(prefix="fsat-") as folder:
        try:
            fetch = partial(mlflow.artifacts.download_artifacts, run_id=run_id, artifact_path=TABLE, dst_path=folder)
            table = pd.read_csv(call(fetch), dtype=str, keep_default_na=False, usecols=list(COLUMNS))
            decided = table[table["decision"].isin(["accept", "relabel", "drop"])]
            certainty = dict(zip(decided["fname"], decided["score"].astype(float), strict=True))
        except (Refused, OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise RunError(f"{name}: {TABLE} cannot be fetched ({reason}); run verify again") from error
    new_labels = dict(zip(decided["fname"], decided["new_label"], strict=True))
    return VerifiedLabels(run_id, run.data.tags.get(TAG + "dataset", ""), new_labels, certainty)
