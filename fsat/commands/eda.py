"""Entry point `eda`: a look at the data."""

from __future__ import annotations

import tempfile
from pathlib import Path

from fsat.data.manifest import read_manifest
from fsat.data.source import Source
from fsat.progress import say
from fsat.reports import run_descriptions
from fsat.reports.eda import PAGE, write_eda
from fsat.text import dataset_name
from fsat.tracking import descriptions, runs


def eda(source: Source) -> str:
    """Log the notebook's figures of a dataset, the tables behind them, and a page with all of it, ``eda.html``.

    Returns:
        the run's id.
    """
    with runs.tracked("eda", f"eda of {dataset_name(source.data_dir)}") as run_id:
        manifest = read_manifest(source.data_dir, source.on_bad_clip)
        for warning in manifest.warnings:
            say(f"warning: {warning}")
        runs.log_dataset(manifest)
        with tempfile.TemporaryDirectory(prefix="fsat-") as name:
            facts, unread = write_eda(manifest, Path(name))
            runs.log_folder(Path(name))
        runs.log_metrics(facts)
        for problem in unread:
            say(f"warning: {problem}")
        descriptions.describe(lambda here: run_descriptions.eda(source.data_dir, facts, here))
        say(
            f"eda: run {run_id}: {facts['n_train']} training clips ({facts['n_verified']} verified by hand) of "
            f"{facts['n_classes']} classes, {facts['fewest_clips']} to {facts['most_clips']} a class, "
            f"{facts['shortest_seconds']:.2f} to {facts['longest_seconds']:.2f} s, "
            f"{facts['train_seconds'] / 60:.1f} min in all; {facts['n_test']} test clips"
        )
        say(f"eda: {PAGE} shows it in words, figures and sounds: {descriptions.how_to_open(run_id, PAGE)}")
        return run_id
