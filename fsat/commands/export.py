"""Entry point `export`: write a registered tagger as one file for programs without fsat.

The file appears only if its scores equal those of the tagger; ``FILE.json`` beside it describes it.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fsat import __version__
from fsat.commands.predict import uri_of
from fsat.errors import FsatError, count
from fsat.files import check_writable, write_whole
from fsat.presets import EXPORT_FORMATS
from fsat.progress import say
from fsat.reports import run_descriptions
from fsat.tagging import Tagger
from fsat.text import short
from fsat.tracking import descriptions, runs
from fsat.tracking.registry import open_tagger, pinned, run_of

METRICS = {
    "difference": "greatest",
    "difference_mean": "mean",
    "same_best": "same_best",
    "difference_as_tagged_here": "as_tagged_here",
    "n_checked": "n_clips",
}
"""Metrics of the run, and the fields of `fsat.export.check.Difference` that they log."""


def export(format: str, output: Path, model: str, members: str = "all", check: Path | None = None) -> dict[str, Any]:
    """Write a tagger as ONNX, TensorFlow Lite or Keras, with everything from the waveform to the scores inside.

    Args:
        format: one of `fsat.presets.EXPORT_FORMATS`.
        output: the file, with the format as suffix; it and ``FILE.json`` are replaced.
        model: the tagger, as for `fsat.commands.predict.predict`.
        members: as for `fsat.tagging.Tagger.only`.
        check: a file or folder of clips to compare scores on; by default generated clips.

    Returns:
        the contents of ``FILE.json``.

    Raises:
        ConfigError: the members do not exist, or the ratio of their sampling rates is not supported.
        DataError: there are no clips to compare scores on.
        FsatError: a package is missing, the file cannot be written, or its scores differ from the tagger's.
        RunError: the model does not exist.
    """
    from fsat.export.check import find_files
    from fsat.export.formats import check_packages

    check_output(format, output)
    check_packages(format)
    if check is not None:
        find_files(check)
    with runs.tracked("export", f"export {format}") as run_id:
        runs.log_params({"format": format, "model": model, "members": members, "check": str(check or "made")})
        model = pinned(uri_of(model))
        tagger = open_tagger(model).only(members)
        tagger_run = run_of(model)
        runs.rename(f"export {format} of {short(model.removeprefix('models:/'))}")
        runs.set_tags({"tagger_run": tagger_run, "tagger": model})
        facts = facts_of(tagger, format) | {"source": model, "tagger_run": tagger_run, "export_run": run_id}
        write_whole(output, lambda path: facts.update(file=output.name, **_write(tagger, path, format, facts, check)))
        sidecar = output.with_name(f"{output.name}.json")
        write_whole(sidecar, lambda path: path.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8"))
        difference, megabytes = facts["difference"], facts["bytes"] / 1e6
        runs.log_metrics({name: difference[key] for name, key in METRICS.items()} | {"megabytes": megabytes})
        for path in (output, sidecar):
            runs.log_file(path)
        descriptions.describe(lambda run_link: run_descriptions.export(format, output.name, facts, run_link))
        say(
            f"export: run {run_id}: {count(len(tagger.members), 'member')} in {output} ({megabytes:.1f} MB), a "
            f"waveform at {facts['sampling_rate']} Hz in, {count(len(tagger.labels), 'score')} out; scores are within "
            f"{difference['greatest']:.1e} of the original on {count(difference['n_clips'], 'clip')}"
        )
    return facts


def check_output(format: str, output: Path) -> None:
    """Raise `FsatError` if the format is unknown, or the file cannot be written or has another suffix."""
    if format not in EXPORT_FORMATS:
        raise FsatError(f"format={format}: expected one of {', '.join(EXPORT_FORMATS)}")
    if output.suffix.lower() != f".{format}":
        raise FsatError(f"output={output}: expected a name that ends in .{format}")
    check_writable(output)


def facts_of(tagger: Tagger, format: str) -> dict[str, Any]:
    """Return what programs that use the exported tagger need to know, and its origin."""
    method, weights = tagger.blend
    return {
        "fsat": __version__,
        "format": format,
        "sampling_rate": tagger.rates[-1],
        "input": "waveform: float32 (n_samples,), mono, about -1 to 1, at sampling_rate",
        "output": "scores: float32 (n_classes,), probabilities in the order of labels",
        "labels": tagger.labels,
        "members": [member.name for member in tagger.members],
        "blend": method,
        "study_weights": weights,
    }


def _write(tagger: Tagger, path: Path, format: str, facts: dict[str, Any], check: Path | None) -> dict[str, Any]:
    """Write and check a file; return its size as ``bytes`` and its ``difference`` from the tagger's scores."""
    from fsat.export.check import LIMIT, compare, generate_clips, read_clips
    from fsat.export.ensemble_model import ensemble_model
    from fsat.export.formats import open_model, write_model

    exact, rate = tagger.in_float32(), facts["sampling_rate"]
    write_model(ensemble_model(exact), path, format, facts)
    clips = read_clips(check, rate) if check else generate_clips([member.config for member in exact.members], rate)
    difference = compare(open_model(path, format)[0], exact, tagger, clips, rate)
    if difference.greatest > LIMIT:
        raise FsatError(
            f"format={format}: a score differs by {difference.greatest:.1e} on {difference.clip}, expected at most "
            f"{LIMIT:g}; no file was written: try another format, or one member (members=...)"
        )
    return {"bytes": path.stat().st_size, "difference": asdict(difference)}
