"""Command `export`: a registered tagger as one file for programs without fsat, verified against the original.

The file is written only if its scores agree with the original's; ``FILE.json`` beside it describes it.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsat import __version__
from fsat.backbones.network import one_line
from fsat.commands.predict import uri_of
from fsat.errors import FsatError, count
from fsat.files import check_writable, write_whole
from fsat.model_presets import EXPORT_FORMATS
from fsat.options import LONGEST_CLIP
from fsat.progress import say
from fsat.reports import run_descriptions
from fsat.tagging import Tagger
from fsat.text import license_line, short
from fsat.tracking import artifact_names, mlflow_ui, runs
from fsat.tracking.model_uri import pinned
from fsat.tracking.registry import open_tagger, run_of

if TYPE_CHECKING:
    from fsat.export.formats import Difference

METRICS = {
    **{"difference": "greatest", "difference_mean": "mean", "same_best": "same_best"},
    **{"difference_as_tagged_here": "as_tagged_here", "n_checked": "n_clips"},
}
"""Metrics of the run, by fields of `Difference`."""


def export(format: str, output: Path, model: str, members: str = "all", check: Path | None = None) -> dict[str, Any]:
    """Write a tagger as ONNX, TensorFlow Lite or Keras, with all steps from the waveform to the scores.

    Args:
        output: path of the file, with the format as suffix; it and ``FILE.json`` are written whole.
        model, members: the tagger, as for `fsat.commands.predict.predict`.
        check: file or folder of clips to compare scores on; by default generated sounds.

    Returns:
        the content of ``FILE.json``.

    Raises:
        FsatError: tagger, members, clips or a package are missing, one model cannot have the members' sampling rates
            or their backbones, the file cannot be written, or its scores are not the original's.
    """
    from fsat.export.formats import check_packages, find_files, read_clips
    from fsat.export.networks import check_backbones

    check_output(format, output)
    artifact_names.announce(output)
    check_packages(format)
    if check is not None:
        find_files(check)
    with runs.tracked("export", f"export {format}") as run_id:
        runs.log_params({"format": format, "model": model, "members": members, "check": str(check or "made")})
        model = pinned(uri_of(model))
        tagger = open_tagger(model).only(members)
        check_backbones(tagger, format)
        if check is not None:
            next(read_clips(check, tagger.rates[-1]))
        tagger_run = run_of(model)
        runs.log_params({"tagger": model, "tagger_run": tagger_run})
        runs.rename(f"export {format} of {short(model.removeprefix('models:/'))}")
        runs.set_tags({"tagger_run": tagger_run, "tagger": model})
        sources = {"source": model, "tagger_run": tagger_run, "export_run": run_id}
        facts = facts_of(tagger, format) | sources
        for backbone in facts["backbones"]:
            say(license_line(backbone["name"], backbone["license"], backbone["source"]))
        _write_model(tagger, format, output, check, facts)
        _log(facts, format, output, run_id)
    return facts


def _write_model(tagger: Tagger, format: str, output: Path, check: Path | None, facts: dict[str, Any]) -> None:
    """Write the model, unless its scores differ from the tagger's, and add facts about the file."""
    from fsat.export.ensemble_model import exported_model
    from fsat.export.formats import write_model

    original = tagger.in_float32()
    model = exported_model(original, format)

    def write(path: Path) -> None:
        write_model(model, path, format, facts)
        difference = _compare(path, format, original, tagger, check)
        facts.update(file=output.name, bytes=path.stat().st_size, difference=asdict(difference))

    write_whole(output, write)


def _compare(path: Path, format: str, original: Tagger, tagger: Tagger, check: Path | None) -> Difference:
    """Compare the scores of an exported model with the tagger's; raise `FsatError` if they are too different."""
    from fsat.export.formats import LIMIT, compare, generate_clips, open_model, read_clips

    rate = original.rates[-1]
    clips = read_clips(check, rate) if check else generate_clips([member.config for member in original.members], rate)
    with one_line(f"format={format}", "the exported file does not run, nothing was written; try another format"):
        difference = compare(open_model(path, format)[0], original, tagger, clips, rate)
    if difference.greatest > LIMIT:
        fault = f"a score differs by {difference.greatest:.1e} on {difference.clip}, expected at most {LIMIT:g}"
        advice = "nothing was written: try another format, or one member (members=...)"
        raise FsatError(f"format={format}: {fault}; {advice}")
    return difference


def _log(facts: dict[str, Any], format: str, output: Path, run_id: str) -> None:
    """Write ``FILE.json``, and log and report the export."""
    sidecar, difference = sidecar_of(output), facts["difference"]
    write_whole(sidecar, lambda path: path.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8"))
    metrics = {name: difference[key] for name, key in METRICS.items()}
    runs.log_metrics(metrics | {"megabytes": facts["bytes"] / 1e6})
    for path in (output, sidecar):
        runs.log_file(path)
    name = artifact_names.artifact_name(output)
    mlflow_ui.describe(lambda run_link: run_descriptions.export(format, name, facts, run_link))
    content = (
        f"{count(len(facts['members']), 'member')} of {facts['source']} in {output} ({facts['bytes'] / 1e6:.1f} MB)"
    )
    interface = f"a waveform at {facts['sampling_rate']} Hz in, {count(len(facts['labels']), 'score')} out"
    agreement = f"{difference['greatest']:.1e} of the original on {count(difference['n_clips'], 'clip')}"
    say(f"export: run {run_id}: {content}, {interface}; scores are within {agreement}")


def check_output(format: str, output: Path) -> None:
    """Raise `FsatError` for an unknown format, another suffix, or a file that cannot be written."""
    if format not in EXPORT_FORMATS:
        raise FsatError(f"format={format}: expected one of {', '.join(EXPORT_FORMATS)}")
    if output.suffix.lower() != f".{format}":
        raise FsatError(f"output={output}: expected a name that ends in .{format}")
    for path in (output, sidecar_of(output)):
        check_writable(path)


def sidecar_of(output: Path) -> Path:
    """Return the path of the file that describes an exported model."""
    return output.with_name(f"{output.name}.json")


SCORES = {
    False: "probabilities that sum to 1",
    True: "a probability of each class by itself, which do not sum to 1: a sound has the labels that reach thresholds",
}
"""What scores are, by `Tagger.use_sigmoid`."""


def _decisions(tagger: Tagger) -> dict[str, Any]:
    """Return how the scores in the file were scaled, and the minimum score of a tag of each label, if there are any."""
    facts = {} if tagger.scaling.kind == "none" else {"scaling": tagger.scaling.to_dict()}
    if tagger.thresholds is not None:
        facts["thresholds"] = dict(zip(tagger.labels, map(float, tagger.thresholds), strict=True))
    return facts


def facts_of(tagger: Tagger, format: str) -> dict[str, Any]:
    """Return what a program needs to know to use the exported tagger, and its members."""
    from fsat.export.networks import backbones_of

    method, weights = tagger.blend
    return {
        "fsat": __version__,
        "format": format,
        "sampling_rate": tagger.rates[-1],
        "max_seconds": LONGEST_CLIP,
        "input": "waveform: float32 (n_samples,), n_samples >= 1, mono, finite, about -1 to 1, at sampling_rate, at "
        "most max_seconds long",
        "output": f"scores: float32 (n_classes,), {SCORES[tagger.use_sigmoid]}, in the order of labels",
        "labels": tagger.labels,
        "task": tagger.task,
        **_decisions(tagger),
        "members": [member.name for member in tagger.members],
        "blend": method,
        "study_weights": weights,
        "backbones": [
            {key: getattr(backbone, key) for key in ("name", "license", "source", "sha256")}
            for backbone in backbones_of(tagger).values()
        ],
    }
