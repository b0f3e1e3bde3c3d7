"""Backbones on the tracking server: each is stored once, by a run of its own, whatever the number of studies.

The run has the tags ``fsat.stage=backbone`` and ``fsat.backbone=NAME@DIGEST``; its artifacts are the descriptor and the
network. Its SHA-256 is checked whenever the network is opened.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import mlflow
from mlflow.entities import Run

from fsat.backbones.descriptor import Backbone, copy_backbone, read_backbone
from fsat.backbones.library import keep
from fsat.errors import ConfigError, RunError
from fsat.progress import say
from fsat.tracking.client import TAG, Refused, address, call, search_runs
from fsat.tracking.runs import experiment_id

STAGE, FOLDER = "backbone", "backbone"


def store_backbone(backbone: Backbone) -> str:
    """Upload a backbone to the experiment of the open run, unless it is there; return the id of the run that has it."""
    if (run := _find(backbone.digest)) is not None:
        return run.info.run_id
    client = mlflow.MlflowClient()
    tags = {TAG + "stage": STAGE, TAG + "backbone": backbone.ref, TAG + "backbone_digest": backbone.digest}
    name = f"backbone {backbone.name}"
    run_id = call(lambda: client.create_run(experiment_id(), tags=tags, run_name=name)).info.run_id
    status = "FAILED"
    try:
        with tempfile.TemporaryDirectory(prefix="fsat-") as folder:
            copy_backbone(backbone, Path(folder))
            call(lambda: client.log_artifacts(run_id, folder, FOLDER))
        for key in ("source", "license", "sha256", "format"):
            call(partial(client.set_tag, run_id, TAG + key, getattr(backbone, key) or "unknown"))
        status = "FINISHED"
    finally:
        call(partial(client.set_terminated, run_id, status))
    say(f"backbone {backbone.name}: stored on the tracking server in run {run_id}")
    return run_id


def fetch_backbone(ref: str) -> Backbone:
    """Return a backbone ``NAME@DIGEST`` from the tracking server, copied to the cache folder.

    Raises `RunError` if no run has it.
    """
    digest = ref.rpartition("@")[2]
    advice = "give -P backbone=FILE.json, or train a fold with it, which stores it there"
    if (run := _find(digest, everywhere=True)) is None:
        raise RunError(f"backbone={ref}: neither in the cache folder nor in a run on {address()}; {advice}")
    with tempfile.TemporaryDirectory(prefix="fsat-") as folder:
        fetch = partial(mlflow.artifacts.download_artifacts, run_id=run.info.run_id, artifact_path=FOLDER)
        try:
            backbone = read_backbone(call(partial(fetch, dst_path=folder)))
            if backbone.digest != digest:
                raise ConfigError(f"its digest is {backbone.digest}")
            return keep(backbone)
        except (Refused, ConfigError) as error:
            fault = f"cannot be used as run {run.info.run_id} has it ({error})"
            raise RunError(f"backbone={ref}: {fault}; delete that run, and {advice}") from error


def _find(digest: str, everywhere: bool = False) -> Run | None:
    """Return the newest FINISHED run that has a backbone: of this experiment, or of any that can be read."""
    query = f"tags.`{TAG}stage` = '{STAGE}' and tags.`{TAG}backbone_digest` = '{digest}'"
    query += " and attributes.status = 'FINISHED'"
    found = search_runs(query, max_results=1)
    if everywhere and not found:
        search = partial(mlflow.search_runs, search_all_experiments=True, filter_string=query, output_format="list")
        found = call(partial(search, max_results=1))
    return found[0] if found else None
