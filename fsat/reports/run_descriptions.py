"""Markdown descriptions of runs, registered taggers and experiments, as the MLflow UI shows them.

Conventions: parameters and tags are texts, as MLflow stores them; scores are in [0, 1]. Names that a user chose
(folders, files, settings) are shown as code, so that they cannot act as Markdown or HTML. Links start with ``#``, so
they work at any server address: `run_link` leads to the run, `view_link` to the view that compares all folds. The texts
are in ``templates/descriptions.md``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from fsat.config import Config
from fsat.errors import count
from fsat.metrics.task_scores import SCORE_WORDS
from fsat.text import code, cut, license_line

SELECTION = {
    "own fold": "The best epoch was chosen on these very clips, so the scores are slightly optimistic.",
    "holdout": "The best epoch was chosen on other clips, set aside for it, so the scores are fair.",
    "nothing": "No score influenced the choice of the weights, so the scores are fair.",
    "labels": "Its labels come from models that have seen these clips, so the scores are slightly optimistic.",
}
"""How far the scores can be trusted, by what the weights were selected on."""

CLASSES_SHOWN = 20
"""Classes in the table of a run of `verify`."""


@dataclass(frozen=True)
class Tagger:
    """A registered tagger.

    Models and studies are in the order of the blend; `scores` are metrics of the ensemble's run; `selected_on` is as
    `Config.selected_on`, joined by + where members differ; `outcome` says whether it is the champion now, and why;
    `leak` says why scores are too high, and is empty if folds are apart; `start` is from `origin`; `backbones` are
    lines of `license_line`.
    """

    models: Sequence[str]
    studies: Sequence[str]
    n_members: int
    n_labels: int
    data_dir: str
    blend: str
    scores: Mapping[str, float]
    selected_on: str
    name: str
    version: int
    outcome: str
    leak: str = ""
    start: str = ""
    backbones: Sequence[str] = ()


def fold(
    params: Mapping[str, str], tags: Mapping[str, str], scores: Mapping[str, float], run_link: str, view_link: str
) -> str:
    """Describe a fold run; `scores` are its final metrics, empty while it trains."""
    data, selection = (
        Path(tags["fsat.data_dir"]).name,
        _selection(tags.get("fsat.selected_on", ""), tags.get("fsat.leak", "")),
    )
    start = origin(tags.get("fsat.init_from", ""), tags.get("fsat.init_tagger", ""), tags.get("fsat.new_layers", ""))
    facts = params, data, tags["fsat.study"], f"{settings(params)} {start}".strip()
    return _render("fold", *facts, scores, selection, run_link, view_link)


def settings(params: Mapping[str, Any]) -> str:
    """Name the settings that differ from the model's preset, without folds, which come from the dataset."""
    config = Config.from_mapping({field.name: params[field.name] for field in fields(Config)})
    ignored = "model", "folds", "precision", "init_from"
    options = [code(f"{name}={value}") for name, value in config.options().items() if name not in ignored]
    if not options:
        return f"All settings are those of {config.model}'s preset."
    return f"Settings that differ from the preset: {', '.join(options)}."


def origin(init_from: str, tagger: str = "", new_layers: str = "") -> str:
    """Say which fold runs, with ids separated by commas, and which tagger a training started from; may be empty."""
    if not init_from:
        return ""
    first, *others = init_from.split(",")
    runs = f"run {code(first)}" + (f" and {count(len(others), 'other')}" if others else "")
    of = f" of {' and '.join(map(code, tagger.split(',')))}" if tagger else ""
    return f"Training started from the weights of {runs}{of}{f'; new layers: {new_layers}' if new_layers else ''}."


def study(
    config: Config, study: str, data_dir: Path, means: Mapping[str, float], view_link: str, leak: str = "",
    start: str = "",
) -> str:  # fmt: skip
    """Describe a run of ``cross_validate``.

    `means` are the folds' mean scores, empty while they train; `start` is from `origin`.
    """
    facts = data_dir.absolute().name, f"{settings(config.to_dict())} {start}".strip()
    return _render("study", config, study, *facts, means, view_link, _warn_of(leak))


def eda(data_dir: Path, metrics: Mapping[str, float], run_link: str) -> str:
    """Describe a run of ``eda`` by its metrics."""
    return _render("eda", data_dir.absolute().name, metrics, run_link)


def main(data_dir: Path, models: Sequence[str], rows: Sequence[Mapping[str, Any]], outcome: str, view_link: str) -> str:
    """Describe a run of ``main`` by the rows of its table of scores, empty while it runs, and the tagger's outcome."""
    leaks = dict.fromkeys(row["leak"] for row in rows if row.get("leak"))
    warning = _warn_of(f"models know {' and '.join(leaks)}, or clips of the same sounds" if leaks else "")
    return _render("main", data_dir.absolute().name, models, rows, outcome, view_link, warning)


def ensemble(tagger: Tagger, run_link: str, view_link: str) -> str:
    """Describe a run of ``ensemble``."""
    selection = f"{_selection(tagger.selected_on, tagger.leak)} {tagger.start}".strip()
    return _render("ensemble", tagger, Path(tagger.data_dir).name, selection, run_link, view_link)


def verify(
    round_number: int, studies: Sequence[str], counts: Mapping[str, int], wrong_share: float, warning: str, run_id: str,
    run_link: str, missing_share: float | None = None, classes: Sequence[Mapping[str, Any]] = (),
) -> str:  # fmt: skip
    """Describe a run of ``verify``.

    `counts` are numbers of clips by decision, or of labels and their absences, `warning` may be empty. Where a clip has
    any number of labels, `missing_share` is a share and `classes` are the same numbers by class.
    """
    facts = round_number, studies, counts, wrong_share, warning, run_id, run_link
    if missing_share is None:
        return _render("verify", *facts)
    changes = sorted(classes, key=lambda row: -sum(row[name] for name in ("remove", "add")))
    return _render("verify_multilabel", *facts, missing_share, changes[:CLASSES_SHOWN], len(classes))


def predict(
    input: str, model: str, n_files: int, n_failed: int, n_without: int | None, output: str,
    options: Mapping[str, Any], run_link: str,
) -> str:  # fmt: skip
    """Describe a run of ``predict``; `options` are settings that differ from the defaults.

    `n_without` files have no label; it is None if the tagger gives each sound one.
    """
    return _render("predict", input, model, n_files, n_failed, n_without, output, options, run_link)


def evaluate(input: str, annotations: str, model: str, scores: Mapping[str, float], keeps: bool, run_link: str) -> str:
    """Describe a run of ``evaluate``; `keeps` says whether its thresholds are those of the model now."""
    return _render("evaluate", input, annotations, model, scores, keeps, run_link)


def embed(input: str, output: str, backbone: str, n_files: int, n_rows: int, n_failed: int, run_link: str) -> str:
    """Describe a run of ``embed``; `n_failed` files are in ``failed.csv``."""
    return _render("embed", input, output, backbone, n_files, n_rows, n_failed, run_link)


def segments(
    tags: str, output: str, n_segments: int, n_classes: int, n_recordings: int, n_failed: int, run_link: str
) -> str:
    """Describe a run of ``segments``; `n_failed` recordings lack some or all of their segments."""
    return _render("segments", tags, output, n_segments, n_classes, n_recordings, n_failed, run_link)


def export(format: str, output: str, facts: Mapping[str, Any], run_link: str) -> str:
    """Describe a run of ``export``; `facts` is the content of the JSON file beside the model."""
    licenses = [license_line(entry["name"], entry["license"], entry["source"]) for entry in facts["backbones"]]
    return _render("export", format, output, facts, licenses, run_link)


def version(tagger: Tagger, run_link: str) -> tuple[str, str]:
    """Describe a version of a registered tagger, and the tagger; `run_link` leads to the ensemble's run."""
    remarks = f"{_warn_of(tagger.leak)} {tagger.start}".strip()
    text = _render("version", tagger, Path(tagger.data_dir).name, run_link, remarks)
    return text, _render("registered", tagger.name, SCORE_WORDS["lwlrap" if "oof_lwlrap" in tagger.scores else "map3"])


def experiment(view_link: str) -> str:
    """Describe an experiment with fsat's runs."""
    return _render("experiment", view_link)


def _render(macro: str, *values: object) -> str:
    """Return the text of a macro of the template, a line per paragraph, list item and row of a table."""
    text = getattr(_environment().get_template("descriptions.md").module, macro)(*values)
    paragraphs = [re.sub(r"\s*\n\s*(?![-|] )", " ", part.strip()) for part in re.split(r"\n\s*\n", text)]
    return cut("\n\n".join(filter(None, paragraphs)))


@cache
def _environment() -> Environment:
    loader = PackageLoader("fsat.reports")  # without autoescape, which is for HTML
    environment = Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"code": code, "count": count}
    return environment


def _warn_of(leak: str) -> str:
    return leak and f"**The scores are too high**: {leak}."


def _selection(selected_on: str, leak: str) -> str:
    """Say how far scores can be trusted; for a blend, by every way in which its members were selected."""
    if leak:
        return _warn_of(leak)
    ways = dict.fromkeys(part.partition(",")[0] for part in selected_on.split("+"))
    labels = ["labels"] if "labels" in selected_on else []
    return " ".join(SELECTION[way] for way in [*ways, *labels] if way in SELECTION)
