"""What the entry points that read a dataset are told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fsat.config import Config
from fsat.data.dataset import Dataset, load_dataset
from fsat.errors import RunError
from fsat.progress import say


@dataclass(frozen=True)
class Source:
    """Where the clips are and how to take them.

    Attributes:
        data_dir: the data folder.
        on_bad_clip: ``error`` or ``exclude``.
        n_folds_given: whether the user asked for ``n_folds``.
    """

    data_dir: Path
    on_bad_clip: str = "error"
    n_folds_given: bool = False

    def load(self, config: Config, fold: int | None = None) -> Dataset:
        """The dataset at the Config's rate, its precision settled; says what is odd about it and what will be done."""
        dataset = self.read(config, fold)
        for warning in dataset.manifest.warnings:
            say(f"warning: {warning}")
        excluded = [problem for problem in dataset.manifest.problems if problem.split == "train"]
        if excluded:
            say(f"warning: {len(excluded)} training rows are left out (on_bad_clip=exclude): {excluded[0]}"
                f"{', ...' if len(excluded) > 1 else ''}")  # fmt: skip
        usual, settings = Config().to_dict(), dataset.config.to_dict()
        shown = ("model", "sampling_rate", "audio_duration", "n_folds", "folds", "precision", "seed")
        settings = " ".join(
            f"{name}={value}" for name, value in settings.items() if name in shown or value != usual[name]
        )
        say(f"study {dataset.study}: {len(dataset.train)} training and {len(dataset.test)} test clips, "
            f"{len(dataset.labels)} classes; {settings}")  # fmt: skip
        return dataset

    def read(self, config: Config, fold: int | None = None) -> Dataset:
        """As `load`, without a word."""
        from fsat.models import settle_precision  # it asks TensorFlow about GPUs
        from fsat.tracking.verified_labels import fetch_labels

        labels = fetch_labels(config.labels_run_id) if config.labels_run_id != "none" else None
        dataset = load_dataset(self.data_dir, settle_precision(config), self.on_bad_clip, self.n_folds_given, fold)
        if labels is None:
            return dataset
        if labels.dataset != dataset.manifest.digest:
            raise RunError(
                f"labels_run_id={labels.run_id}: its labels are of another dataset (digest {labels.dataset}) than "
                f"{self.data_dir} (digest {dataset.manifest.digest}); run verify on a study of this one"
            )
        return dataset.relabelled(labels.new_labels, labels.certainty)
