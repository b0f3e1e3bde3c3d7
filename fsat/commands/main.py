"""Command `main`: all steps, on a folder of clips or on generated sounds."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from fsat.commands.blend_members import check_method
from fsat.commands.eda import eda
from fsat.commands.ensemble import ensemble_best
from fsat.commands.estimate import describe_steps
from fsat.commands.predict import Tagged, predict
from fsat.commands.train import DEFAULT_LAUNCH, cross_validate
from fsat.commands.warm_start import with_version
from fsat.config import Config
from fsat.data.audio_files import LeftOut
from fsat.data.dataset import Source
from fsat.data.layouts.recognise import read_layout
from fsat.files import check_writable
from fsat.metrics.task_scores import COLUMN_NAMES, SCORE_NAMES, SCORE_WORDS
from fsat.options import Launch
from fsat.parallel.ray_cluster import check_installed
from fsat.progress import say, say_once
from fsat.reports import run_descriptions
from fsat.tagging.input_files import Input
from fsat.tagging.tables import Tags, check_suffix
from fsat.text import dataset_name
from fsat.tracking import artifact_names, mlflow_ui, runs
from fsat.tracking.registry import check_registration
from fsat.tracking.select_runs import fetch_labels


def main(
    source: Source,
    configs: Sequence[Config],
    register_as: str,
    promote: str,
    output: Path,
    launch: Launch = DEFAULT_LAUNCH,
    blend: str = "geometric",
    calibrate: str = "auto",
) -> str:
    """Look at the data, train every fold of every model, register the best blend, tag the test clips.

    The table `output` has tags of the training clips if the dataset has no test clips. Returns a report in words: the
    scores, the registered version, some tagged clips, and how to open the UI.
    """
    check_writable(output)
    check_suffix(output)
    artifact_names.announce(output)
    check_method(blend)
    check_installed(launch.cluster)
    check_registration(register_as, promote)
    for run_id in {config.labels_run_id for config in configs} - {"none"}:
        fetch_labels(run_id)
    configs = [with_version(config) for config in configs]
    with runs.tracked("main", f"main on {dataset_name(source.data_dir)}"):
        models = [config.model for config in configs]
        link = mlflow_ui.view_link()
        describe = partial(run_descriptions.main, source.data_dir, models, view_link=link)
        mlflow_ui.describe(describe([], ""))
        view = mlflow_ui.share_view(run_descriptions.experiment(link))
        for line in describe_steps(source, configs, warn=False):  # what there is to warn of, eda says
            say_once(line)
        eda(source)
        studies = [cross_validate(source, config, launch) for config in configs]
        result = ensemble_best(studies, register_as, promote, blend, source.data_dir, calibrate)
        files, is_training = _clips_to_tag(source)
        if is_training:
            say(f"{source.data_dir} has no test clips: its training clips are tagged, which the models have seen")
        model = f"models:/{register_as}/{result.registered.version}"
        tags = predict(str(files.root), output, model, cluster=launch.cluster, files=files)
        mlflow_ui.describe(describe(result.candidates.to_dict("records"), result.registered.outcome))
    return _report(result.candidates, result.registered.outcome, tags, output, mlflow_ui.how_to_compare(view))


def _clips_to_tag(source: Source) -> tuple[Input, bool]:
    """Return the test clips, or the training clips where there are none, and whether it is the latter."""
    rows = read_layout(source.data_dir, source.layout).rows
    part = rows.test if rows.test is not None and len(rows.test.table.frame) else rows.train
    names = part.table.frame["fname"].tolist()
    return Input(part.folder.absolute(), iter(names), True, LeftOut()), part is rows.train


def _report(scores: pd.DataFrame, outcome: str, tags: Tagged, output: Path, compare: str) -> str:
    """Return the report that the command prints."""
    first, second = next(names for names in SCORE_NAMES.values() if names[0] in scores)
    names = {"study": "study", "model": "model", first: f"OOF {SCORE_WORDS[first]}",
             COLUMN_NAMES[second]: SCORE_WORDS[second], f"{first}_verified": f"{SCORE_WORDS[first]} verified",
             "minutes": "minutes"}  # fmt: skip
    names |= {"leak": "leak"} if scores["leak"].any() else {}
    names = {name: title for name, title in names.items() if scores[name].notna().any()}
    table = scores[[*names]].rename(columns=names)
    tagged = [row for row in tags.first if isinstance(row, Tags)]
    width = max((len(row.fname) for row in tagged), default=0)
    rows = [f"  {row.fname:<{width}}  {_tags_of(row)}" for row in tagged]
    heading = f"Tags of all clips are in {output}; the first {len(tagged)}:"
    numbers = table.to_string(index=False, float_format=lambda value: f"{value:.4f}")
    return "\n".join(["", numbers, "", outcome, "", heading, *rows, "", compare])


def _tags_of(row: Tags) -> str:
    """Return a clip's labels and scores in words."""
    return ", ".join(f"{label} {score:.6f}" for label, score in zip(row.labels, row.scores, strict=True)) or "no label"
