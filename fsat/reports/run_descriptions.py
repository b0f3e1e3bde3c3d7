"""What MLflow's page says of runs, registered taggers and experiments: Markdown, and names that tell what a run is.

Facts come as MLflow has them: parameters and tags are texts, scores are numbers in [0, 1] or clips or epochs. What a
user has named (folders, files, settings) is shown as code, so that it can neither be Markdown nor HTML. A link starts
with ``#``: it leads to the page that shows it, whatever its address is. `here` is the link to the run, `compare` that
to the view of all folds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsat.config import Config
from fsat.errors import count
from fsat.text import code, cut

MAP3 = "mAP@3: 1 for a clip whose label is the first guess, 1/2 for the second, 1/3 for the third, in the mean"
SEEN = {
    "own fold": "The best epoch was chosen on these very clips, so the scores are a little too good.",
    "holdout": "The best epoch was chosen on clips held aside, so the scores are fair.",
    "nothing": "No score had a part in the choice of the weights, so the scores are fair.",
}
"""What the scores are worth, by what the weights were selected on."""

MEANINGS = {
    "val_map3": f"on the clips that the fold did not train on ({MAP3})",
    "val_acc": "of these clips have the first guess right",
    "val_map3_verified": "mAP@3 on those of them whose label a person has verified",
    "oof_map3": f"out of fold: each clip is tagged only by models that did not train on it ({MAP3})",
    "oof_acc": "of the clips have the first guess right, out of fold",
    "oof_map3_verified": "mAP@3 on clips whose label a person has verified, out of fold",
    "oof_ece": "expected calibration error: how far a score is from how often it is right",
}  # fmt: skip


@dataclass(frozen=True)
class Tagger:
    """What a tagger was made of, and what it has become.

    Attributes:
        models, studies: in the order of the blend.
        n_members, n_labels: how many.
        data_dir: where the clips lay.
        blend: one of `fsat.presets.BLENDS`.
        scores: metrics of the ensemble's run.
        selected_on: as in `Config.selected_on`, joined by + where members differ.
        name, version: under which it is registered.
        news: whether that is the champion now, and why.
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
    news: str


def fold(
    params: Mapping[str, str], tags: Mapping[str, str], scores: Mapping[str, float], here: str, compare: str
) -> str:
    """Of a fold run.

    Args:
        params, tags: of the run.
        scores: its last metrics; empty while it is trained.
    """
    study, n_folds = tags.get("fsat.study", "?"), params.get("n_folds", "?")
    title = f"**{params.get('model', '?')}, fold {params.get('fold', '?')}**"
    what = (
        f"Fold {params.get('fold', '?')} of {n_folds}, counted from 0, of study {code(study)} on "
        f"{code(Path(tags.get('fsat.data_dir', '?')).name)}: {params.get('n_train', '?')} clips to train on, "
        f"{params.get('n_val', '?')} to validate. {settings(params)}"
    )
    if not scores:
        return cut("\n\n".join([
            f"{title} is not finished: its curves grow by the epoch under *Model metrics*, and its scores will stand "
            f"here. If it was stopped, ask for the fold again, and it goes on after its last epoch. "
            f"[Compare all folds]({compare})",
            what,
        ]))  # fmt: skip
    names, kept = ("val_map3", "val_acc", "val_map3_verified"), params.get("checkpoint", "best")
    epoch = f"{scores['best_epoch'] + 1:.0f}" if "best_epoch" in scores else "?"
    which = {"last": "of the last epoch", "average": f"the average of the last epochs, up to epoch {epoch}"}
    pictures = (("learning curves", "plots/learning_curves.png"), ("confusions", "plots/confusion.png"),
                ("precision of each class", "plots/class_precision.png"))  # fmt: skip
    return cut("\n\n".join([
        f"{title}: {_in_short(scores, names)}. Look at {_artifacts(here, *pictures)}; "
        f"[compare all folds]({compare}).",
        what,
        _scores(scores, names),
        f"The weights are {which.get(kept, f'of epoch {epoch}')}. {_worth(tags.get('fsat.selected_on', ''))}",
        f"Next: when all folds of the study are FINISHED, `mlflow run . -e ensemble -P studies={study}` makes a tagger "
        "of them.",
    ]))  # fmt: skip


def settings(params: Mapping[str, str]) -> str:
    """Which settings depart from the model's preset; folds are counted out, as they come from the dataset."""
    try:
        known = Config.names(params)
        config = Config.from_mapping({name: params[name] for name in known if name in params})
    except (TypeError, ValueError):  # of another version of fsat
        return "Its settings are among the parameters."
    others = {name: value for name, value in config.options().items() if name not in ("model", "folds", "precision")}
    if not others:
        return f"All settings are those of {config.model}'s preset."
    return "Settings that depart from the preset: " + ", ".join(code(f"{k}={v}") for k, v in others.items()) + "."


def study(config: Config, study: str, data_dir: Path, means: Mapping[str, float], compare: str) -> str:
    """Of a run of ``cross_validate``; `means` has the folds' mean scores, nothing while they are trained."""
    what = (
        f"Study {code(study)}: all {config.n_folds} folds on {code(data_dir.absolute().name)}, each in a run nested in "
        "this one, except those that were there already. "
        + settings({name: str(value) for name, value in config.to_dict().items()})
    )
    if not means:
        return cut(
            f"**{config.model}** is not finished, or was stopped: the same command goes on. "
            f"[Compare all folds]({compare})\n\n{what}"
        )
    return cut("\n\n".join([
        f"**{config.model}**: {_in_short(means, means)}, the mean over {config.n_folds} folds, each on the clips that "
        f"it did not train on. [Compare all folds]({compare})",
        what,
        f"Next: `mlflow run . -e ensemble -P studies={study}` makes a tagger of them.",
    ]))  # fmt: skip


def look(data_dir: Path, facts: Mapping[str, float], here: str) -> str:
    """Of a run of ``eda``; `facts` are its metrics."""
    return cut("\n\n".join([
        f"**A look at the data** in {code(data_dir.absolute().name)}.",
        f"- {facts['n_train']:.0f} training clips of {facts['n_classes']:.0f} classes, {facts['fewest_clips']:.0f} to "
        f"{facts['most_clips']:.0f} a class; a person has verified {facts['n_verified']:.0f} of the labels\n"
        f"- {facts['shortest_seconds']:.2f} to {facts['longest_seconds']:.2f} s long, "
        f"{facts['train_seconds'] / 60:.1f} min in all\n"
        f"- {facts['n_test']:.0f} test clips",
        f"Look at {_artifacts(here, ('the whole report', 'eda.html'))}; figures and tables are artifacts too. Clips "
        "that were left out, if any, are in `exclusions.csv`.",
        "Next: `mlflow run . -e cross_validate -P data_dir=DIR` trains a model on it.",
    ]))  # fmt: skip


def everything(
    data_dir: Path, models: Sequence[str], rows: Sequence[Mapping[str, Any]], news: str, compare: str
) -> str:
    """Of a run of ``main``; `rows` are of the table of scores, empty while it works, and `news` of the tagger."""
    what = (
        f"All of it on {code(data_dir.absolute().name)}: a look at the data, every fold of {', '.join(models)}, the "
        "best blend as a registered tagger, and tags of clips. Each step is a run nested in this one."
    )
    if not rows:
        return cut(f"It is not finished, or was stopped. [Compare all folds]({compare})\n\n{what}")
    names = ("study", "model", "OOF mAP@3", "accuracy", "mAP@3 verified", "minutes")
    table = [f"| {' | '.join(names)} |", "| --- " * len(names) + "|"]
    for row in rows:
        numbers = (f"{row[name]:.4f}" for name in ("map3", "accuracy", "map3_verified", "minutes"))
        table.append(f"| {' | '.join([row['study'], row['model'], *numbers])} |")
    return cut("\n\n".join([
        f"{news}. [Compare all folds]({compare})",
        "\n".join(table),
        f"OOF is out of fold: {MEANINGS['oof_map3'].partition(': ')[2]}.",
        what,
    ]))  # fmt: skip


def ensemble(made: Tagger, here: str, compare: str) -> str:
    """Of a run of ``ensemble``."""
    report, scores = ("the whole report", "report.html"), ("scores of members, studies and blends", "scores.csv")
    return cut("\n\n".join([
        f"{made.news}. Look at {_artifacts(here, report, scores)}; [compare all folds]({compare}).",
        f"A tagger of {count(made.n_members, 'fold')} of {' + '.join(made.models)} on "
        f"{code(Path(made.data_dir).name)}: {'studies' if len(made.studies) > 1 else 'study'} "
        f"{', '.join(map(code, made.studies))}, blended by `{made.blend}` mean.",
        _scores(made.scores, ("oof_map3", "oof_acc", "oof_map3_verified", "oof_ece")),
        f"{_worth(made.selected_on)} Tables are in `reports/`, figures in `plots/`.",
        "Next: `mlflow run . -e predict -P input=DIR` tags sounds of yours with the champion.",
    ]))  # fmt: skip


def verification(
    round_number: int,
    studies: Sequence[str],
    counts: Mapping[str, int],
    wrong_share: float,
    warning: str,
    run_id: str,
    here: str,
) -> str:
    """Of a run of ``verify``; `counts` are clips by decision, `warning` may be empty."""
    return cut("\n\n".join([
        f"**Which unverified labels to believe**, round {round_number}, by the out-of-fold predictions of "
        f"{'studies' if len(studies) > 1 else 'study'} {', '.join(map(code, studies))}.",
        f"Of {sum(counts.values()) - counts['verified']} unverified labels, about {wrong_share:.0%} of them wrong, "
        f"{counts['accept']} are accepted, {counts['relabel']} replaced, {counts['drop']} dropped and "
        f"{counts['keep']} kept as they are.",
        *([f"**Warning**: {warning}."] if warning else []),
        f"Look at {_artifacts(here, ('each clip and what was decided', 'labels.csv'))}.",
        f"Next: `mlflow run . -e cross_validate -P labels_run_id={run_id}` trains on these labels.",
    ]))  # fmt: skip


def tagging(
    input: str, model: str, n_files: int, n_failed: int, output: str, others: Mapping[str, Any], here: str
) -> str:
    """Of a run of ``predict``; `others` are settings that depart from the usual."""
    failed = f"{n_failed} could not be tagged; their rows say why" if n_failed else "all could be tagged"
    asked = f" With {', '.join(code(f'{name}={value}') for name, value in others.items())}." if others else ""
    return cut(
        f"**Tags** of {count(n_files, 'file')} in {code(input)} by {code(model)}: {failed}.{asked}\n\n"
        f"The table is {_artifacts(here, (output, output))}."
    )


def exported(format: str, output: str, facts: Mapping[str, Any], here: str) -> str:
    """Of a run of ``export``; `facts` are what stands in the file beside the model."""
    difference = facts["difference"]
    return cut("\n\n".join([
        f"**{code(facts['source'])} as {format}**: {count(len(facts['members']), 'member')} in {code(output)}, "
        f"{facts['bytes'] / 1e6:.1f} MB; a waveform at {facts['sampling_rate']} Hz in, "
        f"{count(len(facts['labels']), 'score')} out.",
        f"Its scores are within {difference['greatest']:.1e} of the original's on "
        f"{count(difference['n_clips'], 'clip')}.",
        f"Take {_artifacts(here, ('the model', output), ('what it is', f'{output}.json'))}.",
    ]))  # fmt: skip


def version(made: Tagger, run: str) -> str:
    """Of a version of a registered tagger; `run` is the link to the ensemble's run."""
    uri = f"models:/{made.name}/{made.version}"
    return cut("\n\n".join([
        f"Tags sounds with {count(made.n_labels, 'label')}: a blend of {count(made.n_members, 'fold')} of "
        f"{' + '.join(made.models)}, trained on {code(Path(made.data_dir).name)}. [How good it is]({run})",
        _scores(made.scores, ("oof_map3", "oof_acc", "oof_map3_verified")),
        f"Use it by `mlflow run . -e predict -P input=DIR -P model={uri}`, or `mlflow models serve -m {uri} "
        "--env-manager local`.",
    ]))  # fmt: skip


def registered(name: str) -> str:
    """Of a registered tagger as a whole."""
    return cut(
        f"Taggers that fsat has made: clips of sound in, labels with scores out. `models:/{name}@champion` is the best "
        "by out-of-fold mAP@3 on the newest dataset, unless a person has chosen another. Each version says what it is "
        "made of and how good it is."
    )


def experiment(compare: str) -> str:
    """Of an experiment with fsat's runs."""
    return f"Taggers of sounds, trained by fsat. **[Compare all folds]({compare})**: one colour a study."


def _in_short(scores: Mapping[str, float], names: Iterable[str]) -> str:
    return ", ".join(f"`{name}` **{scores[name]:.4f}**" for name in names if name in scores)


def _scores(scores: Mapping[str, float], names: Sequence[str]) -> str:
    return "\n".join(f"- `{name}` **{scores[name]:.4f}** {MEANINGS[name]}" for name in names if name in scores)


def _worth(selected_on: str) -> str:
    """What scores are worth; of a blend, every kind of its members'."""
    kinds = dict.fromkeys(kind.partition(",")[0] for kind in selected_on.split("+"))
    words = [SEEN[kind] for kind in kinds if kind in SEEN]
    if "labels" in selected_on:
        words.append(
            "Its labels come from models that have seen these clips, which makes the scores a little too good."
        )
    return " ".join(words)


def _artifacts(here: str, *named: tuple[str, str]) -> str:
    return ", ".join(f"[{what}]({here}/artifacts/{path})" for what, path in named)
