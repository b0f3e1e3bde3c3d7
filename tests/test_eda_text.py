"""What eda says in words, from tables alone: the real ones of FSDKaggle2018, and datasets that are odd in some way."""

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fsat.data.manifest import Manifest
from fsat.errors import Problem
from fsat.reports import eda_text as findings
from fsat.reports.eda_facts import facts_of
from fsat.reports.eda_text import duration, listed, share


def manifest(
    labels, *, verified=1, frames=16000, rate=16000, test=(), unusable=0, test_rate=16000, problems=()
) -> Manifest:
    """A dataset of which there are only tables; lengths in samples may be one number or one a clip."""
    n = len(labels)
    train = pd.DataFrame({
        "row": range(2, n + 2), "fname": [f"{i:05d}.wav" for i in range(n)], "label": labels,
        "manually_verified": verified, "frames": frames, "samplerate": rate, "digest": "", "stamp": None,
    })  # fmt: skip
    tests = pd.DataFrame({
        "row": range(2, len(test) + unusable + 2), "fname": [f"t{i:05d}.wav" for i in range(len(test) + unusable)],
        "frames": [*test, *[0] * unusable], "samplerate": [test_rate] * len(test) + [0] * unusable, "digest": "",
        "stamp": None, "reason": [""] * len(test) + ["no samples in it"] * unusable,
    })  # fmt: skip
    return Manifest(
        Path("clips"), train, tests, "train.csv", Path("audio_train"), Path("audio_test"), "sample_submission.csv",
        sorted(set(labels)), problems=list(problems),
    )  # fmt: skip


@pytest.fixture(scope="module")
def fsdkaggle(shared):
    """The real tables, whole, with made-up lengths."""
    from benchmarks.fsdkaggle2018 import RATE, draw_lengths

    folder = shared / "data" / "fsdkaggle2018"
    with open(folder / "train.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    with open(folder / "sample_submission.csv", newline="") as file:
        names = [row["fname"] for row in csv.DictReader(file)]
    labels = [row["label"] for row in rows]
    frames, test = draw_lengths(labels, names)
    usable = [length for length in test if length]
    return facts_of(manifest(
        labels, verified=[int(row["manually_verified"]) for row in rows], frames=frames, rate=RATE, test=usable,
        unusable=len(test) - len(usable), test_rate=RATE,
    ))  # fmt: skip


def test_the_notebooks_findings_of_fsdkaggle2018(fsdkaggle):
    assert findings.classes(fsdkaggle) == (
        "41 classes with 94 to 300 clips a class; Glockenspiel has the fewest, 18 classes have the most. 3,710 of "
        "9,473 labels (39 %) are verified by hand; the share of verified labels goes from 20 % (Applause) to 99 % "
        "(Gunshot_or_gunfire)."
    )
    assert fsdkaggle.metrics()["n_train"] == 9473
    assert fsdkaggle.metrics()["n_test"] == 9400
    assert fsdkaggle.n_unusable == 3


def test_the_abnormal_lengths_of_fsdkaggle2018(fsdkaggle):
    says = findings.repeated(fsdkaggle)
    assert says.startswith(
        "4 exact lengths are each shared by many clips, all of them among the test clips: 707364 samples ("
    )
    counts = {row.frames: row.clips for row in fsdkaggle.repeated.itertuples()}
    assert set(counts) == {707364, 353682, 138474, 184338}
    for frames, clips in counts.items():
        assert f"{frames} samples" in says
        assert f" by {clips} test clips" in says
    assert "up 11 % of the test clips." in says


def test_lengths_of_fsdkaggle2018(fsdkaggle):
    train, test = fsdkaggle.seconds("train"), fsdkaggle.seconds("test")
    says = findings.lengths(fsdkaggle)
    assert says.startswith(
        f"{train.sum() / 3600:.1f} h of sound in 9,473 training clips, from 0.30 s to 30.0 s: half of"
    )
    assert f"The 9,397 test clips tend to be shorter (median {np.median(test):.1f} s against " in says
    medians = fsdkaggle.classes.set_index("label")["median_seconds"].sort_values()
    says = findings.lengths_per_label(fsdkaggle)
    (first, shortest), (last, longest) = ((name, medians[name]) for name in medians.index[[0, -1]])
    assert f"from {shortest:.2f} s ({first}) to {longest:.1f} s ({last})" in says


@pytest.mark.parametrize(
    ("labels", "verified", "says"),
    [
        (["A"] * 3, 1, "There is one class, A, with 3 clips. All labels are verified by hand."),
        (["A"], 0, "There is one class, A, with 1 clip. No label is verified by hand."),
        (["A", "B"], [0, 1], "Each of the 2 classes has 1 clip. 1 of 2 labels (50 %) are verified by hand; the share "
         "of verified labels goes from 0 % (A) to 100 % (B)."),
        (["A"] * 2 + ["B"] * 2, [0, 1] * 2, "Each of the 2 classes has 2 clips. 2 of 4 labels (50 %) are verified by "
         "hand, about the same share in every class."),
        (["A"] * 9 + ["B"] + ["C"], 1, "3 classes with 1 to 9 clips a class; B and C have the fewest, A has the most. "
         "A alone has 82 % of all clips. All labels are verified by hand."),
    ],
)  # fmt: skip
def test_classes_in_words(labels, verified, says):
    assert findings.classes(facts_of(manifest(labels, verified=verified))) == says


@pytest.mark.parametrize(
    ("dataset", "says"),
    [
        (manifest(["A"] * 2), "2.0 s of sound in 2 training clips, all 1.0 s long. There are no test clips."),
        (manifest(["A"], unusable=2), "1.0 s of sound in 1 training clip, which is 1.0 s long. None of the 2 test "
         "clips can be used."),
        (manifest(["A"] * 40, test=[16000] * 40), "40.0 s of sound in 40 training clips, all 1.0 s long. The 40 test "
         "clips are about as long (median 1.0 s in both)."),
        (manifest(["A"] * 40, test=[32000] * 40), "40.0 s of sound in 40 training clips, all 1.0 s long. The 40 test "
         "clips tend to be longer (median 2.0 s against 1.0 s); they differ most at 1.0 s: 100 % of the training clips "
         "and 0 % of the test clips are at most that long."),
        (manifest(["A"] * 3, frames=[1, 160, 16000 * 3600]), "60.0 min of sound in 3 training clips, from 0.062 ms to "
         "60.0 min: half of them are at most 10 ms long, nine in ten at most 48.0 min. There are no test clips."),
    ],
)  # fmt: skip
def test_lengths_in_words(dataset, says):
    assert findings.lengths(facts_of(dataset)) == says


@pytest.mark.parametrize(
    ("labels", "frames", "says"),
    [
        (["A", "B"], 8000, "All training clips have the same length, 0.50 s."),
        (["A"] * 11, [16000 * i for i in range(1, 12)], "The median clip of A is 6.0 s long; four clips in five last "
         "2.0 s to 10.0 s."),
        (["A", "B"], [8000, 32000], "The median length of a label's clips goes from 0.50 s (A) to 2.0 s (B). Within a "
         "label, most clips are about equally long."),
        (["A"] * 3 + ["B"] * 3, [8000, 16000, 24000, 16000, 16000, 16000], "The median length is the same for every "
         "label, 1.0 s. Lengths spread most in A, where four clips in five last 0.60 s to 1.4 s, and least in B (all "
         "about 1.0 s)."),
    ],
)  # fmt: skip
def test_lengths_per_label_in_words(labels, frames, says):
    assert findings.lengths_per_label(facts_of(manifest(labels, frames=frames))) == says


def test_repeated_lengths_in_words():
    different = range(1000, 1300)
    assert findings.repeated(facts_of(manifest(["A"] * 300, frames=different))).startswith("No exact length is shared")
    assert (
        findings.repeated(facts_of(manifest(["A"] * 4)))
        == "All training clips are 16000 samples (1.0 s) long, exactly."
    )
    both = facts_of(manifest(["A"] * 4, test=[8000] * 3))
    assert findings.repeated(both) == (
        "All training clips are 16000 samples (1.0 s) long and all test clips are 8000 samples (0.50 s) long, exactly."
    )
    one = facts_of(manifest(["A"] * 8, frames=[500] * 4 + [1, 2, 3, 4], rate=[8000] * 7 + [16000]))
    assert findings.repeated(one) == (
        "1 exact length is shared by many clips: 500 samples (62 ms at 8,000 Hz) by 4 training clips. It makes up 50 % "
        "of the training clips."
    )


def test_a_length_that_train_and_test_share_is_one():
    facts = facts_of(manifest(["A"] * 6, frames=[9, 9, 9, 9, 8, 7], test=[9, 9, 9, 6]))
    assert findings.repeated(facts) == (
        "1 exact length is shared by many clips: 9 samples (0.56 ms) by 4 training clips and 3 test clips. It makes up "
        "75 % of the test clips and 67 % of the training clips."
    )


def test_sampling_rates_in_words():
    assert findings.rates(facts_of(manifest(["A"] * 3))) == "All clips are at 16,000 Hz."
    mixed = facts_of(manifest(["A"] * 3, rate=[44100, 8000, 44100], test=[16000]))
    assert findings.rates(mixed) == (
        "The clips have 3 sampling rates: 44,100 Hz (2 clips), 8,000 Hz (1 clip) and 16,000 Hz (1 clip)."
    )


def test_problems_in_words():
    assert findings.problems(facts_of(manifest(["A"])), 0).startswith("No problems")
    problems = [
        Problem("train.csv", 3, "x.wav", "missing file"), Problem("train.csv", 3, "x.wav", "the label is empty"),
        Problem("train.csv", 4, "y.wav", "missing file"), Problem("sample.csv", 2, "t.wav", "no samples in it", "test"),
        Problem("sample.csv", 9, "t.wav", "duplicate row, which is left out", "test"),
    ]  # fmt: skip
    facts = facts_of(manifest(["A"] * 3, test=[1, 2], unusable=1, problems=problems))
    assert findings.problems(facts, 1) == (
        "2 training rows are left out. 1 test clip of 3 cannot be used. 1 row of the test table is doubtful. 1 clip "
        "could not be read to be shown here, though the header is right."
    )


def test_percentages_durations_and_lists():
    assert [share(part, 1000) for part in (0, 1, 4, 6, 500, 994, 996, 1000)] == [
        "0 %", "under 1 %", "under 1 %", "1 %", "50 %", "99 %", "over 99 %", "100 %"
    ]  # fmt: skip
    assert [duration(s) for s in (0.00002, 0.0113, 0.3, 0.999, 9.96, 100, 150, 7200)] == [
        "0.02 ms", "11 ms", "0.30 s", "1.0 s", "10.0 s", "100.0 s", "2.5 min", "2.0 h"
    ]  # fmt: skip
    assert [listed("abcde"[:n]) for n in range(6)][1:] == ["a", "a and b", "a, b and c", "a, b and 2 others",
                                                          "a, b and 3 others"]  # fmt: skip
