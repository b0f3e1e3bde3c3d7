"""Runs on the tracking server: fold runs by run id, by study, or of the newest complete study; labels of `verify`."""

from __future__ import annotations

import json
import shlex
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from itertools import pairwise

import mlflow
import pandas as pd
from mlflow.entities import Run

from fsat.config import Config
from fsat.errors import ConfigError, RunError
from fsat.layout_options import LayoutOptions
from fsat.progress import say
from fsat.study import RECIPE
from fsat.text import dataset_name
from fsat.tracking.client import TAG, Refused, address, call, search_runs
from fsat.tracking.ownership import STAGE
from fsat.tracking.runs import get_run

INIT_FROM, INIT_FOLDS, INIT_TAGGER = "init_from", "init_folds", "init_tagger"
"""Tags of runs that start from an earlier tagger: the fold run whose weights a fold starts from; if each fold starts
from another one, the setting ``init_from`` of the study; and the version of the tagger, if it was named."""

NEW_LAYERS = "new_layers"
"""Tag of fold runs that start from an earlier tagger: their layers with new weights."""


@dataclass(frozen=True)
class FoldRun:
    """MLflow's record of a fold run, with the Config of its parameters, and what its tags and metrics say."""

    run: Run
    config: Config
    study: str
    fold: int  # from 0
    dataset: str  # digest
    data_dir: str  # when the fold was trained
    minutes: float  # of training, in all sittings

    @property
    def run_id(self) -> str:
        """MLflow's id of the run."""
        return self.run.info.run_id

    @property
    def leak(self) -> str:
        """Which clips make the study's scores too high, as `Dataset.leak`; may be empty."""
        return self.run.data.tags.get(TAG + "leak", "")

    @property
    def layout(self) -> LayoutOptions:
        """The options that the data folder was read with."""
        return LayoutOptions(**json.loads(self.run.data.tags.get(TAG + "layout", "{}")))


Studies = dict[str, list[FoldRun]]
"""Fold runs by study, each study's in the order of folds."""


def finished_folds(study: str | None = None) -> list[FoldRun]:
    """Return the FINISHED fold runs of the experiment, or of one study in it, newest first."""
    query = f"tags.`{TAG}stage` = '{STAGE}' and attributes.status = 'FINISHED'"
    if study is not None:
        query += f" and tags.`{TAG}study` = '{study}'"
    records = map(_record, search_runs(query, order_by=["attributes.end_time DESC"]))
    return [record for record in records if record is not None]


def newest_per_fold(records: Sequence[FoldRun]) -> dict[int, FoldRun]:
    """Return the newest run of each fold, by fold; `records` come newest first."""
    by_fold: dict[int, FoldRun] = {}
    for record in records:
        by_fold.setdefault(record.fold, record)
    return dict(sorted(by_fold.items()))


def by_run_ids(run_ids: Sequence[str], option: str = "run_ids") -> list[FoldRun]:
    """Return the fold runs with these ids, given by an option.

    Raises `RunError` if one is unknown, or not that of a FINISHED fold run.
    """
    records = []
    for run_id in map(str.lower, run_ids):
        advice = "expected ids of fold runs, as the MLflow UI and `mlflow runs list` show them"
        run = get_run(run_id, f"{option}: no run {run_id} on {address()}; {advice}")
        stage, status = run.data.tags.get(TAG + "stage", "no fsat stage"), run.info.status
        if run.info.lifecycle_stage != "active":
            raise RunError(
                f"{option}: run {run_id} is deleted; restore it with `mlflow runs restore --run-id {run_id}`"
            )
        if stage != STAGE:
            raise RunError(f"{option}: run {run_id} is of stage {stage}; expected fold runs ({STAGE})")
        if status != "FINISHED":
            fold = run.data.tags.get(TAG + "fold", "?")
            raise RunError(f"{option}: run {run_id} is {status}; expected FINISHED runs: train fold {fold} again")
        if (record := _record(run)) is None:
            raise RunError(f"{option}: run {run_id} was made by another version of fsat; train its fold again")
        records.append(record)
    return records


def _record(run: Run) -> FoldRun | None:
    """Return the run as a fold run; None if its parameters or its recipe are those of another version."""
    params, tags = run.data.params, run.data.tags
    if tags.get(TAG + "recipe") != str(RECIPE):
        return None
    try:
        # a parameter may say auto, as typed for `mlflow run`; the tag has the value that was used
        settled = {name: tags[TAG + name] for name in ("task", "folds", "precision", "backbone")}
        settled["init_from"] = tags.get(TAG + INIT_FOLDS) or tags.get(TAG + INIT_FROM, "none")
        config = Config.from_mapping({spec.name: params[spec.name] for spec in fields(Config)} | settled)
        study, fold, dataset, data_dir = (tags[TAG + name] for name in ("study", "fold", "dataset", "data_dir"))
        return FoldRun(run, config, study, int(fold), dataset, data_dir, run.data.metrics["train_seconds"] / 60)
    except (KeyError, ConfigError):
        return None


def choose(run_ids: Sequence[str], studies: Sequence[str], allow_incomplete: bool | None) -> Studies:
    """Return the selected fold runs, by study; raise `RunError` if runs or folds are missing, or are not FINISHED.

    Folds may be missing if `allow_incomplete`; None is for commands without that option.
    """
    if run_ids and studies:
        raise RunError("run_ids and studies are both given; expected one of them")
    if run_ids:
        chosen = _by_study(by_run_ids(list(dict.fromkeys(run_ids))))
    elif studies:
        chosen = {study: _newest(study) for study in dict.fromkeys(studies)}
    else:
        return _newest_complete(allow_incomplete)
    for records in chosen.values():
        if missing_folds(records) and not allow_incomplete:
            raise RunError(_describe_missing(records, allow_incomplete is not None))
    return chosen


def missing_folds(records: Sequence[FoldRun]) -> list[int]:
    """Return the folds of a study that have no run among `records`."""
    return sorted(set(range(records[0].config.n_folds)) - {record.fold for record in records})


def _describe_missing(records: Sequence[FoldRun], optional: bool) -> str:
    """Return in one line which folds a study lacks, and the commands that help; `optional`: one allows it."""
    first = records[0]
    options = {"data_dir": first.data_dir, **first.layout.given, **first.config.options()}
    if options.get("folds") == "column":
        options.pop("n_folds", None)  # the column says how many
    if first.run.data.tags.get(TAG + "on_bad_clip") == "exclude":
        options["on_bad_clip"] = "exclude"
    arguments = " ".join(f"-P {name}={shlex.quote(str(value))}" for name, value in options.items())
    return (
        f"study {first.study} ({first.config.model}) lacks {_folds_missing(records)}; train what is missing with "
        f"`mlflow run . -e cross_validate {arguments}`"
        + (", or blend the others with -P allow_incomplete=true" if optional else "")
    )


def _folds_missing(records: Sequence[FoldRun]) -> str:
    missing = missing_folds(records)
    return f"fold{'s' if len(missing) > 1 else ''} {', '.join(map(str, missing))} of {records[0].config.n_folds}"


def _grouped(records: Sequence[FoldRun]) -> Studies:
    grouped: Studies = {}
    for record in records:
        grouped.setdefault(record.study, []).append(record)
    return grouped


def _by_study(records: Sequence[FoldRun]) -> Studies:
    chosen = _grouped(records)
    for study, members in chosen.items():
        members.sort(key=lambda record: record.fold)
        for before, after in pairwise(members):
            if before.fold == after.fold:
                both = f"runs {before.run_id} and {after.run_id} are both fold {after.fold} of study {study}"
                raise RunError(f"run_ids: {both}; expected one run of each fold")
    return chosen


def _newest(study: str) -> list[FoldRun]:
    records = list(newest_per_fold(finished_folds(study) if study.isalnum() else []).values())
    if not records:
        known = dict.fromkeys(f"{record.study} ({record.config.model})" for record in finished_folds())
        names = ", ".join(known) or "none so far"
        where = "FINISHED fold runs of this version of fsat in this experiment"
        raise RunError(f"studies: no study {study} with {where}; expected one of {names}")
    return records


def _newest_complete(allow_incomplete: bool | None) -> Studies:
    newest = {study: list(newest_per_fold(records).values()) for study, records in _grouped(finished_folds()).items()}
    if not newest:
        advice = "train them with `mlflow run . -e cross_validate -P data_dir=DIR`"
        raise RunError(f"this experiment on {address()} has no FINISHED fold runs of this version of fsat; {advice}")
    skipped: list[str] = []
    for study, records in newest.items():
        name = f"study {study} ({records[0].config.model} on {dataset_name(records[0].data_dir)})"
        if allow_incomplete or not missing_folds(records):
            if skipped:
                say(f"{name} is the newest study with all of its folds; {'; '.join(skipped)}")
            return {study: records}
        skipped.append(f"newer is {name}, which lacks {_folds_missing(records)}")
    raise RunError(_describe_missing(next(iter(newest.values())), allow_incomplete is not None))


VERIFY_STAGE = "verify"
LABELS_TABLE, CLASSES_TABLE = "labels.csv", "classes.csv"
LABELS_COLUMNS = ("fname", "label", "new_label", "score", "decision")
MULTILABEL_COLUMNS = ("fname", "label", "given", "score", "decision")
"""Columns of the table of decisions, and of that for clips with any number of labels."""

CHANGES = ("accept", "relabel", "drop")
MULTILABEL_CHANGES = ("accept", "add", "remove", "drop", "keep")
"""Decisions that training depends on."""


@dataclass(frozen=True)
class VerifiedLabels:
    """The decisions of a run of `verify` on the dataset with this digest.

    `fnames` has all training clips, in the order of `Manifest.in_canonical_order`: another layout of the same dataset
    may have other names for them, or the same names for others.

    Attributes:
        new_labels: by clip that was accepted, relabelled or dropped, its label; empty for a dropped clip.
        certainty: by clip, the probability of that decision.
        pairs: for clips with any number of labels, the decisions of labels and clips instead: ``clip`` (its place in
            `fnames`), ``label``, ``score`` and ``decision``. All other labels of unverified clips are absent for sure.
    """

    run_id: str
    dataset: str
    fnames: list[str]
    new_labels: dict[str, str]
    certainty: dict[str, float]
    pairs: pd.DataFrame | None = None


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
    if stage != VERIFY_STAGE:
        raise RunError(f"{name}: the run is of stage {stage}; expected a run of verify")
    state = run.info.status if run.info.lifecycle_stage == "active" else "deleted"
    if state != "FINISHED":
        raise RunError(f"{name}: the run is {state}; expected a FINISHED one: run verify again")
    is_multi = run.data.tags.get(TAG + "task", "single") == "multi"
    columns, changes = (MULTILABEL_COLUMNS, MULTILABEL_CHANGES) if is_multi else (LABELS_COLUMNS, CHANGES)
    with tempfile.TemporaryDirectory(prefix="fsat-") as folder:
        try:
            fetch = partial(mlflow.artifacts.download_artifacts, run_id=run_id, artifact_path=LABELS_TABLE)
            path = call(partial(fetch, dst_path=folder))
            table = pd.read_csv(path, dtype=str, keep_default_na=False, usecols=list(columns)).astype({"score": float})
        except (Refused, OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise RunError(f"{name}: {LABELS_TABLE} cannot be fetched ({reason}); run verify again") from error
    dataset, decided = run.data.tags.get(TAG + "dataset", ""), table["decision"].isin(changes)
    if is_multi:
        clips, fnames = pd.factorize(table["fname"])
        pairs = table.assign(clip=clips)[decided & (table["label"] != "")][["clip", "label", "score", "decision"]]
        return VerifiedLabels(run_id, dataset, fnames.tolist(), {}, {}, pairs)
    fnames, table = table["fname"].tolist(), table[decided]
    new_labels = dict(zip(table["fname"], table["new_label"], strict=True))
    return VerifiedLabels(run_id, dataset, fnames, new_labels, dict(zip(table["fname"], table["score"], strict=True)))
