"""Sentences of ``eda.html`` about usual and unusual datasets, from tables alone."""

from pathlib import Path

import pandas as pd
import pytest

from fsat.data.manifest import Manifest
from fsat.errors import Problem
from fsat.reports import eda_text
from fsat.reports.eda_facts import Facts, measure
from fsat.reports.eda_text import duration, listed, percent


def manifest(
    labels, *, verified=1, frames=16000, rate=16000, test=(), unusable=0, test_rate=16000, problems=()
) -> Manifest:
    """Return a dataset without files; lengths in samples are one number, or one per clip."""
    n, n_test = len(labels), len(test) + unusable
    train = pd.DataFrame({
        "file": "train.csv", "row": range(2, n + 2), "fname": [f"{i:05d}.wav" for i in range(n)], "label": labels,
        "manually_verified": verified, "frames": frames, "samplerate": rate, "digest": "", "stamp": None,
    })  # fmt: skip
    tests = pd.DataFrame({
        "file": "sample_submission.csv", "row": range(2, n_test + 2), "fname": [f"t{i:05d}.wav" for i in range(n_test)],
        "frames": [*test, *[0] * unusable], "samplerate": [test_rate] * len(test) + [0] * unusable, "digest": "",
        "stamp": None, "reason": [""] * len(test) + ["no samples in it"] * unusable,
    })  # fmt: skip
    return Manifest(
        Path("clips"), train, tests, "train.csv", Path("audio_train"), Path("audio_test"), "sample_submission.csv",
        sorted(set(labels)), problems=list(problems),
    )  # fmt: skip


def facts(labels, **options) -> Facts:
    return measure(manifest(list(labels), **options))


@pytest.mark.parametrize(
    ("labels", "verified", "text"),
    [
        ("AAA", 1, "There is one class, A, with 3 clips. All labels are verified by hand."),
        ("A", 0, "There is one class, A, with 1 clip. No label is verified by hand."),
        ("AB", [0, 1], "Each of the 2 classes has 1 clip. 1 of 2 labels (50 %) is verified by hand; the share of "
         "verified labels ranges from 0 % (A) to 100 % (B)."),
        ("AABB", [0, 1] * 2, "Each of the 2 classes has 2 clips. 2 of 4 labels (50 %) are verified by hand, about the "
         "same share in every class."),
        ("ABBCCDDEE", [0] + [1, 0] * 4, "5 classes with 1 to 2 clips per class; A has the fewest, 4 classes have the "
         "most. 4 of 9 labels (44 %) are verified by hand; the share of verified labels ranges from 0 % (A) to 50 % (4 "
         "classes)."),
        ("AAAAAAAAABC", 1, "3 classes with 1 to 9 clips per class; B and C have the fewest, A has the most. A alone "
         "has 82 % of all clips. All labels are verified by hand."),
    ],
)  # fmt: skip
def test_classes(labels, verified, text):
    assert eda_text.describe_classes(facts(labels, verified=verified)) == text


@pytest.mark.parametrize(
    ("dataset", "text"),
    [
        (facts("AA"), "2.0 s of sound in 2 training clips, all 1.0 s long. There are no test clips."),
        (facts("A", unusable=2), "1.0 s of sound in 1 training clip, which is 1.0 s long. None of the 2 test clips can "
         "be used."),
        (facts("A" * 40, test=[16000] * 40), "40.0 s of sound in 40 training clips, all 1.0 s long. The 40 test clips "
         "are about as long (median 1.0 s in both)."),
        (facts("A" * 40, test=[32000] * 40), "40.0 s of sound in 40 training clips, all 1.0 s long. The 40 test clips "
         "tend to be longer (median 2.0 s against 1.0 s); they differ most at 1.0 s: 100 % of the training clips and "
         "0 % of the test clips are at most that long."),
        (facts("A" * 40, test=[8000] * 40), "40.0 s of sound in 40 training clips, all 1.0 s long. The 40 test clips "
         "tend to be shorter (median 0.50 s against 1.0 s); they differ most at 0.50 s: 0 % of the training clips and "
         "100 % of the test clips are at most that long."),
        (facts("AAA", frames=[1, 160, 16000 * 3600]), "60.0 min of sound in 3 training clips, from 0.062 ms to 60.0 "
         "min: half of them are at most 10 ms long, nine in ten at most 48.0 min. There are no test clips."),
    ],
)  # fmt: skip
def test_lengths(dataset, text):
    assert eda_text.describe_lengths(dataset) == text


@pytest.mark.parametrize(
    ("labels", "frames", "text"),
    [
        ("AB", 8000, "All training clips have the same length, 0.50 s."),
        ("A" * 11, [16000 * i for i in range(1, 12)], "The median clip of A is 6.0 s long; four clips in five last "
         "2.0 s to 10.0 s."),
        ("AB", [8000, 32000], "The median length of a label's clips ranges from 0.50 s (A) to 2.0 s (B). Within a "
         "label, most clips are about equally long."),
        ("AAABBB", [8000, 16000, 24000, 16000, 16000, 16000], "The median length is the same for every label, 1.0 s. "
         "Lengths vary most in A, where four clips in five last 0.60 s to 1.4 s, and least in B (all about 1.0 s)."),
    ],
)  # fmt: skip
def test_lengths_per_label(labels, frames, text):
    assert eda_text.describe_lengths_per_label(facts(labels, frames=frames)) == text


@pytest.mark.parametrize(
    ("dataset", "text"),
    [
        (facts("A" * 300, frames=range(1000, 1300)), "No exact length is shared by many clips (3 or more, and at least "
         "0.5 % of the training or of the test clips)."),
        (facts("AAAA"), "All training clips are 16000 samples (1.0 s) long, exactly."),
        (facts("AAAA", test=[8000] * 3), "All training clips are 16000 samples (1.0 s) long and all test clips are "
         "8000 samples (0.50 s) long, exactly."),
        (facts("A" * 8, frames=[500] * 4 + [1, 2, 3, 4], rate=[8000] * 7 + [16000]), "1 exact length is shared by many "
         "clips: 500 samples (62 ms at 8,000 Hz) by 4 training clips. It makes up 50 % of the training clips."),
        (facts("AAA", frames=[1, 2, 3], test=[8] * 4 + [7] * 3 + [4, 5, 6]), "2 exact lengths are each shared by many "
         "clips, all of them among the test clips: 8 samples (0.5 ms) by 4 test clips and 7 samples (0.44 ms) by 3 "
         "test clips. Together they make up 70 % of the test clips."),
        (facts("A" * 6, frames=[9, 9, 9, 9, 8, 7], test=[9, 9, 9, 6]), "1 exact length is shared by many clips: 9 "
         "samples (0.56 ms) by 4 training clips and 3 test clips. It makes up 75 % of the test clips and 67 % of the "
         "training clips."),
    ],
)  # fmt: skip
def test_repeated_lengths(dataset, text):
    assert eda_text.describe_repeated(dataset) == text


def test_sampling_rates():
    assert eda_text.describe_rates(facts("AAA")) == "All clips are at 16,000 Hz."
    assert eda_text.describe_rates(facts("AAA", rate=[44100, 8000, 44100], test=[16000])) == (
        "The clips have 3 sampling rates: 44,100 Hz (2 clips), 8,000 Hz (1 clip) and 16,000 Hz (1 clip)."
    )


def test_problems():
    assert eda_text.describe_problems(facts("A"), 0).startswith("No problems")
    problems = [
        Problem("train.csv", 3, "x.wav", "missing file"), Problem("train.csv", 3, "x.wav", "the label is empty"),
        Problem("train.csv", 4, "y.wav", "missing file"), Problem("sample.csv", 2, "t.wav", "no samples in it", "test"),
        Problem("sample.csv", 9, "t.wav", "duplicate row, which is left out", "test"),
    ]  # fmt: skip
    assert eda_text.describe_problems(facts("AAA", test=[1, 2], unusable=1, problems=problems), 1) == (
        "2 training rows are excluded. 1 test clip of 3 cannot be used. 1 row of the test table is doubtful. 1 clip "
        "could not be read for this page, though the header is valid."
    )


def test_percentages_durations_and_lists():
    assert [percent(part, 1000) for part in (0, 1, 4, 6, 500, 994, 996, 1000)] == [
        "0 %", "under 1 %", "under 1 %", "1 %", "50 %", "99 %", "over 99 %", "100 %"
    ]  # fmt: skip
    assert [duration(s) for s in (0.00002, 0.0113, 0.3, 0.999, 9.96, 100, 150, 7200)] == [
        "0.02 ms", "11 ms", "0.30 s", "1.0 s", "10.0 s", "100.0 s", "2.5 min", "2.0 h"
    ]  # fmt: skip
    assert [listed("abcde"[:n]) for n in (1, 2, 3, 4, 5)] == [
        "a", "a and b", "a, b and c", "a, b and 2 others", "a, b and 3 others"
    ]  # fmt: skip
