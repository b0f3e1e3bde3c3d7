"""Which fold runs are meant: by run id, by study, or the newest complete study; and what a study lacks."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from itertools import pairwise

from fsat.errors import RunError
from fsat.progress import say
from fsat.text import dataset_name
from fsat.tracking import runs
from fsat.tracking.fold_artifacts import FoldRun, by_run_ids, finished_folds, newest_per_fold

Studies = dict[str, list[FoldRun]]
"""Fold runs by study, each study's in the order of folds."""


def choose(run_ids: Sequence[str], studies: Sequence[str], allow_incomplete: bool | None) -> Studies:
    """The fold runs that are meant, by study.

    Args:
        run_ids, studies: as for `ensemble`.
        allow_incomplete: whether folds may be missing; None where they must not, and there is no option for it.

    Raises:
        RunError: runs or folds are missing, or are not FINISHED.
    """
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
            raise RunError(what_is_missing(records, missing, allow_incomplete is not None))
    return chosen


def missing_folds(records: Sequence[FoldRun]) -> list[int]:
    """The folds of a study that have no run among `records`."""
    return sorted(set(range(records[0].config.n_folds)) - {record.fold for record in records})


def what_is_missing(records: Sequence[FoldRun], missing: Sequence[int], may_lack: bool = True) -> str:
    """One line: which folds a study lacks, and the command that trains them; `may_lack` names the other way out."""
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
        f"study {first.study} ({first.config.model}) lacks {_folds(missing)} of {first.config.n_folds}; train what is "
        f"missing with `{command}`" + (", or blend what is there with -P allow_incomplete=true" if may_lack else "")
    )


def _folds(numbers: Sequence[int]) -> str:
    return f"fold{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"


def _named(records: Sequence[FoldRun]) -> str:
    first = records[0]
    return f"study {first.study} ({first.config.model} on {dataset_name(first.data_dir)})"


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


def _newest_complete(allow_incomplete: bool | None) -> Studies:
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
    passed_over = []
    for study, members in newest.items():
        missing = missing_folds(members)
        if allow_incomplete or not missing:
            if passed_over:
                say(f"{_named(members)} is the newest study with all of its folds; {'; '.join(passed_over)}")
            return {study: members}
        passed_over.append(f"newer is {_named(members)}, which lacks {_folds(missing)} of {members[0].config.n_folds}")
    members = next(iter(newest.values()))
    raise RunError(what_is_missing(members, missing_folds(members), allow_incomplete is not None))
