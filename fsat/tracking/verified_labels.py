"""Tables of labels that `verify` has logged, as a training finds them: by the run's id alone."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import partial

import mlflow
import pandas as pd

from fsat.errors import RunError
from fsat.tracking.client import Refused, address, ask
from fsat.tracking.fold_artifacts import get_run
from fsat.tracking.runs import TAG

STAGE = "verify"
TABLE = "labels.csv"
COLUMNS = ("fname", "label", "new_label", "score", "decision")


@dataclass(frozen=True)
class VerifiedLabels:
    """What a run of `verify` has decided.

    Attributes:
        run_id: of the run.
        dataset: digest of the dataset that it is about.
        new_labels: by clip, of those that something was decided about; empty for a clip to leave out.
        certainty: by clip, of the same ones, how sure that is, in [0, 1].
    """

    run_id: str
    dataset: str
    new_labels: dict[str, str]
    certainty: dict[str, float]


def round_of(run_id: str) -> int:
    """The round of a run of `verify`: 1 for labels by models that trained on the table's, one more each time after.

    Raises:
        RunError: the run is gone; one that is deleted and can be restored is not.
    """
    run = get_run(
        run_id,
        f"run {run_id} of verify, whose labels a study was trained on, is gone from {address()}; "
        "expected to find the number of its round there: name only studies without labels_run_id",
    )
    return int(run.data.tags.get(TAG + "round", 1))


def fetch_labels(run_id: str) -> VerifiedLabels:
    """The labels of a run of `verify`.

    Raises:
        RunError: the id is unknown, or is not that of a FINISHED run of `verify`, or its table cannot be fetched.
    """
    run = get_run(
        run_id,
        f"labels_run_id={run_id}: no such run on {address()}; expected the id of a run of verify, as "
        "it prints at its end",
    )
    stage = run.data.tags.get(TAG + "stage", "no fsat stage")
    if stage != STAGE:
        raise RunError(f"labels_run_id={run_id}: the run is of stage {stage}; expected a run of verify")
    if run.info.status != "FINISHED" or run.info.lifecycle_stage != "active":
        state = run.info.status if run.info.lifecycle_stage == "active" else "deleted"
        raise RunError(f"labels_run_id={run_id}: the run is {state}; expected a FINISHED one: run verify again")
    with tempfile.TemporaryDirectory(prefix="fsat-") as folder:
        try:
            fetch = partial(mlflow.artifacts.download_artifacts, run_id=run_id, artifact_path=TABLE, dst_path=folder)
            path = ask(fetch)
            table = pd.read_csv(path, dtype=str, keep_default_na=False, usecols=list(COLUMNS))
            decided = table[table["decision"].isin(["accept", "relabel", "drop"])]
            certainty = dict(zip(decided["fname"], decided["score"].astype(float), strict=True))
        except (Refused, OSError, ValueError) as error:
            raise RunError(
                f"labels_run_id={run_id}: {TABLE} cannot be fetched ({' '.join(str(error).split())[:200]}); "
                "run verify again"
            ) from error
    new_labels = dict(zip(decided["fname"], decided["new_label"], strict=True))
    return VerifiedLabels(run_id, run.data.tags.get(TAG + "dataset", ""), new_labels, certainty)
