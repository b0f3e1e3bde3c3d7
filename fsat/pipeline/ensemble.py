"""Entry point `ensemble`: blend fold runs, score the blend on out-of-fold predictions, register a tagger."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from fsat import tagger
from fsat.data.tables import write_parts
from fsat.errors import RunError
from fsat.pipeline.blending import Blend, blend_members, check_method, selected_on
from fsat.progress import say
from fsat.reports.study import Predicted, write_reports
from fsat.reports.submission import CLIPS_AT_ONCE, write_submission
from fsat.scoring.rows import create_rows, ranges, release
from fsat.tracking import runs
from fsat.tracking.members import FoldRun, Member, by_run_ids, download, finished_folds, newest_per_fold
from fsat.tracking.registry import Registered, Score, register

Studies = dict[str, list[FoldRun]]
"""Fold runs by study, each study's in the order of folds."""


@dataclass(frozen=True)
class Ensembled:
    """What `ensemble` made: its run, the scores of members, studies and blend, and the registered version."""

    run_id: str
    scores: pd.DataFrame
    registered: Registered


def ensemble(
    run_ids: Sequence[str] = (),
    studies: Sequence[str] = (),
    register_as: str = "fsat",
    promote: str = "auto",
    allow_incomplete: bool = False,
    blend: str = "geometric",
) -> Ensembled:
    """Blend fold runs and register the tagger that they make.

    Args:
        run_ids: the fold runs to blend.
        studies: or the studies, of which the newest FINISHED run of every fold is taken. By default the newest
            complete study.
        register_as: name of the registered model.
        promote: ``auto``, ``always`` or ``never``; see `fsat.tracking.registry`.
        allow_incomplete: blend studies although folds are missing.
        blend: how studies are blended, one of `fsat.config.BLENDS`.

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
            return _log_and_register(members, made, folder, register_as, promote)


def choose(run_ids: Sequence[str], studies: Sequence[str], allow_incomplete: bool) -> Studies:
    """The fold runs that are meant, by study, complete unless `allow_incomplete`."""
    if run_ids and studies:
        raise RunError("run_ids and studies are both given; expected one of them")
    if run_ids:
        chosen = _by_study(by_run_ids(list(dict.fromkeys(run_ids))))
    elif studies:
        chosen = {study: _newest(study) for study in dict.fromkeys(studies)}
    else:
        return _newest_complete(allow_incomplete)
    for records in chosen.values():
        missing = missing_folds(records)
        if missing and not allow_incomplete:
            raise RunError(what_is_missing(records, missing))
    return chosen


def missing_folds(records: Sequence[FoldRun]) -> list[int]:
    """The folds of a study that have no run among `records`."""
    return sorted(set(range(records[0].config.n_folds)) - {record.fold for record in records})


def what_is_missing(records: Sequence[FoldRun], missing: Sequence[int]) -> str:
    """One line: which folds a study lacks, and the command that trains them."""
    first = records[0]
    options = {"data_dir": first.data_dir, **first.config.options()}
    if options.get("folds") == "column":
        options.pop("n_folds", None)  # the column says how many
    if first.run.data.tags.get(runs.TAG + "on_bad_clip") == "exclude":
        options["on_bad_clip"] = "exclude"
    command = " ".join(
        ["mlflow run . -e cross_validate", *(f"-P {name}={shlex.quote(str(value))}" for name, value in options.items())]
    )
    return (
        f"study {first.study} ({first.config.model}) lacks fold{'s' if len(missing) > 1 else ''} "
        f"{', '.join(map(str, missing))} of {first.config.n_folds}; train what is missing with `{command}`, "
        "or blend what is there with -P allow_incomplete=true"
    )


def _by_study(records: Sequence[FoldRun]) -> Studies:
    chosen: Studies = {}
    for record in records:
        chosen.setdefault(record.study, []).append(record)
    for study, members in chosen.items():
        members.sort(key=lambda record: record.fold)
        for before, after in pairwise(members):
            if before.fold == after.fold:
                raise RunError(
                    f"run_ids: runs {before.run_id} and {after.run_id} are both fold {after.fold} of study {study}; "
                    "expected one run a fold"
                )
    return chosen


def _newest(study: str) -> list[FoldRun]:
    records = list(newest_per_fold(finished_folds(study) if study.isalnum() else []).values())
    if not records:
        known = list(dict.fromkeys(f"{record.study} ({record.config.model})" for record in finished_folds()))
        there = f"there are {', '.join(known)}" if known else "there is none yet"
        raise RunError(f"studies: no study {study} with FINISHED fold runs in this experiment; {there}")
    return records


def _newest_complete(allow_incomplete: bool) -> Studies:
    records = finished_folds()
    if not records:
        raise RunError(
            f"there are no FINISHED fold runs in this experiment on {runs.tracking_uri()}; train them with "
            "`mlflow run . -e cross_validate -P data_dir=DIR`"
        )
    by_study: Studies = {}
    for record in records:
        by_study.setdefault(record.study, []).append(record)
    newest = {study: list(newest_per_fold(members).values()) for study, members in by_study.items()}
    for study, members in newest.items():
        if allow_incomplete or not missing_folds(members):
            return {study: members}
    members = next(iter(newest.values()))
    raise RunError(what_is_missing(members, missing_folds(members)))


def _log_and_register(
    members: Sequence[Member], blend: Blend, folder: Path, register_as: str, promote: str
) -> Ensembled:
    first = members[0]
    studies = list(dict.fromkeys(member.record.study for member in members))
    models = list(dict.fromkeys(member.record.config.model for member in members))
    run_id = runs.active_run_id()
    runs.rename(f"ensemble of {' + '.join(models)}")
    runs.set_tags({
        "studies": ",".join(studies), "model": "+".join(models), "dataset": first.record.dataset,
        "data_dir": first.record.data_dir, "selected_on": selected_on(members),
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
    runs.log_metrics(write_reports(_predicted(first, blend, folder / "covered.npy"), out))
    runs.log_folder(out)

    model_folder = folder / "tagger"
    model_folder.mkdir()
    files = [tagger.MemberFiles(m.record.study, m.record.fold, m.record.config, m.weights) for m in members]
    tagger.write(model_folder, files, first.labels, blend.method, blend.weights)
    score = Score(blend.metrics["oof_map3"], int(blend.covered.sum()))
    registered = register(register_as, model_folder, first.labels, score, first.record.dataset, promote)
    runs.set_tags({"registered": f"{registered.name}/{registered.version}", "champion": registered.promoted})
    weights = "".join(f", {study} {weight:.4f}" for study, weight in blend.weights.items())
    say(f"ensemble run {run_id} blends {len(members)} members of {len(studies)} studies: {blend.method}{weights}")
    return Ensembled(run_id, blend.scores, registered)


def _clips_of_blend(member: Member) -> Iterator[pd.DataFrame]:
    """A member's table of clips, without its fold, in parts."""
    for start in range(0, len(member.clips), CLIPS_AT_ONCE):
        part = member.clips.iloc[start : start + CLIPS_AT_ONCE]
        yield part.assign(split=np.where(part["split"] == "test", "test", "train"))


def _predicted(member: Member, blend: Blend, path: Path) -> Predicted:
    """The training clips that have a blended prediction; `path` is for their rows, if these are not all."""
    covered = blend.covered
    names = member.clips.loc[member.clips["split"] != "test", "fname"].array
    if covered.all():
        return Predicted(blend.oof, blend.targets, blend.verified, names, member.labels)
    oof = _rows_where(blend.oof, covered, path)
    return Predicted(oof, blend.targets[covered], blend.verified[covered], names[covered], member.labels)


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
