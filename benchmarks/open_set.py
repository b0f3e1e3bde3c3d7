"""Measure how well taggers tell sounds of their classes from others: of unknown classes, and noise.

Three classes of DATA_DIR, other ones for each seed, are unknown: their clips train no model. The others are
cross-validated with reject=auto. Each fold's model scores its own clips, which it did not train on, and all unknown
sounds; the best score of a clip tells how known it seems. Thresholds are fitted on the clips of the other folds.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import Bench, Score, Section, alternate, call

SEEDS = (6001, 6002, 6003)
N_UNKNOWN = 3
"""Unknown classes; those of a seed come after those of the seed before, in the order of labels."""

N_NOISES, NOISE_SECONDS = 60, 5.0
"""Clips of coloured noise with clicks."""

PRESETS = ("cnn_logmel", "embedding")
LEAST_AUROC, MOST_LOST = 0.85, 0.1


def run(bench: Bench) -> Section:
    """Train all studies for each seed, one after the other."""
    seeds, quick = bench.pick(SEEDS, SEEDS[:1]), bench.pick({}, {"max_epochs": 1})
    presets = {name: {"preset": name} for name in PRESETS if name != "embedding" or bench.backbone}
    if bench.backbone:
        presets["embedding"]["backbone"] = str(bench.backbone)
    sides = {
        f"{name}, {seed}": partial(
            call,
            "benchmarks.open_set:study",
            data_dir=str(bench.data_dir),
            options={**options, **quick, "seed": seed},
            first=i * N_UNKNOWN,
            folder=str(bench.folder / f"{name}-{seed}"),
        )
        for i, seed in enumerate(seeds)
        for name, options in presets.items()
    }
    results = {name: result[0] for name, result in alternate(1, sides).items()}
    section = Section(libraries=["tensorflow", "keras", "librosa", "soxr", "scipy", "scikit-learn", "numpy"])
    for key, limits in (
        ("AUROC, known clips and all unknown sounds", {"at_least": LEAST_AUROC}),
        ("AUROC, known clips and clips of unknown classes", {}),
        ("AUROC, known clips and noise", {}),
        ("share of known clips that are lost", {"at_most": MOST_LOST}),
        ("share of unknown clips that get a label", {}),
        ("labels in an hour of noise", {}),
        ("accuracy on known clips", {}),
    ):
        section.scores[key] = [
            Score(f"`{name}`", [results[f"{name}, {seed}"][key] for seed in seeds],
                  **(limits if name == "cnn_logmel" else {}))
            for name in presets
        ]  # fmt: skip
    unknown = "; ".join(", ".join(results[f"cnn_logmel, {seed}"]["unknown"]) for seed in seeds)
    section.notes = [
        f"Unknown classes by seed: {unknown}. Seeds {', '.join(map(str, seeds))}. The noise is generated like that "
        "which reject=auto trains on, so scores on it are those of a known kind of noise; those on unknown classes are "
        "not.",
    ]
    return section


def study(data_dir: str, options: dict[str, Any], first: int, folder: str) -> dict[str, Any]:
    """Train every fold on the known classes, and score the known clips and the unknown sounds."""
    import shutil
    import tempfile

    import numpy as np
    import soundfile as sf

    from fsat.commands.backbones import embed_dataset, resolve_config, settle_backbone
    from fsat.commands.train import prepare_dataset
    from fsat.config import Config
    from fsat.data.dataset import Source
    from fsat.layout_options import LayoutOptions
    from fsat.metrics.multilabel import auroc
    from fsat.metrics.rejection import false_alarms_per_hour, fit_rejection
    from fsat.metrics.scaling import fit_scaling
    from fsat.models import build
    from fsat.training.fold import WEIGHTS, train_fold
    from fsat.training.predict_clips import predict_clips

    work = Path(folder)
    whole = prepare_dataset(Source(Path(data_dir)), Config.resolve({"model": "dummy1d"})).manifest
    unknown = [whole.labels[(first + i) % len(whole.labels)] for i in range(N_UNKNOWN)]
    is_unknown = whole.train["label"].isin(unknown).to_numpy()
    rng = np.random.default_rng(options["seed"])
    for part, rows in (("known", whole.train[~is_unknown]), ("unknown", whole.train[is_unknown])):
        (work / part).mkdir(parents=True)
        for i, name in enumerate(rows["fname"]):
            shutil.copyfile(whole.train_folder / name, work / part / f"{i:04d}{Path(name).suffix}")
        names = [f"{i:04d}{Path(name).suffix}" for i, name in enumerate(rows["fname"])]
        table = rows.assign(fname=names)[["fname", "label", *({"fold"} & set(rows))]]
        table.to_csv(work / part / "clips.csv", index=False)
    (work / "noise").mkdir()
    for i in range(N_NOISES):
        sf.write(work / "noise" / f"{i:04d}.wav", _noise(rng), 44100, subtype="PCM_16")
    (work / "noise" / "clips.csv").write_text(
        "fname,label,fold\n" + "".join(f"{i:04d}.wav,{'ab'[i % 2]},{i // 2 % 2}\n" for i in range(N_NOISES))
    )
    table_options = LayoutOptions(table="clips.csv")
    preset = options.pop("preset")
    config = settle_backbone(resolve_config(options | {"reject": "auto"}, preset), store=False)
    dataset = prepare_dataset(Source(work / "known", layout=table_options), config)
    others = {}
    for part in ("unknown", "noise"):
        loaded = prepare_dataset(Source(work / part, layout=table_options), dataset.config)
        embed_dataset(loaded)
        others[part] = loaded.train
    oof = np.zeros((len(dataset.targets), len(dataset.labels)), np.float32)
    strange: dict[str, list[Any]] = {part: [] for part in others}
    for fold in range(dataset.config.n_folds):
        with tempfile.TemporaryDirectory() as name:
            result = train_fold(dataset, fold, Path(name))
            model = build(dataset.config, len(dataset.labels))
            model.load_weights(Path(name) / WEIGHTS)
            oof[result.held_out] = result.train[result.held_out]
            for part, clips in others.items():
                strange[part].append(predict_clips(model, clips, dataset.config))
    measures: dict[str, list[float]] = {}
    is_right = oof.argmax(axis=1) == dataset.targets
    for fold in range(dataset.config.n_folds):
        own = dataset.folds == fold
        scaling = fit_scaling(oof[~own], dataset.targets[~own], "platt")
        known = scaling.apply(oof[own]).max(axis=1)
        limit = fit_rejection(scaling.apply(oof[~own]).max(axis=1), is_right[~own])
        parts = {part: scaling.apply(scores[fold]).max(axis=1) for part, scores in strange.items()}
        alarms = int((parts["noise"] >= limit).sum())
        values = {
            "AUROC, known clips and all unknown sounds": auroc(known, np.concatenate(list(parts.values()))),
            "AUROC, known clips and clips of unknown classes": auroc(known, parts["unknown"]),
            "AUROC, known clips and noise": auroc(known, parts["noise"]),
            "share of known clips that are lost": float((known < limit).mean()),
            "share of unknown clips that get a label": float((parts["unknown"] >= limit).mean()),
            "labels in an hour of noise": false_alarms_per_hour(alarms, N_NOISES * NOISE_SECONDS),
            "accuracy on known clips": float(is_right[own].mean()),
        }
        for key, value in values.items():
            measures.setdefault(key, []).append(value)
    means = {key: float(np.mean(values)) for key, values in measures.items()}
    return means | {"unknown": unknown}


def _noise(rng: Any) -> Any:
    """Return noise whose power falls with frequency at a random rate, with up to a dozen clicks, at a random level."""
    import numpy as np

    n = round(44100 * NOISE_SECONDS)
    spectrum = np.fft.rfft(rng.standard_normal(n)) / np.maximum(1, np.arange(n // 2 + 1)) ** rng.uniform(0, 1)
    samples = np.fft.irfft(spectrum, n)
    samples[rng.integers(0, n, rng.integers(0, 12))] += 8 * samples.std()
    return samples / np.abs(samples).max() * 10 ** rng.uniform(-2, -0.3)
