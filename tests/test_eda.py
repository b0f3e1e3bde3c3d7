"""eda's numbers, figures and tables of FSDKaggle2018's real tables with generated sounds; the choice of its clips."""

import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from helpers import make_dataset, read_csv, tone, write_csv, write_wav
from html_page import Page
from matplotlib.figure import Figure
from test_eda_text import facts, manifest

from fsat.data.dataset import inspect_dataset
from fsat.data.manifest import read_manifest
from fsat.errors import Problem
from fsat.reports import players
from fsat.reports.eda_facts import measure
from fsat.reports.eda_page import write_eda
from fsat.reports.eda_plots import plot_classes
from fsat.reports.players import Example, choose_examples, example_sounds
from fsat.reports.waveforms import outline, read_waveforms


@pytest.mark.slow
def test_a_hundredth_of_fsdkaggle2018(shared, tmp_path, monkeypatch):
    from benchmarks import fsdkaggle2018

    monkeypatch.setattr(players, "LISTEN_SECONDS", 1.0)  # quick to encode
    monkeypatch.setattr(fsdkaggle2018, "SOUNDS", 1)
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **options: Path(path).write_bytes(b"not drawn"))
    data = tmp_path / "fsdkaggle2018"
    fsdkaggle2018.write(shared / "data" / "fsdkaggle2018", data, share=0.01, length=0.1)
    numbers, unreadable = write_eda(read_manifest(data), tmp_path)
    rows = read_csv(data / "train.csv")
    n_verified = len([row for row in rows if row["manually_verified"] == "1"])
    assert (numbers["n_train"], numbers["n_classes"], numbers["n_verified"]) == (len(rows), 41, n_verified)
    assert numbers["n_test"] == len(read_csv(data / "sample_submission.csv"))
    assert (numbers["n_problems"], unreadable) == (3, [])
    assert len(read_csv(tmp_path / "tables" / "classes.csv")) == 41
    assert len(read_csv(tmp_path / "tables" / "lengths.csv")) == len(rows) + numbers["n_test"] - 3
    sections = Page(tmp_path / "eda.html").sections
    assert "3 test clips of 97 cannot be used." in sections["problems"].text
    assert {row[0] for row in sections["problems"].tables[0]} == {"0b0427e2.wav", "6ea0099f.wav", "b39975f5.wav"}
    lengths = Counter(clip[0] for clip in sections["repeated"].clips)
    assert lengths == {f"{frames} samples": 2 for frames in (707364, 353682, 138474, 184338)}
    kinds = Counter(label for label, _ in {(row["label"], row["manually_verified"]) for row in rows})
    assert Counter(clip[0] for clip in sections["listen"].clips) == kinds


def test_examples_are_the_clips_of_median_length():
    data = manifest(["A"] * 5 + ["B"], verified=[1, 1, 1, 0, 0, 0], frames=[3, 1, 2, 5, 5, 9])
    examples = choose_examples(data, measure(data)).of_classes
    assert [(example.title, example.note, example.row.fname) for example in examples] == [
        ("A", "verified", "00002.wav"), ("A", "not verified", "00004.wav"), ("B", "not verified", "00005.wav"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("n_classes", "n_clips", "n_shown", "seconds"),
    [(30, 60, 30, 10), (200, 400, 200, 1.5), (500, 500, 500, 1.2), (900, 600, 600, 1)],
)
def test_the_sound_of_a_page_is_limited_for_any_number_of_classes(n_classes, n_clips, n_shown, seconds):
    labels = [f"c{i:04d}" for i in range(n_classes) for _ in range(2)]
    data = manifest(labels, verified=[0, 1] * n_classes, frames=range(16000 * 20, 16000 * 20 + 2 * n_classes))
    choice = choose_examples(data, measure(data))
    assert (len(choice.of_classes), choice.n_classes) == (n_clips, n_shown)
    assert choice.seconds == pytest.approx(seconds)
    assert choice.one_per_class == (n_clips == n_shown)


def test_short_clips_leave_their_share_to_longer_ones(monkeypatch):
    monkeypatch.setattr(players, "SOUND_SECONDS", 12.0)
    data = manifest(["A", "B", "C"], frames=[16000, 160000, 160000])
    assert choose_examples(data, measure(data)).seconds == pytest.approx(5.5)


def test_clips_without_room_have_a_note_in_place_of_a_player(tmp_path):
    paths = [write_wav(tmp_path / f"{i}.wav", tone(440, 0.5, 8000)) for i in range(3)]
    clips = [Example("A", "verified", path, 0.5, Problem("train.csv", 2, path.name, "")) for path in paths]
    size = len(next(example_sounds(clips, 10))[0].mp3)
    sounds = [sound for sound, _ in example_sounds(clips, 10, 2 * size)]
    assert [sound.mp3 is None for sound in sounds] == [False, False, True]
    assert sounds[2].notes == ["verified · 2.wav · 0.50 s: left out, as the page is full"]


def test_figures_of_many_classes_grow_downwards(tmp_path):
    from PIL import Image

    sizes = []
    for n in (40, 46):
        plot_classes(facts([f"c{i:04d}" for i in range(n)]), tmp_path / "classes.png")
        sizes.append(Image.open(tmp_path / "classes.png").size)
    assert sizes[1][0] == pytest.approx(sizes[0][0], abs=20)
    assert sizes[1][1] > 1.7 * sizes[0][1]


def test_an_outline_has_the_extremes_of_every_part_and_reads_by_block(tmp_path):
    noise = np.random.default_rng(0).integers(-3000, 3000, 8000 * 1200).astype(np.int16)
    noise[4_000_000] = 32767
    path = write_wav(tmp_path / "long.wav", noise)
    tracemalloc.start()
    low, high, first = outline(path, len(noise), 8000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 30e6 < 4 * len(noise)
    parts = (noise / 32768).reshape(1000, -1)
    np.testing.assert_allclose(low, parts.min(axis=1), atol=1e-7)
    np.testing.assert_allclose(high, parts.max(axis=1), atol=1e-7)
    np.testing.assert_allclose(first, noise[:500] / 32768, atol=1e-7)


def test_waveforms_are_of_different_lengths_and_classes(tmp_path):
    waveforms = read_waveforms(read_manifest(make_dataset(tmp_path / "data", clips_per_class=3, test_clips=0)))
    assert [waveform.role for waveform in waveforms] == ["of median length", "the shortest", "the longest"]
    assert len({waveform.label for waveform in waveforms}) >= 2
    median, shortest, longest = (waveform.frames for waveform in waveforms)
    assert shortest < median < longest


def test_a_dataset_of_one_clip_which_is_tested_on_too(tmp_path):
    for name in ("audio_train/a.wav", "audio_test/b.wav", "audio_train/<b>extra.wav"):
        write_wav(tmp_path / name, tone(440, 0.001, 8000))
    write_csv(tmp_path / "train.csv", ["fname", "label", "manually_verified"], [["a.wav", "A", 1]])
    write_csv(tmp_path / "sample_submission.csv", ["fname"], [["b.wav"]])
    manifest = inspect_dataset(tmp_path)
    numbers, unreadable = write_eda(manifest, tmp_path)
    assert (numbers["n_train"], numbers["n_copies"], unreadable) == (1, 1, [])
    page = Page(tmp_path / "eda.html")
    assert [clip[0] for clip in page.sections["listen"].clips] == ["A"]
    assert page.sections["waveforms"].text.startswith("Waveforms All clips are at 8,000 Hz.")
    problems = page.sections["problems"]
    assert len(manifest.warnings) == 3
    assert all(warning in problems.text for warning in manifest.warnings)
    for words in ("<b>extra.wav", "the only label of 1 training clip is A", "b.wav (a.wav)"):
        assert words in problems.text
    assert problems.tables == [[["b.wav", "test", "a.wav"]]]
    assert read_csv(tmp_path / "tables" / "copies.csv") == [{"split": "test", "fname": "b.wav", "copy_of": "a.wav"}]
