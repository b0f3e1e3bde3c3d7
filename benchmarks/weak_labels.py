"""Measure how much of the loss by wrong labels `verify` recovers, and how well it finds them.

For each fold of DATA_DIR, whose labels are correct, the clips of the other folds are training clips: a share of them is
marked with ``manually_verified=0``, and a share of those gets a wrong label. The clips of the fold are test clips, used
only for the score. Three sides cross-validate within the training clips:

- clean: on the true labels;
- naive: on the given labels with equal weights;
- fsat: `verify` decides with the out-of-fold predictions of naive's study, and a second study trains on the result;
  `verify` decides again with both studies, and a third study trains on that.
"""

from __future__ import annotations

import shutil
import statistics
import time
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from benchmarks.harness import Bench, BenchmarkError, Score, Section, call, side_by_side

Results: TypeAlias = dict[int, list[dict[str, dict[str, Any]]]]
"""By seed, the results of each fold by side and measure."""

SEEDS = (201, 202, 203)
"""Seeds of noise and training; the settings of `verify` were chosen on others."""

CHOSEN_ON = "101 and 102"
UNVERIFIED, WRONG = 0.61, 0.35
N_FOLDS = 3
"""Folds within the training clips."""

CLEAN, NAIVE, TOGETHER = "clean", "naive", "naive and both rounds"
FSAT = ("fsat, one round", "fsat, two rounds")
SIDES = (CLEAN, NAIVE, *FSAT)


def run(bench: Bench, preset: str = "cnn_logmel", changes: dict[str, Any] | None = None) -> Section:
    """Train all sides for each seed and fold, with a preset and changes of its settings."""
    folds = call("benchmarks.weak_labels:folds_of", data_dir=str(bench.data_dir))
    seeds, folds = bench.pick(SEEDS, SEEDS[:1]), bench.pick(folds, folds[:1])
    options = {"preset": preset, **(changes or {}), **bench.pick({}, {"max_epochs": 2})}
    facts, jobs = {}, {}
    given, true = on_given_labels.__name__, on_true_labels.__name__
    for seed in seeds:
        for fold in folds:
            data = bench.folder / f"{seed}-{fold}"
            arguments = {"data_dir": str(bench.data_dir), "fold": fold, "seed": seed, "folder": str(data)}
            facts = call("benchmarks.weak_labels:write_noisy", **arguments)
            jobs |= {
                f"{function}, {seed}, {fold}": partial(
                    call,
                    f"benchmarks.weak_labels:{function}",
                    data_dir=str(data),
                    seed=seed,
                    options=options,
                    environment={"MLFLOW_TRACKING_URI": f"sqlite:///{data}-{function}.db"},
                    cwd=bench.folder,
                )
                for function in (given, true)
            }
    job_results = side_by_side(jobs)
    results: Results = {
        seed: [job_results[f"{given}, {seed}, {fold}"] | job_results[f"{true}, {seed}, {fold}"] for fold in folds]
        for seed in seeds
    }
    return _section(results, facts, preset)


def _section(results: Results, facts: dict[str, int], preset: str) -> Section:
    def values(side: str, key: str) -> list[float]:
        """Return means over the folds, one per seed."""
        return [statistics.mean(result[side][key] for result in folds) for folds in results.values()]

    def recovered(side: str, key: str, **limits: float) -> Score:
        """Return the share of the loss by wrong labels that `side` recovers, from the means over all seeds."""
        by_side = [values(name, key) for name in (CLEAN, NAIVE, side)]
        shares = [
            (fsat - naive) / (clean - naive) if clean != naive else 0.0
            for clean, naive, fsat in (map(statistics.mean, by_side), *zip(*by_side, strict=True))
        ]
        remark = f"by seed {', '.join(f'{share:.2f}' for share in shares[1:])}"
        return Score(f"({side} - naive) / (clean - naive), of the means", shares[:1], remark=remark, **limits)

    section = Section(libraries=["tensorflow", "keras", "mlflow", "scikit-learn", "numpy"])
    section.scores["mAP@3 of one model, on the fold's own clips, true labels"] = [
        *(
            Score(
                side,
                values(side, "map3"),
                remark=f"{models} models in {statistics.mean(values(side, 'minutes')):.1f} min",
            )
            for side, models in zip(SIDES, (N_FOLDS, N_FOLDS, 2 * N_FOLDS, 3 * N_FOLDS), strict=True)
        ),
        recovered(FSAT[0], "map3", at_least=0.5, aim=0.8),
        recovered(FSAT[1], "map3"),
    ]
    section.scores[f"mAP@3 of the {N_FOLDS} models' blend"] = [
        *(Score(side, values(side, "map3_blend")) for side in SIDES),
        recovered(FSAT[0], "map3_blend"),
        recovered(FSAT[1], "map3_blend"),
        Score(f"{TOGETHER}: {3 * N_FOLDS} models", values(TOGETHER, "map3_blend")),
    ]
    for name, key in (("accuracy", "accuracy"), ("log loss", "log_loss")):
        section.scores[f"{name} of one model, and of the blend"] = [
            Score(side, values(side, key), remark=f"blend {statistics.mean(values(side, key + '_blend')):.4f}")
            for side in SIDES
        ]
    section.scores["finding wrong labels among unverified clips"] = [
        Score("average precision of reports/suspects.csv: naive", values(NAIVE, "suspects"), at_least=0.75, aim=0.9),
        Score(f"the same: {TOGETHER}, {3 * N_FOLDS} models", values(TOGETHER, "suspects")),
        *(Score(f"share of wrong labels, estimated by verify: {side}", values(side, "wrong_share")) for side in FSAT),
        *_decisions(results),
    ]
    section.notes = [
        f"Each fold: {facts['train']} training clips, {facts['unverified']} of them unverified, {facts['wrong']} of "
        f"those with a wrong label, uniformly among the other classes; {facts['test']} test clips with true labels, "
        f"which no training and no decision uses. {N_FOLDS} stratified folds within the training clips; one model: the "
        "mean of their scores, blend: the score of their geometric mean. Values are means over the folds of DATA_DIR "
        "for each seed (of noise, split and training). The settings of `verify` were chosen "
        f"with `cnn_logmel` on seeds {CHOSEN_ON}; these are seeds {', '.join(map(str, results))}.",
        f"clean: `{preset}` on the true labels. naive: `{preset}` on the given ones, with equal weights. fsat: "
        f"`verify` with naive's study, and `{preset}` with `labels_run_id`; in the second round `verify` with both "
        "studies. Minutes include all work of a side for one fold of DATA_DIR, with scoring, on one core. Accepting "
        "is correct if the label is true, dropping if it is wrong, replacing if the new label is true.",
    ]
    return section


def _decisions(results: Results) -> list[Score]:
    """Return the share of correct decisions of `verify`, one per seed."""
    scores = []
    for side in FSAT:
        for decision in ("accept", "relabel", "drop"):
            counts = [
                [sum(result[side][key] for result in folds) for key in (f"n_{decision}", f"n_correct_{decision}")]
                for folds in results.values()
            ]
            n_folds = sum(len(folds) for folds in results.values())
            shares = [correct / n for n, correct in counts if n] or [0.0]
            remark = f"{sum(n for n, _ in counts) / n_folds:.0f} clips per fold"
            scores.append(Score(f"share of correct decisions, {decision}: {side}", shares, remark=remark))
    return scores


def folds_of(data_dir: str) -> list[str]:
    """Return the values of the column ``fold``."""
    import pandas as pd

    return sorted(pd.read_csv(Path(data_dir) / "train.csv", dtype=str)["fold"].unique())


def write_noisy(data_dir: str, fold: str, seed: int, folder: str) -> dict[str, int]:
    """Write a dataset with one fold as test clips, and wrong labels among the unverified training clips.

    Returns:
        numbers of ``train``, ``unverified``, ``wrong`` and ``test`` clips.
    """
    import numpy as np
    import pandas as pd

    out, source = Path(folder), Path(data_dir).absolute()
    table = pd.read_csv(source / "train.csv", dtype=str)
    if "freesound_id" not in table:
        raise BenchmarkError(f"{data_dir}: train.csv has no column freesound_id; expected the layout of README.md")
    labels = sorted(table["label"].unique())
    train, test = table[table["fold"] != fold].copy(), table[table["fold"] == fold]
    rng = np.random.default_rng([seed, int(fold)])
    unverified = rng.choice(len(train), round(UNVERIFIED * len(train)), replace=False)
    wrong = rng.choice(unverified, round(WRONG * len(unverified)), replace=False)
    given = train["label"].to_numpy().copy()
    for i in wrong:
        given[i] = rng.choice([label for label in labels if label != given[i]])
    verified = np.ones(len(train), dtype=int)
    verified[unverified] = 0
    out.mkdir(parents=True)
    for name, clips in (("audio_train", train), ("audio_test", test)):
        (out / name).mkdir()
        for fname in clips["fname"]:
            shutil.copyfile(source / "audio_train" / fname, out / name / fname)
    train[["fname", "label"]].to_csv(out / "train_truth.csv", index=False)
    train.assign(label=given, manually_verified=verified).drop(columns="fold").to_csv(out / "train.csv", index=False)
    test[["fname", "label"]].to_csv(out / "test_truth.csv", index=False)
    test[["fname"]].assign(label="").to_csv(out / "sample_submission.csv", index=False)
    return {"train": len(train), "unverified": len(unverified), "wrong": len(wrong), "test": len(test)}


def on_true_labels(data_dir: str, seed: int, options: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Train on the true labels, the side clean."""
    import pandas as pd

    folder = Path(data_dir)
    true = folder.with_name(folder.name + "-true")
    shutil.copytree(folder, true)
    table = pd.read_csv(folder / "train.csv", dtype=str)
    table["label"] = _truth(folder, "train_truth.csv")[table["fname"]].to_numpy()
    table.assign(manually_verified=1).to_csv(true / "train.csv", index=False)
    start = time.perf_counter()
    clean = {CLEAN: _score(_study(true, seed, options), true)}
    return _add_minutes(clean, start)


def on_given_labels(data_dir: str, seed: int, options: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Train on the given labels, verify and train on the result, twice: the sides naive and fsat."""
    from fsat.commands.verify_labels import verify

    folder, start = Path(data_dir), time.perf_counter()
    rounds = [_study(folder, seed, options)]
    results = _add_minutes({NAIVE: _score(rounds[0], folder) | _suspects(rounds[0], folder)}, start)
    for name in FSAT:
        verified = verify([run for study in rounds for run in study])
        rounds.append(_study(folder, seed, {**options, "labels_run_id": verified.run_id}))
        scores = _score(rounds[-1], folder) | _count_decisions(verified.table, _truth(folder, "train_truth.csv"))
        results |= _add_minutes({name: scores | {"wrong_share": verified.wrong_share}}, start)
    together = [run for study in rounds for run in study]
    return results | {TOGETHER: _score(together, folder) | _suspects(together, folder)}


def _add_minutes(results: dict[str, dict[str, float]], start: float) -> dict[str, dict[str, float]]:
    """Add the minutes since `start` to the results of each side."""
    return {side: {**scores, "minutes": (time.perf_counter() - start) / 60} for side, scores in results.items()}


def _study(folder: Path, seed: int, options: dict[str, Any]) -> list[str]:
    """Cross-validate within the training clips; return the run ids of the folds."""
    from fsat.commands.backbones import resolve_config
    from fsat.commands.train import cross_validate
    from fsat.data.dataset import Source

    settings = {name: value for name, value in options.items() if name != "preset"}
    config = resolve_config({"n_folds": N_FOLDS, "folds": "stratified", "seed": seed, **settings}, options["preset"])
    return [record.run_id for record in cross_validate(Source(folder), config)]


def _score(run_ids: list[str], folder: Path) -> dict[str, float]:
    """Return mAP@3, accuracy and log loss on the test clips: means over the models, and of their geometric mean."""
    import numpy as np
    import pandas as pd
    from mlflow.artifacts import download_artifacts, load_dict

    from fsat.metrics.ranking import accuracy, log_loss, map_at_k

    parts = [Path(download_artifacts(run_id=run_id, artifact_path="predictions")) for run_id in run_ids]
    labels = load_dict(f"runs:/{run_ids[0]}/labels.json")
    clips = pd.read_csv(parts[0] / "clips.csv", dtype=str).query("split == 'test'")
    targets = _truth(folder, "test_truth.csv")[clips["fname"]].map(labels.index).to_numpy()
    predictions = [np.load(part / "test.npy") for part in parts]
    blend = np.exp(np.mean([np.log(np.maximum(scores, 1e-12)) for scores in predictions], axis=0))
    blend /= blend.sum(axis=1, keepdims=True)
    results = {}
    for name, measure in (("map3", map_at_k), ("accuracy", accuracy), ("log_loss", log_loss)):
        results[name] = float(np.mean([measure(scores, targets) for scores in predictions]))
        results[f"{name}_blend"] = float(measure(blend, targets))
    return results


def _suspects(run_ids: list[str], folder: Path) -> dict[str, float]:
    """Return the average precision of reports/suspects.csv of the runs' ensemble for wrong unverified labels."""
    import pandas as pd
    from mlflow.artifacts import download_artifacts
    from sklearn.metrics import average_precision_score

    from fsat.commands.ensemble import ensemble

    result = ensemble(run_ids=run_ids, promote="never")
    suspects = pd.read_csv(download_artifacts(run_id=result.run_id, artifact_path="reports/suspects.csv"))
    table = pd.read_csv(folder / "train.csv", dtype=str).set_index("fname")
    unverified = table[table["manually_verified"] == "0"]
    wrong = unverified["label"] != _truth(folder, "train_truth.csv")[unverified.index]
    ranked = suspects.set_index("fname")["score"].reindex(unverified.index).fillna(-1.0)  # other clips come last
    return {"suspects": float(average_precision_score(wrong, ranked))}


def _count_decisions(table: Any, truth: Any) -> dict[str, float]:
    """Return the number of each decision of `verify`, and how many of them were correct."""
    true = truth[table["fname"]].to_numpy()
    correct = {
        "accept": table["label"] == true,
        "relabel": table["new_label"] == true,
        "drop": table["label"] != true,
    }
    counts = {}
    for decision, is_correct in correct.items():
        rows = table["decision"] == decision
        counts |= {f"n_{decision}": int(rows.sum()), f"n_correct_{decision}": int(is_correct[rows].sum())}
    return counts


def _truth(folder: Path, name: str):
    import pandas as pd

    return pd.read_csv(folder / name, dtype=str).set_index("fname")["label"]
