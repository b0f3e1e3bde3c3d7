"""Clips that sound almost the same: pairs of a dataset whose embeddings are nearly parallel.

Such clips are copies with another loudness, format or cut, or pieces of one recording. If their labels differ, one of
them is probably wrong; if they are in different folds, or in train and test, scores are too high.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from fsat.config import Config
from fsat.data.clip_groups import recording_ids
from fsat.data.clip_names import stored_name
from fsat.data.clip_store import ClipFile
from fsat.data.embeddings import Embed
from fsat.data.file_embeddings import embed_files
from fsat.data.folds import fold_keys
from fsat.data.levels import SILENT
from fsat.data.manifest import Manifest
from fsat.errors import printable
from fsat.metrics.neighbours import similar_pairs
from fsat.progress import Progress, say

MAX_PAIRS = 10_000
"""Maximum number of pairs that are listed, the most similar ones."""

OTHER_LABELS, OTHER_FOLDS, OTHER_SPLITS = "different labels", "different folds", "train and test"
FINDINGS = (OTHER_LABELS, OTHER_FOLDS, OTHER_SPLITS)
"""What is wrong with a pair."""

CLIP = ("split", "fname", "label", "fold")
COLUMNS = ["similarity", *CLIP, *(f"other_{name}" for name in CLIP), "same_recording", "finding"]


@dataclass(frozen=True)
class NearDuplicates:
    """Pairs of clips that sound almost the same.

    Attributes:
        backbone: ``NAME@DIGEST``.
        threshold: smallest cosine of the mean embeddings of a pair.
        pairs: `COLUMNS`, first those with a finding, then the most similar ones; ``finding`` has `FINDINGS` separated
            by ``; ``, ``same_recording`` is 1 for clips with the same ``group``.
        n_pairs: number of all pairs, of which at most `MAX_PAIRS` are listed.
        n_clips: number of clips that were compared.
    """

    backbone: str
    threshold: float
    pairs: pd.DataFrame
    n_pairs: int
    n_clips: int

    def count_of(self, finding: str) -> int:
        """Return the number of listed pairs with a finding."""
        return int(self.pairs["finding"].str.contains(finding, regex=False).sum())

    @property
    def n_findings(self) -> int:
        """Number of listed pairs with a finding."""
        return int((self.pairs["finding"] != "").sum())

    def metrics(self) -> dict[str, float]:
        """Return the numbers that are logged."""
        names = ("labels", "folds", "splits")
        counts = {f"n_near_duplicates_{name}": self.count_of(text) for name, text in zip(names, FINDINGS, strict=True)}
        return {"n_near_duplicates": self.n_pairs, **counts}


def find_near_duplicates(
    manifest: Manifest, config: Config, open_backbone: Callable[[], Embed], threshold: float
) -> NearDuplicates:
    """Return the pairs of usable clips that are nearly parallel, apart from equal sounds and silence.

    Clips for which the backbone has no embedding are named and left out.

    The tables of the manifest have ``sound``, and ``note`` (see `fsat.data.dataset.inspect_dataset`).
    """
    clips = _clips(manifest)
    stored = embed_files(clips["file"].tolist(), config, open_backbone)
    for fname, file in zip(clips["fname"], clips["file"], strict=True):
        if reason := stored.errors.get(file.digest):
            say(f"warning: {printable(fname)}: not compared with other clips: {reason}")
    clips = clips[[file.digest not in stored.errors for file in clips["file"]]].reset_index(drop=True)
    means = np.empty((len(clips), config.embedding_size), np.float32)
    for i, file in enumerate(clips["file"]):
        means[i] = stored.mean(file.digest)
    with Progress("comparing clips", len(clips)) as progress:
        found = similar_pairs(means, threshold, MAX_PAIRS, clips["sound"].to_numpy(np.int64), progress.advance)
    one, other = (clips.iloc[rows].reset_index(drop=True) for rows in (found.first, found.second))
    pairs = pd.DataFrame({"similarity": found.similarity.astype(np.float64).round(6)})
    for name in CLIP:
        pairs[name], pairs[f"other_{name}"] = one[name], other[name]
    is_same = (one["recording"] != "") & (one["recording"] == other["recording"])
    pairs = pairs.assign(same_recording=is_same.astype(int), finding=_findings(one, other))[COLUMNS]
    order = np.lexsort([-found.similarity, (pairs["finding"] == "").to_numpy()])
    return NearDuplicates(config.backbone, threshold, pairs.iloc[order].reset_index(drop=True), found.total, len(clips))


def _clips(manifest: Manifest) -> pd.DataFrame:
    """Return ``split, fname, label, fold, recording, sound, file`` of the clips to compare; unknown ones are empty."""
    train = manifest.train.assign(split="train")
    test = manifest.test[manifest.test["reason"] == ""].assign(split="test", label="")
    parts = []
    for table, folder in ((train, manifest.train_folder), (test, manifest.test_folder)):
        part = table[["split", "fname", "label", "sound"]].copy()
        has_folds = "fold" in table and table is train
        part["fold"] = pd.Series(fold_keys(table["fold"]), dtype=object).to_numpy() if has_folds else ""
        part["recording"] = recording_ids(table["group"]) if "group" in table else ""
        facts = table[["fname", "digest", "stamp", "frames", "samplerate"]].itertuples(index=False, name=None)
        part["file"] = [ClipFile(Path(folder) / stored_name(folder, fname), *rest) for fname, *rest in facts]
        parts.append(part[~table["note"].str.startswith(SILENT)])
    return pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)


def _findings(one: pd.DataFrame, other: pd.DataFrame) -> list[str]:
    """Return what is wrong with each pair."""
    in_train = (one["split"] == "train") & (other["split"] == "train")
    wrong = {
        OTHER_LABELS: in_train & (one["label"] != other["label"]),
        OTHER_FOLDS: in_train & (one["fold"] != other["fold"]),
        OTHER_SPLITS: one["split"] != other["split"],
    }
    flags = zip(*(mask.tolist() for mask in wrong.values()), strict=True)
    return ["; ".join(text for text, flag in zip(wrong, row, strict=True) if flag) for row in flags]
