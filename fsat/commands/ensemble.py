"""Entry point `ensemble`: blend fold runs, score the blend on out-of-fold predictions, register a tagger."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from fsat import tagging
from fsat.commands.blend_members import Blend, blend_members, check_method, selected_on
from fsat.commands.report import log_report
from fsat.data.tables import write_parts
from fsat.errors import RunError
from fsat.metrics.row_blocks import create_rows, ranges, release
from fsat.progress import say
from fsat.reports import run_descriptions
from fsat.reports.study_reports import Predictions, analyse, write_reports
from fsat.reports.submission import CLIPS_AT_ONCE, write_submission
from fsat.study import RECIPE
from fsat.text import dataset_name
from fsat.tracking import descriptions, runs
from fsat.tracking.client import Refused
from fsat.tracking.fold_artifacts import Member, download
from fsat.tracking.registry import Registered, Score, register
from fsat.tracking.select_runs import choose


@dataclass(frozen=True)
class Ensembled:
    """What `ensemble` made.

    Attributes:
        run_id: of its run.
        scores: of members, studies and blend.
        registered: the registered version.
        compare: where to compare the runs, in words.
    """

    run_id: str
    scores: pd.DataFrame
    registered: Registered
    compare: str


def ensemble(
    run_ids: Sequence[str] = (),
    studies: Sequence[str] = (),
    register_as: str = "fsat",
    promote: str = "auto",
    allow_incomplete: bool = False,
    blend: str = "geometric",
    data_dir: str | Path | None = None,
) -> Ensembled:
    """Blend fold runs and register the tagger that they make.

    Args:
        run_ids: the fold runs to blend.
        studies: or the studies, of which the newest FINISHED run of every fold is taken. By default the newest
            complete study.
        register_as: name of the registered model.
        promote: ``auto``, ``always`` or ``never``; see `fsat.tracking.registry`.
        allow_incomplete: blend studies although folds are missing.
        blend: how studies are blended, one of `fsat.presets.BLENDS`.
        data_dir: where the clips lie that ``report.html`` plays, if not where they were trained on; where they are not
            at hand, the page has no players, and says so.

    Raises:
        ConfigError: there is no such way to blend.
        RunError: runs are missing, unfinished, or do not belong together.
    """
    check_method(blend)
    with runs.tracked("ensemble", "ensemble"):
        chosen = choose(run_ids, studies, allow_incomplete)
        with tempfile.TemporaryDirectory(prefix="fsat-") as name:
            folder = Path(name)
            members = [download(record, folder / "members") for records in chosen.values() for record in records]
            predictions = folder / "artifacts" / "predictions"
            predictions.mkdir(parents=True)
            made = blend_members(members, predictions, blend)
            return _log_and_register(members, made, folder, register_as, promote, data_dir)


def _log_and_register(
    members: Sequence[Member], blend: Blend, folder: Path, register_as: str, promote: str,
    data_dir: str | Path | None,
) -> Ensembled:  # fmt: skip
    first = members[0]
    studies = list(dict.fromkeys(member.record.study for member in members))
    models = list(dict.fromkeys(member.record.config.model for member in members))
    run_id = runs.active_run_id()
    trained_on = first.record.data_dir
    title = f"ensemble of {' + '.join(models)} on {dataset_name(trained_on)}"
    runs.rename(title)
    runs.set_tags({
        "studies": ",".join(studies), "model": "+".join(models), "dataset": first.record.dataset,
        "data_dir": trained_on, "selected_on": selected_on(members),
        "labels_run_id": ",".join(sorted({member.record.config.labels_run_id for member in members})),
    })  # fmt: skip
    runs.log_params({
        "n_members": len(members), "register_as": register_as, "promote": promote, "blend": blend.method,
    })  # fmt: skip
    runs.log_metrics(blend.metrics)
    runs.log_table(blend.scores, "scores.csv")
    runs.log_json([member.record.run_id for member in members], "members.json")
    runs.log_json(first.labels, "labels.json")
    if blend.weights:
        runs.log_json(blend.weights, "weights.json")

    out = folder / "artifacts"
    predictions = out / "predictions"  # oof.npy and test.npy are there
    (predictions / "best.npy").unlink()
    write_parts(predictions / "clips.csv", _clips_of_blend(first))
    test_names = first.clips.loc[first.clips["split"] == "test", "fname"].array
    write_submission(predictions / "submission.csv", test_names, blend.best, first.labels)
    clips = _predicted(first, blend, folder / "covered.npy")
    analysis = analyse(clips)
    scores = blend.metrics | write_reports(clips, analysis, out)
    runs.log_metrics(scores)
    runs.log_folder(out)
    report = partial(log_report, members, blend, clips, analysis, out, title, data_dir=data_dir)

    model_folder = folder / "tagger"
    model_folder.mkdir()
    files = [tagging.MemberFiles(m.record.study, m.record.fold, m.record.config, m.weights) for m in members]
    tagging.write(model_folder, files, first.labels, blend.method, blend.weights)
    score = Score(blend.metrics["oof_map3"], int(blend.covered.sum()))
    digest = _digest(members, blend)
    try:
        registered = register(register_as, model_folder, first.labels, score, first.record.dataset, promote, digest)
    except Refused as error:  # what was blended can be looked at all the same
        with suppress(RunError):
            report(f"The tagger is not registered: {error}")
        raise
    runs.set_tags({"registered": f"{registered.name}/{registered.version}", "champion": registered.promoted})
    report(f"{registered.news}.")
    made = run_descriptions.Tagger(
        models, studies, len(members), len(first.labels), trained_on, blend.method, scores, selected_on(members),
        registered.name, registered.version, registered.news,
    )  # fmt: skip
    descriptions.describe_tagger(made)
    view = descriptions.share_view()
    weights = "".join(f", {study} {weight:.4f}" for study, weight in blend.weights.items())
    say(f"ensemble run {run_id} blends {len(members)} members of {len(studies)} studies: {blend.method}{weights}")
    return Ensembled(run_id, blend.scores, registered, descriptions.how_to_compare(view))


def _digest(members: Sequence[Member], blend: Blend) -> str:
    """What tells this blend from others: its members, what they left, and how they are blended."""
    every = sorted(
        (member.record.run_id, member.record.run.data.tags.get(runs.TAG + "checksums", "")) for member in members
    )
    return hashlib.sha256(json.dumps([every, blend.method, blend.weights, RECIPE]).encode()).hexdigest()


def _clips_of_blend(member: Member) -> Iterator[pd.DataFrame]:
    """A member's table of clips, without its fold, in parts."""
    for start in range(0, len(member.clips), CLIPS_AT_ONCE):
        part = member.clips.iloc[start : start + CLIPS_AT_ONCE]
        yield part.assign(split=np.where(part["split"] == "test", "test", "train"))


def _predicted(member: Member, blend: Blend, path: Path) -> Predictions:
    """The training clips that have a blended prediction; `path` is for their rows, if these are not all."""
    covered = blend.covered
    names = member.clips.loc[member.clips["split"] != "test", "fname"].array
    if covered.all():
        return Predictions(blend.oof, blend.targets, blend.verified, names, member.labels)
    oof = _rows_where(blend.oof, covered, path)
    return Predictions(oof, blend.targets[covered], blend.verified[covered], names[covered], member.labels)


def _rows_where(scores: np.ndarray, mask: np.ndarray, path: Path) -> np.ndarray:
    """Some rows of a memory map, as another one in the file `path`."""
    result = create_rows(path, (int(mask.sum()), scores.shape[1]))
    done = 0
    for start, stop in ranges(*scores.shape):
        part = scores[start:stop]
        some = part[mask[start:stop]]
        result[done : done + len(some)] = some
        release(result[done : done + len(some)])
        release(part)
        done += len(some)
    return result
