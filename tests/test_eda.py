"""eda's figures, tables and page of FSDKaggle2018's real tables with generated sounds; the choice of what is shown."""

import csv
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from helpers import make_dataset, read_csv, tone, write_csv, write_wav
from test_eda_findings import manifest

from fsat.data.manifest import read_manifest
from fsat.reports import examples
from fsat.reports.eda import write_eda
from fsat.reports.eda_facts import facts_of
from fsat.reports.eda_plots import plot_classes
from fsat.reports.examples import Example, choose, encode
from fsat.reports.waveforms import outline, telling

SECTIONS = ["classes", "waveforms", "lengths-per-label", "lengths", "repeated", "listen", "problems"]


@pytest.fixture(scope="module")
def kaggle(shared, tmp_path_factory) -> Path:
    """About a hundredth of FSDKaggle2018, each class and its verified part alike, its sounds a tenth as long."""
    from benchmarks import fsdkaggle2018

    folder = tmp_path_factory.mktemp("kaggle") / "fsdkaggle2018"
    fsdkaggle2018.write(shared / "data" / "fsdkaggle2018", folder, share=0.01, length=0.1)
    return folder


@pytest.fixture(scope="module")
def made(kaggle) -> tuple[Path, dict[str, float]]:
    """What is written of it, and its numbers."""
    folder = kaggle.parent / "eda"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(examples, "LISTEN_SECONDS", 1.0)  # which is soon encoded
        numbers, found = write_eda(read_manifest(kaggle), folder)
    assert found == []
    return folder, numbers


def test_a_tenth_keeps_the_share_of_every_class_and_of_verified_clips(shared):
    from benchmarks.fsdkaggle2018 import sample_train

    with open(shared / "data" / "fsdkaggle2018" / "train.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    tenth = sample_train(rows, 0.1)

    def count(some, label, verified="01"):
        return len([row for row in some if row["label"] == label and row["manually_verified"] in verified])

    for label in {row["label"] for row in rows}:
        assert abs(count(tenth, label) - count(rows, label) / 10) <= 0.5, label
        assert abs(count(tenth, label, "1") - count(rows, label, "1") / 10) <= 1, label


def test_the_numbers_of_a_share_of_fsdkaggle2018(made, kaggle):
    folder, numbers = made
    rows = read_csv(kaggle / "train.csv")
    verified = [row for row in rows if row["manually_verified"] == "1"]
    assert (numbers["n_train"], numbers["n_classes"], numbers["n_verified"]) == (len(rows), 41, len(verified))
    assert numbers["n_test"] == len(read_csv(kaggle / "sample_submission.csv"))
    assert numbers["n_problems"] == 3
    assert len(read_csv(folder / "tables" / "classes.csv")) == 41
    assert len(read_csv(folder / "tables" / "lengths.csv")) == len(rows) + numbers["n_test"] - 3
    page = (folder / "eda.html").read_text(encoding="utf-8")
    assert [name for name in SECTIONS if f'data-section="{name}"' in page] == SECTIONS
    assert "3 test clips of 97 cannot be used." in page
    for fname in ("0b0427e2.wav", "6ea0099f.wav", "b39975f5.wav"):
        assert fname in page
    for frames in (707364, 353682, 138474, 184338):
        assert page.count(f"<strong>{frames} samples</strong>") == 2
    for label in {row["label"] for row in rows}:
        sides = {row["manually_verified"] for row in rows if row["label"] == label}
        assert page.count(f"<strong>{label}</strong>") == len(sides), label


def test_examples_are_the_clips_of_median_length():
    data = manifest(["A"] * 5 + ["B"], verified=[1, 1, 1, 0, 0, 0], frames=[3, 1, 2, 5, 5, 9])
    chosen = choose(data, facts_of(data)).of_classes
    assert [(one.title, one.note, one.fname) for one in chosen] == [
        ("A", "verified", "00002.wav"), ("A", "not verified", "00004.wav"), ("B", "not verified", "00005.wav"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("n_classes", "clips", "classes", "seconds"),
    [(30, 60, 30, 10), (200, 400, 200, 1.5), (500, 500, 500, 1.2), (900, 600, 600, 1)],
)
def test_the_sound_of_a_page_is_bounded_whatever_the_number_of_classes(n_classes, clips, classes, seconds):
    labels = [f"c{i:04d}" for i in range(n_classes) for _ in range(2)]
    data = manifest(labels, verified=[0, 1] * n_classes, frames=range(16000 * 20, 16000 * 20 + 2 * n_classes))
    choice = choose(data, facts_of(data))
    assert (len(choice.of_classes), choice.n_classes) == (clips, classes)
    assert choice.seconds == pytest.approx(seconds)
    assert choice.alone == (clips == classes)


def test_short_clips_leave_their_share_to_longer_ones(monkeypatch):
    monkeypatch.setattr(examples, "SOUND_SECONDS", 12.0)
    data = manifest(["A", "B", "C"], frames=[16000, 160000, 160000])
    assert choose(data, facts_of(data)).seconds == pytest.approx(5.5)


def test_players_beyond_the_bytes_of_a_page_say_so(tmp_path):
    paths = [write_wav(tmp_path / f"{i}.wav", tone(440, 0.5, 8000)) for i in range(3)]
    clips = [Example("A", "verified", path, path.name, "train.csv", 2, "train", 0.5) for path in paths]
    size = len(next(encode(clips, 10))[0].mp3)
    sounds = [sound for sound, _ in encode(clips, 10, 2 * size)]
    assert [sound.mp3 is None for sound in sounds] == [False, False, True]
    assert sounds[2].note == "verified · 2.wav · 0.50 s: left out, as the page is full"


def test_figures_of_many_classes_grow_downwards(tmp_path):
    from PIL import Image

    sizes = []
    for n in (40, 46):
        plot_classes(facts_of(manifest([f"c{i:04d}" for i in range(n)])), tmp_path / "classes.png")
        sizes.append(Image.open(tmp_path / "classes.png").size)
    assert sizes[1][0] == pytest.approx(sizes[0][0], abs=20)
    assert sizes[1][1] > 1.7 * sizes[0][1]


def test_an_outline_has_the_extremes_of_every_part_and_stays_small(tmp_path):
    noise = np.random.default_rng(0).integers(-3000, 3000, 8000 * 1200).astype(np.int16)
    noise[4_000_000] = 32767
    path = write_wav(tmp_path / "long.wav", noise)
    tracemalloc.start()
    low, high, first = outline(path, len(noise), 8000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 30e6 < 4 * len(noise)  # a few blocks, and not all of it
    parts = (noise / 32768).reshape(1000, -1)
    np.testing.assert_allclose(low, parts.min(axis=1), atol=1e-7)
    np.testing.assert_allclose(high, parts.max(axis=1), atol=1e-7)
    np.testing.assert_allclose(first, noise[:500] / 32768, atol=1e-7)


def test_the_waveforms_are_of_different_classes_where_there_are_some(tmp_path):
    data = make_dataset(tmp_path / "data", clips_per_class=3, test_clips=0)
    shown = telling(read_manifest(data))
    assert [one.which for one in shown] == ["of median length", "the shortest", "the longest"]
    assert len({one.label for one in shown}) >= 2
    lengths = [one.frames for one in shown]
    assert lengths[1] < lengths[0] < lengths[2]
    alone = tmp_path / "alone"
    write_wav(alone / "audio_train" / "a.wav", tone(440, 0.001, 8000))
    write_csv(alone / "train.csv", ["fname", "label", "manually_verified"], [["a.wav", "A", 1]])
    assert [one.fname for one in telling(read_manifest(alone))] == ["a.wav"]
    (tmp_path / "out").mkdir()
    numbers, found = write_eda(read_manifest(alone), tmp_path / "out")
    assert (numbers["n_train"], found) == (1, [])
