"""Fold runs as an ensemble sees them: found on the tracking server, checked, and downloaded by run id alone.

What grows with the clips is looked at a few rows at a time: arrays are memory maps, and the table of clips is read in
parts, of which a digest is kept.
"""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
from mlflow.entities import Run
from pandas.api.types import union_categoricals

from fsat.config import Config
from fsat.errors import ConfigError, RunError
from fsat.metrics.row_blocks import open_rows
from fsat.tracking.client import UNKNOWN, Refused, address, ask
from fsat.tracking.run_folder import CHECKSUMS, checksums
from fsat.tracking.runs import TAG, experiment_id

STAGE = "train_fold"
PAGE = 1000

CLIPS_AT_ONCE = 50_000
"""Lines of a table of clips that are read at once."""


PARTS = (
    "labels.json", "weights/best.weights.h5", "predictions/train.npy", "predictions/test.npy", "predictions/clips.csv",
)  # fmt: skip
"""What an ensemble needs of each fold run."""

SHARED = ("fname", "label", "manually_verified")
"""Columns of the table of clips that all members of an ensemble share."""

FEW = ("split", "label", "manually_verified")
"""Columns of the table of clips with few different values."""


@dataclass(frozen=True)
class FoldRun:
    """What the server's records say of one fold run.

    Attributes:
        run: MLflow's record.
        config: read back from the run's parameters.
    """

    run: Run
    config: Config

    @property
    def run_id(self) -> str:
        """MLflow's id of the run."""
        return self.run.info.run_id

    @property
    def study(self) -> str:
        """The study's id."""
        return self.run.data.tags[TAG + "study"]

    @property
    def fold(self) -> int:
        """Number of the fold, from 0."""
        return int(self.run.data.tags[TAG + "fold"])

    @property
    def dataset(self) -> str:
        """The dataset's digest."""
        return self.run.data.tags[TAG + "dataset"]

    @property
    def data_dir(self) -> str:
        """Where the dataset lay when the fold was trained."""
        return self.run.data.tags.get(TAG + "data_dir", "DIR")

    @property
    def minutes(self) -> float:
        """How long the run took; of one that was interrupted, all sittings together."""
        if "train_seconds" in self.run.data.metrics:
            return self.run.data.metrics["train_seconds"] / 60
        return (self.run.info.end_time - self.run.info.start_time) / 60000


@dataclass(frozen=True)
class ClipFacts:
    """What an ensemble must know of a member's table of clips, without the table.

    Attributes:
        n_train, n_test: how many clips.
        train, test: digests of the clips' names, labels and verification, in order.
        held_out: bool (n_train,), true for the clips that the member did not train on.
    """

    n_train: int
    n_test: int
    train: str
    test: str
    held_out: np.ndarray


@dataclass(frozen=True)
class Member:
    """A fold run with what it left: arrays float32 (n_clips, n_classes), rows as in `clips`, as memory maps."""

    record: FoldRun
    folder: Path

    @cached_property
    def labels(self) -> list[str]:
        """Label order."""
        return json.loads((self.folder / "labels.json").read_text())

    @cached_property
    def clips(self) -> pd.DataFrame:
        """``fname,split,label,manually_verified``, all but the first categories, in the order of the arrays.

        Categories are texts, also where all of them are digits.
        """
        with pd.read_csv(self._table, dtype=str, keep_default_na=False, chunksize=CLIPS_AT_ONCE) as parts:
            some = [part.astype(dict.fromkeys(FEW, "category")) for part in parts]
        names = pd.concat([part["fname"] for part in some], ignore_index=True)
        few = {name: union_categoricals([part[name] for part in some]) for name in FEW}
        return pd.DataFrame({"fname": names, **few})

    @cached_property
    def facts(self) -> ClipFacts:
        """Counts, digests and held-out clips of the table of clips, read a part at a time."""
        counts, held_out = {True: 0, False: 0}, []
        hashes = {(test, name): hashlib.sha256() for test in counts for name in SHARED}
        with pd.read_csv(self._table, dtype=str, keep_default_na=False, chunksize=CLIPS_AT_ONCE) as parts:
            for part in parts:
                is_test = (part["split"] == "test").to_numpy()
                held_out.append((part["split"] == "val").to_numpy()[~is_test])
                for test in counts:
                    some = part[is_test == test]
                    counts[test] += len(some)
                    for name in SHARED:
                        hashes[test, name].update("\0".join([*some[name].tolist(), ""]).encode())
        train, test = (" ".join(hashes[test, name].hexdigest() for name in SHARED) for test in (False, True))
        return ClipFacts(counts[False], counts[True], train, test, np.concatenate([np.empty(0, bool), *held_out]))

    @cached_property
    def train(self) -> np.ndarray:
        """float32 (n_train, n_classes)."""
        return open_rows(self.folder / "predictions" / "train.npy")

    @cached_property
    def test(self) -> np.ndarray:
        """float32 (n_test, n_classes)."""
        return open_rows(self.folder / "predictions" / "test.npy")

    @property
    def held_out(self) -> np.ndarray:
        """Bool (n_train,)."""
        return self.facts.held_out

    @property
    def _table(self) -> Path:
        return self.folder / "predictions" / "clips.csv"

    @property
    def weights(self) -> Path:
        """The file of the best weights."""
        return self.folder / "weights" / "best.weights.h5"


def finished_folds(study: str | None = None) -> list[FoldRun]:
    """FINISHED fold runs of the experiment, newest first; of one study if it is given."""
    wanted = f"tags.`{TAG}stage` = '{STAGE}' and attributes.status = 'FINISHED'"
    if study is not None:
        wanted += f" and tags.`{TAG}study` = '{study}'"
    where, client = [experiment_id()], mlflow.MlflowClient()
    runs, token = [], None
    while True:
        search = partial(client.search_runs, where, wanted, max_results=PAGE, order_by=["attributes.end_time DESC"])
        page = ask(partial(search, page_token=token))
        runs += page
        token = page.token
        if not token:
            break
    return [record for record in map(_record, runs) if record is not None]


def newest_per_fold(records: Sequence[FoldRun]) -> dict[int, FoldRun]:
    """The newest of each fold's runs, by fold; `records` come newest first."""
    by_fold: dict[int, FoldRun] = {}
    for record in records:
        by_fold.setdefault(record.fold, record)
    return dict(sorted(by_fold.items()))


def get_run(run_id: str, unknown: str) -> Run:
    """MLflow's record of a run; raises `RunError` with the message `unknown` where there is none of that id."""
    try:
        return ask(lambda: mlflow.MlflowClient().get_run(run_id))
    except Refused as error:
        if error.code not in UNKNOWN:
            raise
        raise RunError(unknown) from error


def by_run_ids(run_ids: Sequence[str]) -> list[FoldRun]:
    """The fold runs with these ids.

    Raises:
        RunError: an id is unknown, or is not a FINISHED fold run.
    """
    records = []
    for run_id in run_ids:
        run_id = run_id.lower()
        run = get_run(
            run_id,
            f"run_ids: no run {run_id} on {address()}; expected ids of fold runs, as the MLflow UI and "
            "`mlflow runs list` show them",
        )
        if run.info.lifecycle_stage != "active":
            raise RunError(f"run_ids: run {run_id} is deleted; restore it with `mlflow runs restore --run-id {run_id}`")
        stage = run.data.tags.get(TAG + "stage", "no fsat stage")
        if stage != STAGE:
            raise RunError(f"run_ids: run {run_id} is of stage {stage}; expected fold runs (train_fold)")
        if run.info.status != "FINISHED":
            fold = run.data.tags.get(TAG + "fold", "?")
            raise RunError(
                f"run_ids: run {run_id} is {run.info.status}; expected FINISHED runs: train fold {fold} again"
            )
        record = _record(run)
        if record is None:
            raise RunError(f"run_ids: run {run_id} was made by another version of fsat; train its fold again")
        records.append(record)
    return records


def download(record: FoldRun, folder: Path) -> Member:
    """Fetch what a fold run left into a new folder below `folder`.

    Raises:
        RunError: an artifact is missing or cannot be fetched.
    """
    target = folder / record.run_id
    target.mkdir(parents=True)
    digest = record.run.data.tags.get(TAG + "checksums")  # runs of older versions have none
    for name in (*([CHECKSUMS] if digest else []), "labels.json", "weights", "predictions"):
        fetch = partial(mlflow.artifacts.download_artifacts, run_id=record.run_id, artifact_path=name)
        try:
            ask(partial(fetch, dst_path=str(target)))
        except Refused as error:
            if getattr(error.__cause__, "errno", None) == errno.ENOSPC:
                raise
            cause = " ".join(str(error.__cause__).split())[:200]
            raise RunError(f"run {record.run_id}: {name} cannot be fetched ({cause}); {_again(record)}") from error
    for part in PARTS:
        if not (target / part).is_file():
            raise RunError(f"run {record.run_id}: {part} is missing; {_again(record)}")
    if digest:
        _check_sums(record, target, digest)
    return Member(record, target)


def _check_sums(record: FoldRun, folder: Path, digest: str) -> None:
    """Raise `RunError` where a downloaded file is not what the fold left."""
    found = checksums(folder)
    expected = {CHECKSUMS: digest}
    if found[CHECKSUMS] == digest:
        expected |= json.loads((folder / CHECKSUMS).read_text())
    for part in (CHECKSUMS, *PARTS):
        if found[part] != expected[part]:
            raise RunError(
                f"run {record.run_id}: {part} is not as it was logged (its SHA-256 begins with {found[part][:8]}, "
                f"expected {expected[part][:8]}): it was cut or altered; {_again(record)}"
            )


def _again(record: FoldRun) -> str:
    return f"train fold {record.fold} again (mlflow run . -e train_fold -P fold={record.fold} -P resume=false ...)"


def _record(run: Run) -> FoldRun | None:
    """The run as a fold run, or None where its parameters are another version's."""
    params = run.data.params
    try:
        # the parameters may say auto, as typed for `mlflow run`
        settled = {name: run.data.tags[TAG + name] for name in ("folds", "precision")}
        config = Config.from_mapping({name: params[name] for name in Config().to_dict()} | settled)
    except (KeyError, ConfigError):
        return None
    needed = (TAG + "study", TAG + "fold", TAG + "dataset")
    return FoldRun(run, config) if all(name in run.data.tags for name in needed) else None
