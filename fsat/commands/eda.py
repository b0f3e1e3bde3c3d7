"""Command `eda`: a look at the data."""

from __future__ import annotations

import tempfile
from pathlib import Path

from fsat.data.dataset import Source, inspect_dataset, warning_lines
from fsat.errors import count
from fsat.progress import say
from fsat.reports import run_descriptions
from fsat.reports.eda_page import PAGE, write_eda
from fsat.text import dataset_name
from fsat.tracking import mlflow_ui, runs


def eda(source: Source) -> str:
    """Log the figures and tables of a dataset, and a page with all of them, ``eda.html``; return the run's id."""
    with runs.tracked("eda", f"eda of {dataset_name(source.data_dir)}") as run_id:
        manifest = inspect_dataset(source.data_dir, source.on_bad_clip)
        for line in warning_lines(manifest):
            say(line)
        runs.log_dataset(manifest)
        with tempfile.TemporaryDirectory(prefix="fsat-") as name:
            metrics, unreadable = write_eda(manifest, Path(name))
            runs.log_folder(Path(name))
        runs.log_metrics(metrics)
        for problem in unreadable:
            say(f"warning: {problem}")
        mlflow_ui.describe(lambda link: run_descriptions.eda(source.data_dir, metrics, link))
        n_train, n_classes, n_test = (int(metrics[f"n_{name}"]) for name in ("train", "classes", "test"))
        clips = f"{count(n_train, 'training clip')} ({metrics['n_verified']} verified by hand)"
        classes = f"{count(n_classes, 'class')}, {metrics['fewest_clips']} to {metrics['most_clips']} per class"
        lengths = f"{metrics['shortest_seconds']:.2f} to {metrics['longest_seconds']:.2f} s"
        total = f"{metrics['train_seconds'] / 60:.1f} min in total"
        say(f"eda: run {run_id}: {clips} of {classes}, {lengths}, {total}; {count(n_test, 'test clip')}")
        say(f"eda: {PAGE} shows it in text, figures and sounds: {mlflow_ui.how_to_open(run_id, PAGE)}")
        return run_id
