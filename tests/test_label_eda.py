"""``eda`` of clips with any number of labels: counts, sentences, the choice of examples, and the page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import read_csv, tone, write_wav
from html_page import Page
from test_eda_text import manifest

from fsat.data.manifest import Manifest, class_labels
from fsat.reports import eda_label_text, eda_text, run_descriptions
from fsat.reports.eda_facts import measure
from fsat.reports.eda_page import write_eda
from fsat.reports.label_facts import row_per_label
from fsat.reports.players import choose_examples

CELLS = ["Dog", "Dog,Rain", "", "Dog,Rain", '"Chirp, tweet",Dog,Rain', "Rain", ""]


def scenes(cells: list[str] = CELLS, **options) -> Manifest:
    """Return a dataset without files whose clips have any number of labels."""
    made = manifest(cells, **options)
    return replace(made, task="multi", labels=class_labels(made.train["label"], "multi"))


def test_a_clip_counts_for_each_of_its_labels(tmp_path: Path) -> None:
    frames = [16000 * (i + 1) for i in range(len(CELLS))]
    facts = measure(scenes(verified=[1, 0, 1, 0, 1, 0, 0], frames=frames))
    rows = facts.classes[["label", "clips", "verified", "median_seconds"]].to_numpy().tolist()
    assert rows == [["Chirp, tweet", 1, 1, 5.0], ["Dog", 4, 2, 3.0], ["Rain", 4, 1, 4.5]]
    assert {label: seconds.tolist() for label, seconds in facts.seconds_by_label().items()} == {
        "Chirp, tweet": [5], "Dog": [1, 2, 4, 5], "Rain": [2, 4, 5, 6],
    }  # fmt: skip
    assert facts.labels.numbers.to_numpy().tolist() == [[0, 2, 1], [1, 2, 1], [2, 2, 0], [3, 1, 1]]
    assert facts.labels.combinations.to_numpy().tolist() == [
        ["Dog,Rain", 2], ['"Chirp, tweet",Dog,Rain', 1], ["Dog", 1], ["Rain", 1],
    ]  # fmt: skip
    assert facts.labels.pairs.to_numpy().tolist() == [
        ["Dog", "Rain", 3, 0.75, 0.75], ["Chirp, tweet", "Dog", 1, 1.0, 0.25], ["Chirp, tweet", "Rain", 1, 1.0, 0.25],
    ]  # fmt: skip
    assert facts.labels.together.tolist() == [[1, 1, 1], [1, 4, 3], [1, 3, 4]]
    numbers = facts.metrics()
    assert [numbers[f"n_{name}"] for name in ("train", "classes", "verified", "none", "several")] == [7, 3, 3, 2, 3]
    facts.write(tmp_path)
    assert read_csv(tmp_path / "pairs.csv")[1]["label"] == "Chirp, tweet"
    assert read_csv(tmp_path / "label_numbers.csv")[0] == {"labels": "0", "clips": "2", "verified": "1"}
    assert len(read_csv(tmp_path / "combinations.csv")) == 4
    assert measure(manifest("AB")).labels is None
    assert "n_none" not in measure(manifest("AB")).metrics()
    numbers |= {"train_seconds": 60.0}
    assert "- 2 clips without a label, 3 with several" in run_descriptions.eda(tmp_path, numbers, "#run")


def test_counts_are_those_of_the_targets() -> None:
    rng = np.random.default_rng(0)
    labels = np.array([f"c{j}" for j in range(6)])
    data = scenes([",".join(labels[rng.random(6) < 0.3]) for _ in range(200)])
    facts, targets = measure(data), data.targets
    assert facts.labels.together.tolist() == (targets.T.astype(int) @ targets).tolist()
    assert facts.labels.numbers["clips"].tolist() == np.bincount(targets.sum(axis=1)).tolist()
    assert facts.labels.combinations["clips"].sum() + facts.labels.n_none == 200
    rows = row_per_label(data.train)
    assert len(rows) == targets.sum()
    assert (rows["n_labels"].to_numpy() == targets.sum(axis=1)[rows.index]).all()


def test_sentences() -> None:
    facts = measure(scenes(verified=[1, 0, 1, 0, 1, 0, 0]))
    text = eda_text.describe_classes(facts)
    assert text.startswith("3 classes with 1 to 4 clips per class; 'Chirp, tweet' has the fewest, Dog and Rain have")
    assert "3 of 7 clips (43 %) are verified by hand; the share of verified labels ranges from 25 % (Rain)" in text
    assert eda_label_text.describe_label_numbers(facts.labels) == (
        "Of 7 clips, 2 (29 %) have no label, 2 (29 %) have 1 label, 2 (29 %) have 2 labels and 1 (14 %) has 3 labels."
    )
    assert eda_label_text.describe_combinations(facts.labels) == (
        "There are 4 combinations of labels; the most frequent of several labels are Dog + Rain (2) and 'Chirp, tweet' "
        "+ Dog + Rain (1). Dog and Rain are together most often, in 3 clips: 75 % of the clips of Dog and 75 % of the "
        "other's."
    )
    single = measure(scenes(["A", "B", "B"])).labels
    assert "No clip is without a label, so what a tagger does" in eda_label_text.describe_label_numbers(single)
    text = "There are 2 combinations of labels; no clip has several."
    assert eda_label_text.describe_combinations(single) == text


def test_examples_are_clips_with_the_fewest_labels_and_clips_without_any() -> None:
    data = scenes(
        ["A,B", "A", "A", "A,B", "B,C", "", "", ""], verified=[1, 0, 0, 1, 1, 1, 1, 1], frames=range(9, 1, -1)
    )
    choice = choose_examples(data, measure(data))
    assert [(e.title, e.note, e.others, e.row.fname) for e in choice.of_classes] == [
        ("A", "verified", "also B", "00000.wav"),  # of equal ones, the longer
        ("A", "not verified", "", "00001.wav"),
        ("B", "verified", "also A", "00003.wav"),
        ("C", "verified", "also B", "00004.wav"),
        ("no label", "verified", "", "00006.wav"),
    ]
    assert choice.n_classes == 4


@pytest.mark.parametrize("cells", [CELLS, ["", "", ""]])
def test_the_page(tmp_path: Path, cells: list[str]) -> None:
    data = scenes(cells, frames=[800 + 8 * i for i in range(len(cells))], rate=8000)
    for i in range(len(cells)):
        write_wav(tmp_path / "audio_train" / f"{i:05d}.wav", tone(440, 0.1 + i / 1000, 8000))
    data = replace(data, train_folder=tmp_path / "audio_train", test=pd.DataFrame(data.test))
    _, unreadable = write_eda(data, tmp_path)
    assert unreadable == []
    sections = Page(tmp_path / "eda.html").sections
    assert list(sections)[:3] == ["classes", "labels", "waveforms"]
    clips = sections["listen"].clips
    if cells != CELLS:
        assert "None of 3 clips has a label." in sections["classes"].text
        assert "No clip has a label." in sections["labels"].text
        assert [clip[0] for clip in clips] == ["no label"]
        return
    assert sections["classes"].tables[0][0][:2] == ["Chirp, tweet", "1"]
    combinations, pairs = sections["labels"].tables
    assert combinations[0] == ["Dog,Rain", "2"]
    assert pairs[0] == ["Dog", "Rain", "3", "75", "75"]
    assert sections["labels"].tags["img"] == 2
    assert [clip[0] for clip in clips] == ["Chirp, tweet", "Dog", "Rain", "no label"]
    assert clips[0][1] == "verified · also Dog and Rain · 00004.wav · 0.10 s"
    assert "The last are of clips without a label." in sections["listen"].text
