"""Entry point `export`: a registered tagger as one file for programs without fsat, checked against the original.

The file is put in place only when its scores have been found to be the original's; beside it lies ``FILE.json``, which
says what it is.
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


def export(format: str, output: Path, model: str, members: str = "all", check: Path | None = None) -> dict[str, Any]:
    """Write a tagger as ONNX, TensorFlow Lite or Keras, with everything from the waveform to the scores inside.

    Args:
        format: one of `fsat.presets.EXPORT_FORMATS`.
        output: the file; must have the format as suffix. Replaced whole, as is ``FILE.json`` beside it.
        model: the tagger, as `fsat.commands.predict.predict` takes it.
        members: as `fsat.tagging.Tagger.only` takes them.
        check: a file or folder of clips to compare scores on; by default sounds that are made for it.

    Returns:
        what ``FILE.json`` says.

    Raises:
        ConfigError: there are no such members, or their sampling rates do not go together in one model.
        DataError: there are no clips to check with.
        FsatError: a package is missing, the file cannot be written, or its scores are not the original's.
        RunError: there is no such model.
    """
    from fsat.export.formats import check_packages, open_model, write_model
    from fsat.models import import_keras

    check_output(format, output)
    check_packages(format)
    import_keras()
    from fsat.export.ensemble_model import input_rate, whole_tagger

    if check is not None:
        check.files_of(check)
    with runs.tracked("export", f"export {format}") as run_id:
        runs.log_params({"format": format, "model": model, "members": members, "check": str(check or "made")})
        model = pinned(uri_of(model))
        tagger = open_tagger(model).only(members)
        tagger_run = run_of(model)
        runs.rename(f"export {format} of {short(model.removeprefix('models:/'))}")
        runs.set_tags({"tagger_run": tagger_run, "tagger": model})
        original = tagger.in_float32()
        configs = [member.config for member in original.members]
        rate = input_rate(configs)
        whole = whole_tagger([(m.study, m.config, m.model) for m in original.members], *original.blend)
        facts = facts_of(tagger, format, rate) | {"source": model, "tagger_run": tagger_run, "export_run": run_id}

        def write(path: Path) -> None:
            write_model(whole, path, format, facts)
            clips = check.clips_of(check, rate) if check else check.made_clips(configs, rate)
            found = check.compare(open_model(path, format)[0], original, tagger, clips, rate)
            if found.greatest > check.LIMIT:
                raise FsatError(
                    f"format={format}: a score is off by {found.greatest:.1e} on {found.clip}, expected at most "
                    f"{check.LIMIT:g}; nothing was written: try another format, or one member (members=...)"
                )
            facts.update(file=output.name, bytes=path.stat().st_size, difference=asdict(found))

        write_whole(output, write)
        difference = facts["difference"]
        sidecar = output.with_name(f"{output.name}.json")
        write_whole(sidecar, lambda path: path.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8"))
        metrics = {"difference": "greatest", "difference_mean": "mean", "same_best": "same_best",
                   "difference_as_tagged_here": "as_tagged_here", "n_checked": "n_clips"}  # fmt: skip
        runs.log_metrics({name: difference[key] for name, key in metrics.items()} | {"megabytes": facts["bytes"] / 1e6})
        for path in (output, sidecar):
            runs.log_file(path)
        descriptions.describe(lambda here: run_descriptions.export(format, output.name, facts, here))
        say(
            f"export: run {run_id}: {count(len(configs), 'member')} in {output} ({facts['bytes'] / 1e6:.1f} MB), a "
            f"waveform at {rate} Hz in, {count(len(tagger.labels), 'score')} out; scores are within "
            f"{difference['greatest']:.1e} of the original on {count(difference['n_clips'], 'clip')}"
        )
    return facts


def check_output(format: str, output: Path) -> None:
    """Raise `FsatError` where the file cannot be written or its name says that it is something else."""
    if format not in EXPORT_FORMATS:
        raise FsatError(f"format={format}: no such format; there are {', '.join(EXPORT_FORMATS)}")
    if output.suffix.lower() != f".{format}":
        raise FsatError(f"output={output}: expected a name that ends in .{format}")
    check_writable(output)


def facts_of(tagger: Tagger, format: str, rate: int) -> dict[str, Any]:
    """What a program that uses the exported tagger must know, and what it was made of."""
    method, weights = tagger.blend
    return {
        "fsat": __version__,
        "format": format,
        "sampling_rate": rate,
        "input": "waveform: float32 (n_samples,), mono, about -1 to 1, at sampling_rate",
        "output": "scores: float32 (n_classes,), probabilities in the order of labels",
        "labels": tagger.labels,
        "members": [member.name for member in tagger.members],
        "blend": method,
        "study_weights": weights,
    }
