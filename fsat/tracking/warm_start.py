"""Warm starts: the fold runs that ``init_from`` stands for, and which clips of a dataset have trained them.

A tagger has one or more members with the model's name. All folds start from the first of them; but if clips of the
dataset have trained it, and its study has the same folds, each fold starts from the member of the same fold, which has
not seen the clips that the fold is scored on.
"""

from __future__ import annotations

import json
import os
import tempfile
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import mlflow
import numpy as np

from fsat.config import Config
from fsat.data.dataset import Dataset, Start
from fsat.errors import RunError, count
from fsat.tracking.client import TAG, Refused, ServerUnreachable, address, call, search_runs
from fsat.tracking.fold_artifacts import CLIPS, LABELS, WEIGHTS, Member, download, has_trained, is_test
from fsat.tracking.model_uri import pinned
from fsat.tracking.ownership import STAGE
from fsat.tracking.registry import run_of
from fsat.tracking.runs import get_run
from fsat.tracking.select_runs import FoldRun, by_run_ids, finished_folds, newest_per_fold

MEMBERS, ENSEMBLE, MAIN = "members.json", "ensemble", "main"
"""Artifact with the ids of an ensemble's fold runs; stages of runs that have it, or have such a run nested in them."""

MOST_FOLDS = 100
"""Maximum number of folds that start from a run each: tags have no room for more ids."""

EXPECTED = f"expected a FINISHED run of {STAGE}, {ENSEMBLE} or {MAIN}"


@dataclass(frozen=True)
class EarlierRuns:
    """Fold runs of one model to start from.

    Attributes:
        chosen: the run to start from, or one for each fold.
        study: the ensemble's members of the same study; empty if the run was given by its id.
        tagger: ``models:/NAME/VERSION`` if it was given so, else empty.
    """

    chosen: list[FoldRun]
    study: list[FoldRun]
    tagger: str = ""


def find_earlier(config: Config) -> EarlierRuns:
    """Return the runs that `config.init_from` stands for now; it must not be ``none``.

    Raises `RunError` if runs or artifacts are missing, are not FINISHED, or are of other models.
    """
    option, ids = f"init_from={config.init_from}", config.init_runs
    tagger = "" if ids else pinned(config.init_from)
    ensemble = _ensemble_run(_run_of(tagger, option) if tagger else ids[0], option) if len(ids) < 2 else None
    records = by_run_ids(_members(ensemble, option) if ensemble else ids, option)
    fitting = [record for record in records if record.config.model == config.model]
    if not fitting or (ids and not ensemble and len(fitting) < len(records)):
        models = " and ".join(dict.fromkeys(record.config.model for record in records if record not in fitting))
        advice = f"name a tagger or a run of {config.model}, or train model={models.partition(' ')[0]}"
        raise RunError(f"{option}: it is {models}, not {config.model}, whose layers are others; {advice}")
    if not ensemble:
        return EarlierRuns(fitting, [])
    return EarlierRuns(fitting[:1], [record for record in fitting if record.study == fitting[0].study], tagger)


def choose_start(earlier: EarlierRuns, dataset: Dataset) -> Start:
    """Return what the folds of a dataset start from.

    Raises `RunError` if there are not as many runs as folds, or if they have another backbone.
    """
    n_folds, chosen = dataset.config.n_folds, earlier.chosen
    if len(chosen) not in (1, n_folds):
        ids = f"init_from={dataset.config.init_from}: these are {len(chosen)} runs"
        raise RunError(f"{ids}; expected one, or one for each of {n_folds} folds")
    _check_backbones(chosen, dataset.config)
    seen = SeenClips(dataset)
    leak = seen.leak(chosen)
    if leak and len(chosen) == 1 and n_folds <= MOST_FOLDS:
        members = newest_per_fold(earlier.study or [chosen[0], *finished_folds(chosen[0].study)])
        if list(members) == list(range(n_folds)) and not seen.leak(list(members.values())):
            chosen, leak = list(members.values()), ""
    return Start(",".join(record.run_id for record in chosen), earlier.tagger, leak)


def _check_backbones(records: Sequence[FoldRun], config: Config) -> None:
    for earlier in [record.config for record in records] if config.use_embedding else []:
        if earlier.backbone_digest != config.backbone_digest:
            fault = f"it has the backbone {earlier.backbone}, not {config.backbone}, whose embeddings are others"
            raise RunError(f"init_from={config.init_from}: {fault}; use backbone={earlier.backbone}, or another tagger")


class SeenClips:
    """Compare the clips of a dataset with those that have trained earlier fold runs.

    Those of the same dataset are in the same order, whatever their names; others are compared by name.
    """

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._names = np.array([_normalised(name) for name in dataset.manifest.train["fname"]], dtype=object)
        self._masks: dict[str, np.ndarray] = {}
        self._unknown: list[str] = []  # earlier runs that are no longer there

    def leak(self, records: Sequence[FoldRun]) -> str:
        """Say how many clips have trained the run that their fold starts from; empty if there are none.

        `records` are one for all folds, or one for each.
        """
        seen, folds, digest = np.zeros(len(self._names), dtype=bool), self._dataset.folds, self._dataset.manifest.digest
        for fold in range(self._dataset.config.n_folds):
            own = folds == fold
            seen[own] = self._mask(records[fold if len(records) > 1 else 0])[own]
        if self._unknown:
            return f"an unknown number of clips: run {self._unknown[0]}, which trained the model first, cannot be read"
        if not seen.any():
            return ""
        certainty = "" if {record.dataset for record in records} == {digest} else ", by their names,"
        used = f"used{certainty} to train the model that it starts from"
        return f"{seen.sum()} of {count(len(seen), 'clip')}: {used}"

    def _mask(self, record: FoldRun) -> np.ndarray:
        """Return bool (n_train,): clips that have trained a run, or one that it started from in turn."""
        if record.run_id not in self._masks:
            with tempfile.TemporaryDirectory(prefix="fsat-") as folder:
                clips = download(record, Path(folder), [CLIPS]).clips
            clips = clips[~is_test(clips)]
            mask = has_trained(clips).to_numpy()
            if record.dataset != self._dataset.manifest.digest or len(mask) != len(self._names):
                names = {_normalised(name) for name in clips["fname"][mask]}
                mask = np.array([name in names for name in self._names])
            self._masks[record.run_id] = mask
            if before := record.config.init_run(record.fold):
                try:
                    self._masks[record.run_id] = mask | self._mask(*by_run_ids([before]))
                except ServerUnreachable:
                    raise
                except RunError:
                    self._unknown.append(before)
        return self._masks[record.run_id]


def fetch_weights(run_id: str, folder: Path) -> Member:
    """Download label order and weights of a fold run to start from; raise `RunError` if they are missing or changed."""
    (record,) = by_run_ids([run_id], f"init_from={run_id}")
    return download(record, folder, [LABELS, WEIGHTS])


def _run_of(tagger: str, option: str) -> str:
    """Return the id of the run that registered a tagger."""
    try:
        run_id = run_of(tagger)
    except Refused as error:
        cause = " ".join(str(error.__cause__).split())[:200]
        advice = f"name a version that the MLflow UI shows, or a run: {EXPECTED}"
        raise RunError(f"{option}: no such tagger on {address()} ({cause}); {advice}") from error
    if not run_id:
        raise RunError(f"{option}: no run has registered it; expected a tagger of fsat, or {EXPECTED}")
    return run_id


def _ensemble_run(run_id: str, option: str) -> str:
    """Return the id of the run of ``ensemble`` that an id stands for; empty for that of a fold run."""
    run = get_run(run_id, f"{option}: no run {run_id} on {address()}; {EXPECTED}")
    stage = run.data.tags.get(TAG + "stage", "no fsat stage")
    if stage == STAGE:
        return ""
    if stage not in (ENSEMBLE, MAIN):
        raise RunError(f"{option}: run {run_id} is of stage {stage}; {EXPECTED}")
    state = run.info.status if run.info.lifecycle_stage == "active" else "deleted"
    if state != "FINISHED":
        raise RunError(f"{option}: run {run_id} of {stage} is {state}; {EXPECTED}: run {stage} again")
    if stage == ENSEMBLE:
        return run_id
    query = f"tags.`mlflow.parentRunId` = '{run_id}' and tags.`{TAG}stage` = '{ENSEMBLE}'"
    nested = search_runs(f"{query} and attributes.status = 'FINISHED'", run.info.experiment_id)
    if not nested:
        raise RunError(
            f"{option}: the ensemble of run {run_id} of {MAIN} was deleted; name a registered tagger instead"
        )
    return nested[0].info.run_id


def _members(run_id: str, option: str) -> list[str]:
    """Return the ids of the fold runs that an ensemble blends."""
    try:
        text = call(lambda: mlflow.artifacts.load_text(f"runs:/{run_id}/{MEMBERS}"))
        return [str(member) for member in json.loads(text)]
    except (Refused, ValueError) as error:
        reason = " ".join(str(error.__cause__ or error).split())[:200]
        advice = "name one of its fold runs instead"
        raise RunError(f"{option}: {MEMBERS} of run {run_id} cannot be fetched ({reason}); {advice}") from error


def _normalised(name: str) -> str:
    return unicodedata.normalize("NFC", os.path.normpath(name))
