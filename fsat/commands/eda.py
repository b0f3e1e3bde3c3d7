"""Command `eda`: exploratory data analysis."""

from __future__ import annotations

import tempfile
from pathlib import Path

from fsat.data.manifest import read_manifest
from fsat.data.source import Source
from fsat.errors import count
from fsat.progress import say
from fsat.reports import run_descriptions
from fsat.reports.eda import PAGE, write_eda
from fsat.text import dataset_name
from fsat.tracking import descriptions, runs


def eda(source: Source) -> str:
    """Log figures and tables of a dataset, and ``eda.html``, a page of all of them.

    Returns:
        the run's id.
    """
    with runs.tracked("eda", f"eda of {dataset_name(source.data_dir)}") as run_id:
        manifest = read_manifest(source.data_dir, source.on_bad_clip)
        for warning in manifest.warnings:
            say(f"warning: {warning}")
        runs.log_dataset(manifest)
        with tempfile.TemporaryDirectory(prefix="fsat-") as name:
            facts, problems = write_eda(manifest, Path(name))
            runs.log_folder(Path(name))
        runs.log_metrics(facts)
        for problem in problems:
            say(f"warning: {problem}")
        descriptions.describe(lambda run_link: run_descriptions.eda(source.data_dir, facts, run_link))
        say(
            f"eda: run {run_id}: {count(facts['n_train'], 'training clip')} ({facts['n_verified']} verified by hand) "
            f"of {count(facts['n_classes'], 'class')}, {facts['fewest_clips']} to {facts['most_clips']} a class, "
            f"{facts['shortest_seconds']:.2f} to {facts['longest_seconds']:.2f} s, "
            f"{facts['train_seconds'] / 60:.1f} min in all; {count(facts['n_test'], 'test clip')}"
        )
        say(f"eda: {PAGE} shows it in words, figures and sounds: {descriptions.how_to_open(run_id, PAGE)}")
        return run_id
