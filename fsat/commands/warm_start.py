"""Start trainings from earlier taggers: what all folds of a dataset start from, and the weights of one fold."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from fsat.config import Config
from fsat.data.dataset import Dataset, Start
from fsat.progress import say
from fsat.reports import run_descriptions
from fsat.tracking.select_runs import INIT_FOLDS, INIT_FROM, INIT_TAGGER, NEW_LAYERS
from fsat.tracking.warm_start import EarlierRuns, choose_start, fetch_weights, find_earlier
from fsat.training.warm_start import Earlier, describe_new


def with_version(config: Config) -> Config:
    """Replace the alias of a tagger in ``init_from`` by its version; raise `RunError` if nothing fits the model."""
    if config.init_from == "none":
        return config
    return replace(config, init_from=find_earlier(config).tagger or config.init_from)


def settle_start(earlier: EarlierRuns, dataset: Dataset) -> Start:
    """Choose what each fold of a dataset starts from, and say so; raise `RunError` as `choose_start`."""
    start, asked = choose_start(earlier, dataset), dataset.config.init_from
    run_ids = start.init_from.split(",")
    version = f" ({start.tagger})" if start.tagger not in ("", asked) else ""
    if len(run_ids) == 1:
        record = earlier.chosen[0]
        folds = f"all folds start from run {run_ids[0]}, fold {record.fold} of study {record.study}"
    else:
        folds = f"each fold starts from the earlier run of the same fold: {', '.join(run_ids)}"
    say(f"init_from={asked}{version}: {folds}")
    if start.leak:
        say(f"warning: scores will be too high ({start.leak})")
    return start


def start_tags(dataset: Dataset, fold: int | None = None) -> dict[str, str]:
    """Return the tags of the runs that a fold, or the study, starts from; none without ``init_from``."""
    if dataset.start is None:
        return {}
    runs, tagger = dataset.config.init_from, dataset.start.tagger
    tags = {INIT_FROM: runs if fold is None else dataset.config.init_run(fold)}
    tags |= {INIT_FOLDS: runs} if runs != tags[INIT_FROM] else {}
    return tags | ({INIT_TAGGER: tagger} if tagger else {})


def describe_start(tags: Mapping[str, str]) -> str:
    """Say what a run with these tags starts from; empty for none."""
    return run_descriptions.origin(tags.get(INIT_FROM, ""), tags.get(INIT_TAGGER, ""))


def new_layer_tags(layers: dict[str, str]) -> dict[str, str]:
    """Return the tag of a fold run that names its layers with new weights, as from `start_from`."""
    return {NEW_LAYERS: describe_new(layers)}


def earlier_model(run_id: str) -> Earlier:
    """Return the model of a fold run; the last one is fetched once per process."""
    return _fetch(run_id)[0]


@lru_cache(maxsize=1)
def _fetch(run_id: str) -> tuple[Earlier, tempfile.TemporaryDirectory]:
    """Return the model of a fold run, and the folder of its weights, which is removed when it is forgotten."""
    folder = tempfile.TemporaryDirectory(prefix="fsat-")
    member = fetch_weights(run_id, Path(folder.name))
    return Earlier(member.record.config, member.labels, member.weights), folder
