"""Entry point `main`: all of it, on a folder of clips or on generated sounds."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from fsat.commands.blend_members import blend_members, check_method
from fsat.commands.eda import eda
from fsat.commands.ensemble import ensemble
from fsat.commands.predict import Tagged, predict
from fsat.commands.train import USUAL, cross_validate
from fsat.config import Config
from fsat.data.dataset import Source
from fsat.data.manifest import TEST_FOLDERS, TRAIN_FOLDERS
from fsat.files import check_writable
from fsat.options import Launch
from fsat.parallel.ray_connection import check_installed
from fsat.progress import say
from fsat.reports import run_descriptions
from fsat.tagging.inputs import has_clips
from fsat.text import dataset_name
from fsat.tracking import descriptions, runs
from fsat.tracking.fold_artifacts import FoldRun, download
from fsat.tracking.registry import ALIAS
from fsat.tracking.shared_view import link


def main(
    source: Source,
    configs: Sequence[Config],
    register_as: str,
    promote: str,
    output: Path,
    launch: Launch = USUAL,
    blend: str = "geometric",
) -> str:
    """Look at the data, train every fold of every model, register the best blend, tag the test clips.

    Args:
        source: the dataset.
        configs: one a study.
        register_as, promote: as for `ensemble`.
        output: CSV file for the tags of the test clips, or of the training clips if there are none.
        launch: how to start the folds.
        blend: how studies are blended, as for `ensemble`.

    Returns:
        a report in words: scores, registered version, some tagged clips, and how to open the UI.
    """
    check_writable(output)
    check_method(blend)
    check_installed(launch.cluster)
    with runs.tracked("main", f"main on {dataset_name(source.data_dir)}"):
        models = [config.model for config in configs]
        describe = partial(run_descriptions.main, source.data_dir, models, view_link=link(runs.experiment_id()))
        descriptions.describe(describe([], ""))
        view = descriptions.share_view()
        eda(source)
        studies = [cross_validate(source, config, launch) for config in configs]
        scores, best = compare(studies, blend)
        say(f"blending {best['model']}, the best by OOF mAP@3")
        run_ids = [
            record.run_id for records in studies for record in records if record.study in best["study"].split("+")
        ]
        made = ensemble(
            run_ids=run_ids, register_as=register_as, promote=promote, blend=blend, data_dir=source.data_dir
        )
        alias = ALIAS if made.registered.promoted else None
        version = f"models:/{register_as}@{alias}" if alias else f"models:/{register_as}/{made.registered.version}"
        folder, seen = _clips_to_tag(source.data_dir)
        if seen:
            say(f"{source.data_dir} has no test clips: its training clips are tagged, which the models have seen")
        tags = predict(str(folder), output, version, cluster=launch.cluster)
        descriptions.describe(describe(scores.to_dict("records"), made.registered.news))
    return _report(scores, made.registered.news, tags, output, descriptions.how_to_compare(view))


def compare(studies: Sequence[Sequence[FoldRun]], method: str = "geometric") -> tuple[pd.DataFrame, pd.Series]:
    """Score each study alone and all together on out-of-fold predictions.

    Args:
        studies: each study's fold runs.
        method: how they are blended.

    Returns:
        a row each, and the row with the highest mAP@3.
    """
    with tempfile.TemporaryDirectory(prefix="fsat-") as name:
        members = [[download(record, Path(name)) for record in records] for records in studies]
        blends = [blend_members(group, method=method) for group in members]
        if len(members) > 1:
            blends.append(blend_members([member for group in members for member in group], method=method))
    scores = pd.DataFrame([blend.row for blend in blends]).reset_index(drop=True)
    return scores, scores.loc[scores["map3"].idxmax()]


def _clips_to_tag(data_dir: Path) -> tuple[Path, bool]:
    """The folder of test clips, or of training clips where there are none; and whether it is that."""
    folders = [data_dir / name for name in (*TEST_FOLDERS, *TRAIN_FOLDERS) if (data_dir / name).is_dir()]
    found = next((folder for folder in folders if has_clips(folder)), folders[-1])
    return found, found.name in TRAIN_FOLDERS


def _report(scores: pd.DataFrame, news: str, tags: Tagged, output: Path, compare: str) -> str:
    table = scores[["study", "model", "map3", "accuracy", "map3_verified", "minutes"]].copy()
    table.columns = ["study", "model", "OOF mAP@3", "accuracy", "mAP@3 verified", "minutes"]
    width = max((len(row.fname) for row in tags.first), default=0)
    lines = [
        "", table.to_string(index=False, float_format=lambda value: f"{value:.4f}"),
        "", news,
        "", f"Tags of all clips are in {output}; the first {len(tags.first)}:",
        *(f"  {row.fname:<{width}}  {' '.join(row.labels)}  ({' '.join(f'{score:.6f}' for score in row.scores)})"
          for row in tags.first),
        "", compare,
    ]  # fmt: skip
    return "\n".join(lines)
