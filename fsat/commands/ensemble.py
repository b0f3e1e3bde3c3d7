"""Command `ensemble`: blend fold runs, score the blend on out-of-fold predictions, register it as a tagger."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from fsat import tagging
from fsat.commands.analyse_blend import analyse_blend, decided_by, write_blend_reports
from fsat.commands.backbones import find_backbone
from fsat.commands.blend_members import Blend, blend_members, by_study, check_method, leak_of, origins_of, selected_on
from fsat.commands.fit_scores import Decisions, fit_scores
from fsat.commands.warm_start import describe_start
from fsat.data.playable_clips import Trained, find_clips
from fsat.data.tables import write_parts
from fsat.errors import RunError, count
from fsat.metrics.row_blocks import create_rows, iter_blocks, release
from fsat.metrics.task_scores import SCORE_NAMES, SCORE_WORDS
from fsat.progress import say
from fsat.reports import run_descriptions
from fsat.reports.plots import FoldCurve
from fsat.reports.prediction_tables import (
    CLIPS_AT_ONCE,
    Predictions,
    announce_submission,
    write_scores,
    write_submission,
)
from fsat.reports.report_page import Result, write_result_page
from fsat.reports.report_text import METHODS
from fsat.study import RECIPE
from fsat.text import dataset_name, license_line
from fsat.tracking import mlflow_ui, runs
from fsat.tracking.client import Refused
from fsat.tracking.fold_artifacts import SUBMISSION, Member, download, is_test, without_fold
from fsat.tracking.registry import Registered, Score, check_registration, register
from fsat.tracking.runs import epoch_history
from fsat.tracking.select_runs import INIT_FROM, INIT_TAGGER, FoldRun, choose

PAGE = "report.html"


@dataclass(frozen=True)
class Ensembled:
    """Result of `ensemble`.

    Attributes:
        scores: scores of members, studies and blend, with columns `fsat.commands.blend_members.columns_of` the task.
        candidates: a row of such scores for each blend that was compared.
        compare: where to compare the runs, in words.
    """

    run_id: str
    scores: pd.DataFrame
    candidates: pd.DataFrame
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
    calibrate: str = "auto",
) -> Ensembled:
    """Blend fold runs and register the blend as a tagger.

    Args:
        run_ids: fold runs to blend.
        studies: or studies, whose newest FINISHED run of every fold is taken; by default the newest complete study.
        register_as: name of the registered model.
        promote: ``auto``, ``always`` or ``never``; see `fsat.tracking.registry`.
        allow_incomplete: blend studies with missing folds.
        blend: method, one of `fsat.model_presets.BLENDS`.
        calibrate: ``auto`` or ``none``; whether the tagger scales scores where that makes them mean more.
        data_dir: folder of the clips that ``report.html`` plays, by default that of the training; without the clips,
            the page says so in place of players.

    Raises:
        ConfigError: the method is unknown, or the registered model cannot have this name.
        RunError: runs are missing, unfinished, or do not belong together.
    """
    check_method(blend)
    check_registration(register_as, promote)
    with runs.tracked("ensemble", "ensemble"):
        chosen = choose(run_ids, studies, allow_incomplete)
        records = [record for study in chosen.values() for record in study]
        return _register_best([records], register_as, promote, blend, data_dir, calibrate)


def ensemble_best(
    studies: Sequence[Sequence[FoldRun]], register_as: str, promote: str, blend: str, data_dir: str | Path,
    calibrate: str = "auto",
) -> Ensembled:  # fmt: skip
    """Blend each study alone and all together, and register the blend with the highest out-of-fold score."""
    groups = [*studies, [record for study in studies for record in study]] if len(studies) > 1 else studies
    with runs.tracked("ensemble", "ensemble"):
        return _register_best(groups, register_as, promote, blend, data_dir, calibrate, announce=True)


def _register_best(
    groups: Sequence[Sequence[FoldRun]],
    register_as: str,
    promote: str,
    method: str,
    data_dir: str | Path | None,
    calibrate: str,
    announce: bool = False,
) -> Ensembled:
    """Blend each group of fold runs, and register the best blend in the open run."""
    with tempfile.TemporaryDirectory(prefix="fsat-") as name:
        folder = Path(name)
        records = {record.run_id: record for group in groups for record in group}
        members = {run_id: download(record, folder / "members") for run_id, record in records.items()}
        member_groups = [[members[record.run_id] for record in group] for group in groups]
        folders = [folder / f"blend{i}" for i in range(len(groups))]
        blends = [blend_members(group, path, method) for group, path in zip(member_groups, folders, strict=True)]
        candidates = pd.DataFrame([blend.row for blend in blends]).reset_index(drop=True)
        score = SCORE_NAMES[blends[0].task][0]
        best = int(candidates[score].idxmax())
        if announce:
            say(f"blending {candidates['model'][best]}, the best by OOF {SCORE_WORDS[score]}")
        (folder / "artifacts").mkdir()
        folders[best].rename(folder / "artifacts" / "predictions")
        result = _Result(member_groups[best], blends[best], folder, data_dir, calibrate == "auto")
        return result.register(register_as, promote, candidates)


class _Result:
    """The blend of `members`, and all that the open run records of it; its arrays are in `folder`."""

    def __init__(
        self, members: Sequence[Member], blend: Blend, folder: Path, data_dir: str | Path | None, scale: bool
    ) -> None:
        self.members, self.blend, self.folder, self.data_dir = members, blend, folder, data_dir
        self.calibrate = "auto" if scale else "none"
        self.first = members[0]
        self.studies = by_study(members)
        self.leak, self.origins = leak_of(members), origins_of(members)
        used = [member.record for member in members if blend.weights.get(member.record.study) != 0]  # in the tagger
        configs = [record.config for record in used if record.config.use_embedding]
        refs = {config.backbone_digest: config.backbone for config in configs}  # one may have several names
        self.backbones = [find_backbone(ref) for ref in refs.values()]
        self.licenses = [license_line(each.name, each.license, each.source) for each in self.backbones]
        self.models = list(dict.fromkeys(member.record.config.model for member in members))
        self.title = f"ensemble of {' + '.join(self.models)} on {dataset_name(self.first.record.data_dir)}"
        self.artifacts = folder / "artifacts"
        self.clips = _predicted(self.first, blend, folder / "covered.npy")
        self.decisions = fit_scores(blend, scale)
        self.decided = decided_by(self.decisions) if blend.task == "multi" else None
        self.analysis = analyse_blend(self.clips, self.decisions)
        self.metrics = blend.metrics

    def register(self, name: str, promote: str, candidates: pd.DataFrame) -> Ensembled:
        """Log the blend, register it, and describe the run."""
        self._log_facts(name, promote)
        self._write_predictions()
        reported = write_blend_reports(self.clips, self.decisions, self.analysis, self.artifacts)
        self.metrics = self.blend.metrics | reported | self.decisions.metrics
        runs.log_metrics(self.metrics)
        runs.log_folder(self.artifacts)
        registered = self._register(name, promote)
        for line in self.licenses:
            say(line)
        runs.set_tags({"registered": f"{name}/{registered.version}", "champion": registered.promoted})
        self._log_page(f"{registered.outcome}.")
        view = self._describe(registered)
        run_id, n_members, n_studies = runs.active_run_id(), len(self.members), len(self.studies)
        weights = "".join(f", {study} {weight:.4f}" for study, weight in self.blend.weights.items())
        members = f"{count(n_members, 'member')} of {count(n_studies, 'study')}"
        say(f"ensemble run {run_id} blends {members}: {self.blend.method}{weights}")
        if self.leak:
            say(f"warning: scores are too high ({self.leak})")
        return Ensembled(run_id, self.blend.scores, candidates, registered, mlflow_ui.how_to_compare(view))

    def _log_facts(self, register_as: str, promote: str) -> None:
        record, blend = self.first.record, self.blend
        runs.rename(self.title)
        tags = {
            "studies": ",".join(self.studies),
            "model": "+".join(self.models),
            "dataset": record.dataset,
            "data_dir": record.data_dir,
            "selected_on": selected_on(self.members),
            **({"leak": self.leak} if self.leak else {}),
            **self.origins,
            "labels_run_id": ",".join(sorted({member.record.config.labels_run_id for member in self.members})),
        }
        runs.set_tags(tags)
        options = {"register_as": register_as, "promote": promote, "blend": blend.method, "calibrate": self.calibrate}
        runs.log_params({"n_members": len(self.members)} | options)
        runs.log_metrics(blend.metrics)
        runs.log_table(blend.scores, "scores.csv")
        runs.log_json([member.record.run_id for member in self.members], "members.json")
        runs.log_json(self.first.labels, "labels.json")
        if blend.weights:
            runs.log_json(blend.weights, "weights.json")

    def _write_predictions(self) -> None:
        """Write the tables beside ``oof.npy`` and ``test.npy``."""
        folder, clips = self.artifacts / "predictions", self.first.clips
        (folder / "best.npy").unlink()
        starts = range(0, len(clips), CLIPS_AT_ONCE)
        write_parts(folder / "clips.csv", (without_fold(clips.iloc[i : i + CLIPS_AT_ONCE]) for i in starts))
        test_names = clips.loc[is_test(clips), "fname"].array
        if self.blend.task == "multi":
            write_scores(folder / "submission.csv", test_names, self.blend.test, self.first.labels)
            return
        write_submission(folder / "submission.csv", test_names, self.blend.best, self.first.labels)
        if len(test_names):
            announce_submission(SUBMISSION, self.first.labels)

    def _register(self, name: str, promote: str) -> Registered:
        """Write the tagger and register it; if that is refused, the report shows the blend all the same."""
        folder, blend, labels = self.folder / "tagger", self.blend, self.first.labels
        folder.mkdir()
        files = [tagging.MemberFiles(m.record.study, m.record.fold, m.record.config, m.weights) for m in self.members]
        decisions = self.decisions.scaling, self.decisions.thresholds.tolist()
        tagging.write(folder, files, labels, blend.method, blend.weights, find_backbone, *decisions)
        first = SCORE_NAMES[blend.task][0]
        score = Score(blend.metrics[f"oof_{first}"], int(blend.covered.sum()), self.leak, first)
        digest = _digest(self.members, blend, self.decisions)
        try:
            dataset = self.first.record.dataset
            return register(name, folder, labels, score, dataset, promote, digest, self.backbones, decisions[1])
        except Refused as error:
            with suppress(RunError):
                self._log_page(f"The tagger is not registered: {error}")
            raise

    def _log_page(self, outcome: str) -> None:
        """Write ``report.html`` and log it; `outcome` tells whether the tagger is registered."""
        records = [member.record for member in self.members]
        began, clips = min(record.run.info.start_time for record in records) / 1000, self.first.clips
        trained = Trained(clips, is_test(clips), records[0].dataset, began, records[0].layout)
        location = find_clips(trained, [record.data_dir for record in records], self.data_dir)
        if location.note:
            say(f"{PAGE}: {location.note}")
        columns = ["study", "model", "fold", "minutes", "selected on", "run"]
        rows = [(r.study, r.config.model, r.fold, r.minutes, r.config.selected_on, r.run_id) for r in records]
        result = Result(
            title=self.title,
            outcome=outcome,
            facts=self._facts(),
            members=pd.DataFrame(rows, columns=columns),
            scores=self.blend.scores,
            method=self.blend.method,
            selected_on=selected_on(self.members),
            leak=self.leak,
            clips=self.clips,
            analysis=self.analysis,
            curves=[_curve(record) for record in records],
            plots=self.artifacts / "plots",
            location=location,
            metrics=self.metrics,
            thresholds=self.decisions.thresholds,
            decided=self.decided,
        )
        write_result_page(result, self.artifacts / PAGE)
        runs.log_file(self.artifacts / PAGE)

    def _facts(self) -> list[tuple[str, str]]:
        """Return the rows of the report's first table."""
        blend, record, facts = self.blend, self.first.record, self.first.facts
        rows = [("run", runs.active_run_id()), ("blend", f"{blend.method}: {METHODS[blend.method]}")]
        for study, members in self.studies.items():
            weight = f", weight {blend.weights[study]:.4f}" if study in blend.weights else ""
            config = members[0].record.config
            folds = f"{len(members)} of {count(config.n_folds, 'fold')}"
            rows.append((f"study {study}", f"{config.model}, {folds}{weight}"))
        if INIT_FROM in self.origins:
            origins = [self.origins[name] for name in (INIT_TAGGER, INIT_FROM) if name in self.origins]
            rows.append(("started from the weights of", ", run ".join(origins)))
        classes, verified = count(len(self.first.labels), "class"), f"{int(blend.verified.sum())} of them verified"
        clips = f"{count(facts.n_train, 'training clip')} of {classes}, {verified}; {count(facts.n_test, 'test clip')}"
        scored = f"{count(int(blend.covered.sum()), 'training clip')}, each by models that did not train on it"
        dataset = f"{record.dataset}, in {record.data_dir} when the first fold was trained"
        rows += [("licence", line) for line in self.licenses]
        return [*rows, ("dataset", dataset), ("clips", clips), ("scored", scored)]

    def _describe(self, registered: Registered) -> str:
        """Describe run, version, registered model and experiment; return the address of the view of all folds."""
        sizes, data_dir = (len(self.members), len(self.first.labels)), self.first.record.data_dir
        blend = self.blend.method, self.metrics, selected_on(self.members)
        facts = self.models, list(self.studies), *sizes, data_dir, *blend
        registration = registered.name, registered.version, registered.outcome
        remarks = self.leak, describe_start(self.origins), self.licenses
        tagger = run_descriptions.Tagger(*facts, *registration, *remarks)
        view, link = mlflow_ui.view_link(), mlflow_ui.run_link(runs.experiment_id(), runs.active_run_id())
        mlflow_ui.describe(run_descriptions.ensemble(tagger, link, view))
        mlflow_ui.describe_version(tagger.name, tagger.version, *run_descriptions.version(tagger, link))
        return mlflow_ui.share_view(run_descriptions.experiment(view))


def _digest(members: Sequence[Member], blend: Blend, decisions: Decisions) -> str:
    """Return a digest that identifies a blend: its members, their artifacts, the method, and how scores are scaled."""
    checksums = sorted((m.record.run_id, m.record.run.data.tags.get(runs.TAG + "checksums", "")) for m in members)
    scaling = decisions.scaling.to_dict()
    return hashlib.sha256(json.dumps([checksums, blend.method, blend.weights, RECIPE, scaling]).encode()).hexdigest()


def _predicted(member: Member, blend: Blend, path: Path) -> Predictions:
    """Return the training clips with a blended prediction; `path` is the file for their rows, if not all have one."""
    covered = blend.covered
    names = member.clips.loc[~is_test(member.clips), "fname"].array
    if covered.all():
        return Predictions(blend.oof, blend.targets, blend.verified, names, member.labels)
    oof, done = create_rows(path, (int(covered.sum()), blend.oof.shape[1])), 0
    for rows, block in iter_blocks(blend.oof):
        chosen = block[covered[rows]]
        oof[done : done + len(chosen)] = chosen
        release(oof[done : done + len(chosen)])
        done += len(chosen)
    return Predictions(oof, blend.targets[covered], blend.verified[covered], names[covered], member.labels)


def _curve(record: FoldRun) -> FoldCurve:
    """Return the learning curve of a fold."""
    best = record.run.data.metrics.get("best_epoch")
    first = SCORE_NAMES[record.config.task][0]
    val_score, val_loss = (epoch_history(record.run_id, f"val_{name}") for name in (first, "loss"))
    names = record.study, record.config.model, record.fold
    return FoldCurve(*names, val_score, val_loss, None if best is None else round(best))
