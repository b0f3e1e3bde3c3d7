"""Command `eda`: a look at the data."""

from __future__ import annotations

import tempfile
from pathlib import Path

from fsat.commands.backbones import embedding_config, opener
from fsat.data.dataset import Source, inspect_dataset, warning_lines
from fsat.data.manifest import Manifest
from fsat.data.near_duplicates import NearDuplicates, find_near_duplicates
from fsat.errors import count
from fsat.options import NEAR_DUPLICATE
from fsat.progress import say, say_once
from fsat.reports import run_descriptions
from fsat.reports.eda_page import PAGE, write_eda
from fsat.reports.eda_text import describe_near_duplicates
from fsat.text import dataset_name
from fsat.tracking import mlflow_ui, runs


def eda(source: Source, backbone: str | None = None, near_duplicate: float = NEAR_DUPLICATE) -> str:
    """Log the figures and tables of a dataset, and a page with all of them, ``eda.html``; return the run's id.

    With a `backbone`, as for `fsat.commands.backbones.find_backbone`, the page has the pairs of clips whose mean
    embeddings have a cosine of at least `near_duplicate`.
    """
    with runs.tracked("eda", f"eda of {dataset_name(source.data_dir)}") as run_id:
        manifest = inspect_dataset(source.data_dir, source.on_bad_clip, source.layout, say_once)
        for line in warning_lines(manifest):
            say(line)
        runs.log_dataset(manifest)
        near = _near_duplicates(manifest, backbone, near_duplicate) if backbone else None
        with tempfile.TemporaryDirectory(prefix="fsat-") as name:
            metrics, unreadable = write_eda(manifest, Path(name), near)
            runs.log_folder(Path(name))
        runs.log_metrics(metrics)
        for problem in unreadable:
            say(f"warning: {problem}")
        if near:
            say(f"{'warning: ' if near.n_findings else ''}eda: {describe_near_duplicates(near)}")
        mlflow_ui.describe(lambda link: run_descriptions.eda(source.data_dir, metrics, link))
        n_train, n_classes, n_test = (int(metrics[f"n_{name}"]) for name in ("train", "classes", "test"))
        clips = f"{count(n_train, 'training clip')} ({metrics['n_verified']} verified by hand)"
        classes = f"{count(n_classes, 'class')}, {metrics['fewest_clips']} to {metrics['most_clips']} per class"
        if "n_none" in metrics:
            classes += f", {metrics['n_none']} without a label, {metrics['n_several']} with several"
        lengths = f"{metrics['shortest_seconds']:.2f} to {metrics['longest_seconds']:.2f} s"
        total = f"{metrics['train_seconds'] / 60:.1f} min in total"
        say(f"eda: run {run_id}: {clips} of {classes}, {lengths}, {total}; {count(n_test, 'test clip')}")
        say(f"eda: {PAGE} shows it in text, figures and sounds: {mlflow_ui.how_to_open(run_id, PAGE)}")
        return run_id


def _near_duplicates(manifest: Manifest, backbone: str, threshold: float) -> NearDuplicates:
    config, found = embedding_config(backbone)
    runs.log_params({"backbone": config.backbone, "near_duplicate": threshold})
    return find_near_duplicates(manifest, config, opener(found), threshold)
