"""Markdown descriptions of runs, registered taggers and experiments, as the MLflow UI shows them.

Conventions: parameters and tags are texts, as MLflow stores them; scores are in [0, 1]. Names that a user chose
(folders, files, settings) are shown as code, so that they cannot act as Markdown or HTML. Links start with ``#``, so
they work at any server address: `run_link` leads to the run, `view_link` to the view that compares all folds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from fsat.config import Config
from fsat.errors import count
from fsat.text import code, cut

MAP3 = "mAP@3: 1 for a clip whose label is the first guess, 1/2 for the second, 1/3 for the third, averaged"
SELECTION = {
    "own fold": "The best epoch was chosen on these very clips, so the scores are slightly optimistic.",
    "holdout": "The best epoch was chosen on other clips, set aside for it, so the scores are fair.",
    "nothing": "No score influenced the choice of the weights, so the scores are fair.",
}
"""How far the scores can be trusted, by what the weights were selected on."""

MEANINGS = {
    "val_map3": f"on the clips that the fold did not train on ({MAP3})",
    "val_acc": "of these clips have the correct first guess",
    "val_map3_verified": "mAP@3 on those of them whose label a person has verified",
    "oof_map3": f"out of fold: each clip is tagged only by models that did not train on it ({MAP3})",
    "oof_acc": "of the clips have the correct first guess, out of fold",
    "oof_map3_verified": "mAP@3 on clips whose label a person has verified, out of fold",
    "oof_ece": "expected calibration error: the mean gap between a score and the share of guesses that are correct",
}
FOLD_SCORES = ("val_map3", "val_acc", "val_map3_verified")
TAGGER_SCORES = ("oof_map3", "oof_acc", "oof_map3_verified")


@dataclass(frozen=True)
class Tagger:
    """A registered tagger.

    Attributes:
        models, studies: in the order of the blend.
        n_members, n_labels: numbers of fold models and of labels.
        data_dir: folder of the training clips.
        blend: one of `fsat.presets.BLENDS`.
        scores: metrics of the ensemble's run.
        selected_on: as `Config.selected_on`, joined by + where members differ.
        name, version: of the registered model.
        outcome: whether it is the champion now, and why.
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


def fold(
    params: Mapping[str, str], tags: Mapping[str, str], scores: Mapping[str, float], run_link: str, view_link: str
) -> str:
    """Describe a fold run; `scores` are its final metrics, empty while it trains."""
    study, title = tags["fsat.study"], f"**{params['model']}, fold {params['fold']}**"
    facts = (
        f"Fold {params['fold']} of {params['n_folds']}, counted from 0, of study {code(study)} on "
        f"{code(Path(tags['fsat.data_dir']).name)}: {params['n_train']} clips to train on, {params['n_val']} to "
        f"validate. {settings(params)}"
    )
    if not scores:
        return _paragraphs(
            f"{title} is not finished: its curves under *Model metrics* grow with every epoch, and its scores will be "
            f"shown here. If it was stopped, start the fold again: it resumes after its last epoch. "
            f"[Compare all folds]({view_link})",
            facts,
        )
    plots = {
        "learning curves": "plots/learning_curves.png",
        "confusions": "plots/confusion.png",
        "precision of each class": "plots/class_precision.png",
    }
    epoch = f"{scores['best_epoch'] + 1:.0f}"
    weights = {
        "best": f"of epoch {epoch}",
        "last": "of the last epoch",
        "average": f"the average of the last epochs, up to epoch {epoch}",
    }
    return _paragraphs(
        f"{title}: {_summary(scores, FOLD_SCORES)}. Look at {_artifacts(run_link, plots)}; "
        f"[compare all folds]({view_link}).",
        facts,
        _score_list(scores, FOLD_SCORES),
        f"The weights are {weights[params['checkpoint']]}. {_selection(tags.get('fsat.selected_on', ''))}",
        f"Next: when all folds of the study are FINISHED, `mlflow run . -e ensemble -P studies={study}` makes a tagger "
        "of them.",
    )


def settings(params: Mapping[str, Any]) -> str:
    """Name the settings that differ from the model's preset, without folds, which come from the dataset."""
    config = Config.from_mapping({field.name: params[field.name] for field in fields(Config)})
    changed = {name: value for name, value in config.options().items() if name not in ("model", "folds", "precision")}
    if not changed:
        return f"All settings are those of {config.model}'s preset."
    options = ", ".join(code(f"{name}={value}") for name, value in changed.items())
    return f"Settings that differ from the preset: {options}."


def study(config: Config, study: str, data_dir: Path, means: Mapping[str, float], view_link: str) -> str:
    """Describe a run of ``cross_validate``; `means` are the folds' mean scores, empty while they train."""
    facts = (
        f"Study {code(study)}: all {config.n_folds} folds on {code(data_dir.absolute().name)}, each in a run nested in "
        f"this one, except folds that were finished before. {settings(config.to_dict())}"
    )
    if not means:
        return _paragraphs(
            f"**{config.model}** is not finished, or was stopped: the same command resumes it. "
            f"[Compare all folds]({view_link})",
            facts,
        )
    return _paragraphs(
        f"**{config.model}**: {_summary(means, means)}, the mean over {config.n_folds} folds, each on the clips that "
        f"it did not train on. [Compare all folds]({view_link})",
        facts,
        f"Next: `mlflow run . -e ensemble -P studies={study}` makes a tagger of them.",
    )


def eda(data_dir: Path, metrics: Mapping[str, float], run_link: str) -> str:
    """Describe a run of ``eda`` by its metrics."""
    number = {name: round(value) for name, value in metrics.items()}
    return _paragraphs(
        f"**A look at the data** in {code(data_dir.absolute().name)}.",
        f"- {count(number['n_train'], 'training clip')} of {count(number['n_classes'], 'class')}, "
        f"{number['fewest_clips']} to {number['most_clips']} per class; a person has verified {number['n_verified']} "
        "of the labels\n"
        f"- {metrics['shortest_seconds']:.2f} to {metrics['longest_seconds']:.2f} s long, "
        f"{metrics['train_seconds'] / 60:.1f} min in total\n"
        f"- {count(number['n_test'], 'test clip')}",
        f"Look at {_artifacts(run_link, {'the whole report': 'eda.html'})}; figures and tables are artifacts too. "
        "Excluded clips, if any, are listed in `exclusions.csv`.",
        "Next: `mlflow run . -e cross_validate -P data_dir=DIR` trains a model on it.",
    )


def main(data_dir: Path, models: Sequence[str], rows: Sequence[Mapping[str, Any]], outcome: str, view_link: str) -> str:
    """Describe a run of ``main`` by the rows of its table of scores, empty while it runs, and the tagger's outcome."""
    facts = (
        f"All steps on {code(data_dir.absolute().name)}: a look at the data, every fold of {', '.join(models)}, the "
        "best blend as a registered tagger, and tags of clips. Each step is a run nested in this one."
    )
    if not rows:
        return _paragraphs(f"It is not finished, or was stopped. [Compare all folds]({view_link})", facts)
    names = ("study", "model", "OOF mAP@3", "accuracy", "mAP@3 verified", "minutes")
    table = [f"| {' | '.join(names)} |", "| --- " * len(names) + "|"]
    for row in rows:
        numbers = (f"{row[name]:.4f}" for name in ("map3", "accuracy", "map3_verified", "minutes"))
        table.append(f"| {' | '.join([row['study'], row['model'], *numbers])} |")
    return _paragraphs(
        f"{outcome}. [Compare all folds]({view_link})",
        "\n".join(table),
        f"OOF is out of fold: {MEANINGS['oof_map3'].partition(': ')[2]}.",
        facts,
    )


def ensemble(tagger: Tagger, run_link: str, view_link: str) -> str:
    """Describe a run of ``ensemble``."""
    pages = {"the whole report": "report.html", "scores of members, studies and blends": "scores.csv"}
    return _paragraphs(
        f"{tagger.outcome}. Look at {_artifacts(run_link, pages)}; [compare all folds]({view_link}).",
        f"A tagger of {count(tagger.n_members, 'fold')} of {' + '.join(tagger.models)} on "
        f"{code(Path(tagger.data_dir).name)}: {_studies(tagger.studies)}, blended by `{tagger.blend}` mean.",
        _score_list(tagger.scores, (*TAGGER_SCORES, "oof_ece")),
        f"{_selection(tagger.selected_on)} Tables are in `reports/`, figures in `plots/`.",
        "Next: `mlflow run . -e predict -P input=DIR` tags sounds of yours with the champion.",
    )


def verify(
    round_number: int,
    studies: Sequence[str],
    counts: Mapping[str, int],
    wrong_share: float,
    warning: str,
    run_id: str,
    run_link: str,
) -> str:
    """Describe a run of ``verify``; `counts` are numbers of clips by decision, `warning` may be empty."""
    return _paragraphs(
        f"**Which unverified labels to trust**, round {round_number}, by the out-of-fold predictions of "
        f"{_studies(studies)}.",
        f"Of {count(sum(counts.values()) - counts['verified'], 'unverified label')}, about {wrong_share:.0%} of them "
        f"wrong, {counts['accept']} are accepted, {counts['relabel']} replaced, {counts['drop']} dropped and "
        f"{counts['keep']} left unchanged.",
        f"**Warning**: {warning}." if warning else "",
        f"Look at {_artifacts(run_link, {'each clip and its decision': 'labels.csv'})}.",
        f"Next: `mlflow run . -e cross_validate -P labels_run_id={run_id}` trains on these labels.",
    )


def predict(
    input: str, model: str, n_files: int, n_failed: int, output: str, options: Mapping[str, Any], run_link: str
) -> str:
    """Describe a run of ``predict``; `options` are settings that differ from the defaults."""
    failed = f"{n_failed} could not be tagged; their rows say why" if n_failed else "all could be tagged"
    changed = f" With {', '.join(code(f'{name}={value}') for name, value in options.items())}." if options else ""
    return _paragraphs(
        f"**Tags** of {count(n_files, 'file')} in {code(input)} by {code(model)}: {failed}.{changed}",
        f"The table is {_artifacts(run_link, {output: output})}.",
    )


def export(format: str, output: str, facts: Mapping[str, Any], run_link: str) -> str:
    """Describe a run of ``export``; `facts` is the content of the JSON file beside the model."""
    difference, files = facts["difference"], {"the model": output, "its description": f"{output}.json"}
    return _paragraphs(
        f"**{code(facts['source'])} as {format}**: {count(len(facts['members']), 'member')} in {code(output)}, "
        f"{facts['bytes'] / 1e6:.1f} MB; a waveform at {facts['sampling_rate']} Hz in, "
        f"{count(len(facts['labels']), 'score')} out.",
        f"Its scores are within {difference['greatest']:.1e} of the original's on "
        f"{count(difference['n_clips'], 'clip')}.",
        f"Download {_artifacts(run_link, files)}.",
    )


def version(tagger: Tagger, run_link: str) -> str:
    """Describe a version of a registered tagger; `run_link` leads to the ensemble's run."""
    uri = f"models:/{tagger.name}/{tagger.version}"
    return _paragraphs(
        f"Tags sounds with {count(tagger.n_labels, 'label')}: a blend of {count(tagger.n_members, 'fold')} of "
        f"{' + '.join(tagger.models)}, trained on {code(Path(tagger.data_dir).name)}. [How good it is]({run_link})",
        _score_list(tagger.scores, TAGGER_SCORES),
        f"Use it by `mlflow run . -e predict -P input=DIR -P model={uri}`, or `mlflow models serve -m {uri} "
        "--env-manager local`.",
    )


def registered(name: str) -> str:
    """Describe a registered model with all its versions."""
    return _paragraphs(
        f"Taggers made by fsat: clips of sound in, labels with scores out. `models:/{name}@champion` is the best by "
        "out-of-fold mAP@3 on the newest dataset, unless a person has chosen another. Each version says what it is "
        "made of and how good it is."
    )


def experiment(view_link: str) -> str:
    """Describe an experiment with fsat's runs."""
    return f"Taggers of sounds, trained by fsat. **[Compare all folds]({view_link})**: one colour per study."


def _paragraphs(*texts: str) -> str:
    return cut("\n\n".join(filter(None, texts)))


def _studies(studies: Sequence[str]) -> str:
    return f"{'studies' if len(studies) > 1 else 'study'} {', '.join(map(code, studies))}"


def _summary(scores: Mapping[str, float], names: Iterable[str]) -> str:
    return ", ".join(f"`{name}` **{scores[name]:.4f}**" for name in names if name in scores)


def _score_list(scores: Mapping[str, float], names: Sequence[str]) -> str:
    return "\n".join(f"- `{name}` **{scores[name]:.4f}** {MEANINGS[name]}" for name in names if name in scores)


def _selection(selected_on: str) -> str:
    """Say how far scores can be trusted; for a blend, by every way in which its members were selected."""
    ways = dict.fromkeys(part.partition(",")[0] for part in selected_on.split("+"))
    texts = [SELECTION[way] for way in ways if way in SELECTION]
    if "labels" in selected_on:
        texts.append("Its labels come from models that have seen these clips, so the scores are slightly optimistic.")
    return " ".join(texts)


def _artifacts(run_link: str, paths: Mapping[str, str]) -> str:
    return ", ".join(f"[{text}]({run_link}/artifacts/{path})" for text, path in paths.items())
