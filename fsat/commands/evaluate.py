"""Command `evaluate`: score the tags of recordings over time against annotations, and choose thresholds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path, PurePath

import numpy as np

from fsat.commands.predict import minimum_of, uri_of
from fsat.data.annotation_files import Columns
from fsat.data.annotations import Annotations, read_annotations
from fsat.data.audio import whole_length_of
from fsat.data.clip_names import stored_name
from fsat.data.label_checks import look_of
from fsat.errors import AudioError, ConfigError, DataError, count, printable
from fsat.files import check_writable
from fsat.metrics.class_thresholds import FILE, ClassThresholds
from fsat.metrics.evaluation import Evaluation, Measures, TaggedRecording, metrics_of
from fsat.metrics.sound_events import Event
from fsat.options import EvaluateSettings, TagSettings
from fsat.progress import Progress, say
from fsat.reports import run_descriptions
from fsat.reports.evaluation_page import PAGE, write_evaluation
from fsat.tagging.input_files import EXPECTED, STDIN, Input, read_input
from fsat.tagging.recordings import minima
from fsat.tagging.stored_scores import StoredScores, tags_at
from fsat.tagging.tables import shown
from fsat.tagging.tagger import Tagger
from fsat.text import short
from fsat.tracking import mlflow_ui, runs
from fsat.tracking.client import Refused
from fsat.tracking.model_uri import pinned
from fsat.tracking.registry import open_tagger, run_of
from fsat.tracking.stored_thresholds import keep_thresholds

SCORES = "scores"
"""Subfolder of the output that has the scores of recordings, from which another evaluation starts."""

SHOWN = 8


@dataclass
class _Labels:
    """The labels of annotations against those of the tagger.

    `known` has the tagger's label for each of the annotations that it knows; `remarks` are warnings.
    """

    known: dict[str, str]
    remarks: list[str]


def evaluate(
    input: str,
    annotations: Path,
    output: Path,
    model: str,
    settings: TagSettings,
    scoring: EvaluateSettings,
    columns: Columns,
    keep: bool | None = None,
) -> str:
    """Score the tags of recordings over time against annotations; return the run's id.

    Writes ``evaluation.html``, figures and tables into `output`, and logs them with the scores. The thresholds with the
    highest F1 of segments become those of the registered version, which ``min_score=auto`` uses.

    Args:
        input: recordings, as for `fsat.tagging.input_files.read_input`; not ``-``.
        annotations: folder of the annotation files, or one file, as for `read_annotations`.
        model: as for `uri_of`.
        settings: of the tags; with a window.
        keep: whether to store the thresholds; None: unless ``min_score`` is ``auto``.

    Raises:
        DataError: annotations are wrong, or nothing can be scored.
        RunError: the model does not exist, or has no thresholds for ``min_score=auto``.
    """
    _check_output(output, annotations)
    files, names = _recordings(input)
    annotated, remarks = _annotations(files, names, annotations, columns, scoring, complete=Path(input).is_dir())
    check_writable(output / PAGE)
    with runs.tracked("evaluate", f"evaluate {short(Path(input).name or input)}") as run_id:
        version = pinned(uri_of(model))
        tagger, asked_auto = open_tagger(version).only(settings.members), settings.is_auto
        settings = settings.settled(tagger.thresholds is not None)
        minimum, chosen_before = minimum_of(version, tagger, settings)
        given = {"input": shown(input), "annotations": shown(str(annotations)), "model": model, "tagger": version}
        runs.log_params(given | {"tagger_run": run_of(version)} | asdict(settings) | asdict(scoring))
        runs.set_tags(chosen_before)
        labels = _match_labels(annotated.values(), tagger.labels)
        for remark in labels.remarks:
            say(f"warning: {remark}")
        stored = StoredScores(tagger, settings, files.root, output / SCORES)
        recordings, faults = _tag(stored, annotated, labels.known)
        evaluation = _evaluation(recordings, tagger, settings, scoring, minima(minimum, len(tagger.labels)))
        remarks += labels.remarks + _unannotated(evaluation)
        used = {"model": version, "window": f"{settings.window:g}", "hop": f"{settings.step:g}",
                "min_score": str(settings.min_score), "top_k": str(settings.top_k or "default")}  # fmt: skip
        write_evaluation(evaluation, output, files.root, used, remarks, faults)
        thresholds = ClassThresholds(
            {label: point.threshold for label, point in evaluation.chosen.points.items()},
            evaluation.chosen.default.threshold, tagger.digest, settings.members, settings.window, settings.step,
        )  # fmt: skip
        (output / FILE).write_text(thresholds.to_json(), encoding="utf-8")
        _log(evaluation, output)
        keeps = _keep(version, run_id, thresholds, tagger) if keep or (keep is None and not asked_auto) else False
        scores = metrics_of(evaluation)
        describe = partial(run_descriptions.evaluate, input, str(annotations), version, scores, keeps)
        mlflow_ui.describe(lambda link: describe(link))
        _report(scores, version, run_id, output)
        return run_id


def _check_output(output: Path, annotations: Path) -> None:
    """Raise `ConfigError` if the tables of an evaluation would be read as annotations the next time."""
    place, folder = output.resolve(), annotations.resolve()
    if annotations.is_dir() and (folder == place or folder in place.parents):
        where = f"output={printable(output)}: is in annotations={printable(annotations)}"
        raise ConfigError(f"{where}, where its tables would be read as annotations; expected another folder")


def _recordings(input: str) -> tuple[Input, list[str]]:
    if input == STDIN:
        raise ConfigError("input=-: expected a folder, file, glob or list, as recordings are looked up by name")
    files = read_input(input)
    names = list(dict.fromkeys(PurePath(name).as_posix() for name in files.names))
    names = names if files.ordered else sorted(names)
    for line in files.left_out.lines() if not Path(input).is_dir() else []:
        say(f"evaluate: {line}")
    if not names:
        raise DataError(f"input={printable(input)}: no recordings; {EXPECTED}")
    return files, names


def _annotations(
    files: Input, names: Sequence[str], folder: Path, columns: Columns, scoring: EvaluateSettings, complete: bool
) -> tuple[dict[str, Annotations], list[str]]:
    """Return the annotations of the recordings that have some, and what is odd about them."""
    lengths = {}
    for name in names:
        with suppress(AudioError):  # whoever tags it says why
            lengths[name] = whole_length_of(files.root / stored_name(files.root, name))
    known = {name: length for name, length in lengths.items() if math.isfinite(length)}
    read = read_annotations(names, files.root, folder, columns, known, scoring.point_seconds, complete)
    for warning in read.warnings:
        say(f"warning: {warning}")
    if read.problems:
        faults = count(len(read.problems), "fault")
        raise DataError(f"annotations={printable(folder)}: {faults}; fix the rows listed above", read.problems)
    if not any(item.events for item in read.recordings.values()):
        fault = f"annotations={printable(folder)}: no annotation of a recording of the input"
        raise DataError(f"{fault}; expected some: recordings where nothing sounds are scored beside annotated ones")
    return read.recordings, list(read.warnings)


def _match_labels(annotated: Iterable[Annotations], labels: Sequence[str]) -> _Labels:
    """Return which labels of annotations the tagger has; raise `DataError` if it has none of them."""
    numbers = Counter(event.label for item in annotated for event in item.events)
    by_look: dict[str, list[str]] = {}
    for label in labels:
        by_look.setdefault(look_of(label), []).append(label)
    known, renamed, unknown, remarks = {}, list[str](), Counter[str](), list[str]()
    for label, number in numbers.most_common():
        alike = by_look.get(look_of(label), [])
        if label in labels:
            known[label] = label
        elif len(alike) == 1:
            known[label] = alike[0]
            renamed.append(f"{label!r} is taken as {alike[0]!r}")
        else:
            unknown[label] = number
    if renamed:
        names = f"{count(len(renamed), 'label')} written otherwise than the tagger's"
        remarks.append(f"{names}: {', '.join(renamed[:SHOWN])}{', ...' if len(renamed) > SHOWN else ''}")
    if unknown:
        first = [f"{printable(label)} ({number:,})" for label, number in unknown.most_common(SHOWN)]
        more = ", ..." if len(unknown) > SHOWN else ""
        fault = (
            f"{count(unknown.total(), 'annotation')} of {count(len(unknown), 'label')} that the tagger does not know"
        )
        remarks.append(f"{fault} left out: {', '.join(first)}{more}")
    if not known:
        shown = ", ".join(map(printable, labels[:SHOWN])) + (", ..." if len(labels) > SHOWN else "")
        raise DataError(f"no annotation has a label of the tagger ({shown}); {remarks[-1]}")
    return _Labels(known, remarks)


def _tag(
    stored: StoredScores, annotated: Mapping[str, Annotations], known: Mapping[str, str]
) -> tuple[list[TaggedRecording], dict[str, str]]:
    """Return the recordings that can be read, with their scores, and the faults of others by name."""
    recordings, faults = [], {}
    with Progress("tagging", len(annotated)) as progress:
        for name, item in annotated.items():
            scores = stored.of(name, progress.note)
            progress.advance()
            if scores.error:
                faults[name] = scores.error
            if not len(scores.windows):
                continue
            seconds = round(float(scores.windows[-1, 1]), 3)
            late = sum(event.start >= seconds for event in item.events)
            if late and not scores.error:  # headers of some formats have no length
                faults[name] = f"ends at {seconds:g} s, before {count(late, 'annotation')}"
            own = (
                Event(event.start, min(event.end, seconds), known[event.label])
                for event in item.events
                if event.label in known and event.start < seconds
            )
            events = list(dict.fromkeys(own))  # a sound may have two spellings of its label
            recordings.append(TaggedRecording(name, seconds, events, scores.windows, scores.edges(), scores.scores))
    for name, error in faults.items():
        say(f"warning: {printable(name)}: {error}; annotations of what cannot be read are left out")
    if not any(recording.annotated for recording in recordings):
        first = next((f"{printable(name)}: {error}" for name, error in faults.items()), "")
        raise DataError(f"no annotation is in what can be read of the recordings; {first}")
    return recordings, faults


def _evaluation(
    recordings: Sequence[TaggedRecording], tagger: Tagger, settings: TagSettings, scoring: EvaluateSettings,
    minimum: np.ndarray,
) -> Evaluation:  # fmt: skip
    n_labels = len(tagger.labels)

    def tag(recording: TaggedRecording, thresholds: np.ndarray | None) -> list[Event]:
        top_k = tagger.most_tags(settings) if thresholds is None else settings.top_k or n_labels
        at = minimum if thresholds is None else thresholds
        tags = tags_at(recording.windows, recording.scores, tagger.labels, min(top_k, n_labels), at)
        return [Event(*tag[:3]) for tag in tags]

    measures = Measures(scoring.resolution, scoring.collar, scoring.offset_share)
    only_annotated = scoring.classes == "annotated"
    return Evaluation(recordings, tagger.labels, tag, measures, only_annotated)


def _unannotated(evaluation: Evaluation) -> list[str]:
    """Return what to say of tags of classes that are never annotated; report it."""
    others = {
        label: counts.n_sys
        for label, counts in evaluation.total.events.classes.items()
        if counts.n_sys and label not in evaluation.annotated
    }
    if not others:
        return []
    first = sorted(others, key=lambda label: -others[label])[:SHOWN]
    names = ", ".join(f"{printable(label)} ({others[label]:,})" for label in first)
    tags = f"{count(sum(others.values()), 'tag')} of {count(len(others), 'class')} that are never annotated"
    remark = f"{tags} count as false alarms: {names}{', ...' if len(others) > SHOWN else ''}"
    say(f"warning: {remark}; classes=annotated leaves them out")
    return [remark]


def _log(evaluation: Evaluation, output: Path) -> None:
    runs.log_metrics(metrics_of(evaluation))
    for name in (PAGE, FILE):
        runs.log_file(output / name)
    for folder in ("plots", "tables"):
        runs.log_folder(output / folder, folder)


def _keep(version: str, run_id: str, thresholds: ClassThresholds, tagger: Tagger) -> bool:
    """Store the thresholds with the tagger, and report that; return whether it was possible."""
    try:
        before = keep_thresholds(version, run_id, thresholds)
    except Refused as error:
        say(f"warning: the thresholds could not be stored with {version}: {error}; {FILE} of the run has them")
        return False
    if before is None:
        say(f"warning: {version} is no registered version, so min_score=auto cannot use the thresholds")
        return False
    instead = f" in place of those of run {before}" if before else ""
    command = f"`predict -P model={version} -P min_score=auto` uses them"
    if tagger.thresholds is not None:
        windows = f"window={thresholds.window:g} -P hop={thresholds.hop:g}"
        command = f"`predict -P model={version} -P {windows}` uses them in place of the tagger's own"
    say(f"evaluate: thresholds are stored with {version}{instead}: {command}")
    return True


def _report(scores: Mapping[str, float], version: str, run_id: str, output: Path) -> None:
    numbers = f"{count(int(scores['n_annotated']), 'annotation')} in {count(int(scores['n_recordings']), 'recording')}"
    parts = [f"{name} {scores[name]:.4f}" for name in ("segment_f1", "segment_map", "event_f1") if name in scores]
    say(f"evaluate: run {run_id}: {', '.join(parts)} of {numbers}, tagged by {version}")
    if "false_alarms_per_hour" in scores:
        rate, share = scores["false_alarms_per_hour"], 100 * scores["unannotated_tagged"]
        say(f"evaluate: {rate:.3g} false alarms an hour where nothing is annotated; {share:.1f} % of it has a tag")
    if "cv_segment_f1" in scores:
        say(f"evaluate: at thresholds chosen on other recordings, segment_f1 is {scores['cv_segment_f1']:.4f}")
    say(f"evaluate: {output / PAGE} has curves, and mistakes to listen to")
