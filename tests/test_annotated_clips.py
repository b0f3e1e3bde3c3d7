"""Annotated recordings as training data: a clip for each annotation, with the very sound of its time."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from click.testing import CliRunner
from helpers import error_line, tone, write_csv, write_wav

from fsat.cli import cli
from fsat.config import Config
from fsat.data import annotated_clips
from fsat.data.annotated_clips import Span, background_spans, clip_names, spans_of, stretches
from fsat.data.annotations import Annotation
from fsat.data.dataset import Dataset, load_dataset
from fsat.data.layouts.manifest_table import write_manifest_table
from fsat.data.layouts.recognise import read_layout
from fsat.data.manifest import read_manifest
from fsat.errors import AudioError, ConfigError, DataError
from fsat.layout_options import LayoutOptions

CONFIG = Config.resolve({"sampling_rate": 8000, "audio_duration": 0.25, "precision": "float32", "n_folds": 3}, "quick")


def load(folder: Path, **options: object) -> Dataset:
    return load_dataset(folder, CONFIG, layout=LayoutOptions(**options))


def write_track(path: Path, events: list[tuple[float, float, str]]) -> None:
    """Write a label track as Audacity does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{start:.6f}\t{end:.6f}\t{label}\n" for start, end, label in events), encoding="utf-8")


def write_raven(path: Path, events: list[tuple[float, float, str]]) -> None:
    """Write a selection table as Raven Pro does: two views of each selection."""
    header = [
        "Selection",
        "View",
        "Channel",
        "Begin Time (s)",
        "End Time (s)",
        "Low Freq (Hz)",
        "High Freq (Hz)",
        "Species",
    ]
    lines = ["\t".join(header)]
    for i, (start, end, label) in enumerate(events, 1):
        for view in ("Waveform 1", "Spectrogram 1"):
            lines.append("\t".join(map(str, [i, view, 1, f"{start:.9f}", f"{end:.9f}", 0, 22050, label])))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\r\n".join([*lines, ""]))


# --- ten minutes of real clips ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def ten_minutes(shared: Path, tmp_path_factory) -> tuple[Path, list[tuple[float, float, str]]]:
    """Two recordings of five minutes made of real clips, one in 16 bits and one as floats, and what is in them."""
    folder = tmp_path_factory.mktemp("recordings")
    with open(shared / "data" / "esc10" / "clips.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["label"] in ("Dog_bark", "Rain", "Rooster")]
    events: list[tuple[float, float, str]] = []
    for number, subtype in ((0, "PCM_16"), (1, "FLOAT")):
        parts, start = [], 0.0
        for row in sorted(rows, key=lambda row: row["fname"][::-1])[number::2][:50]:
            samples, rate = sf.read(shared / "data" / "esc10" / "clips" / row["fname"], dtype="float32")
            parts += [np.zeros(rate, np.float32), samples]
            start += 1
            events.append((start, start + len(samples) / rate, row["label"].replace("_", " ")))
            start += len(samples) / rate
        write_wav(folder / f"day{number}.wav", np.concatenate(parts), rate, subtype)
    return folder, events


def per_recording(events: list[tuple[float, float, str]]) -> list[list[tuple[float, float, str]]]:
    second = next(i for i in range(1, len(events)) if events[i][0] < events[i - 1][0])
    return [events[:second], events[second:]]


def test_annotations_of_audacity_and_raven_are_the_same_dataset(ten_minutes, tmp_path: Path) -> None:
    folder, events = ten_minutes
    digests = set()
    for program, write, name in (("audacity", write_track, "day{}.txt"),
                                 ("raven", write_raven, "day{}.Table.1.selections.txt")):  # fmt: skip
        for number, own in enumerate(per_recording(events)):
            write(tmp_path / program / name.format(number), own)
        dataset = load(folder, annotations=str(tmp_path / program))
        assert dataset.manifest.layout[0] == "annotations"
        digests.add((dataset.manifest.digest, dataset.study))
        assert len(dataset.train) == len(events)
        assert dataset.labels == ["Dog bark", "Rain", "Rooster"]
        assert (dataset.config.n_folds, dataset.leak) == (2, "")  # the clips of a recording are in one fold
        for fold in (0, 1):
            assert dataset.manifest.train["group"][dataset.folds == fold].nunique() == 1
    assert len(digests) == 1
    whole = [sf.read(folder / f"day{number}.wav", dtype="float32") for number in (0, 1)]
    for (start, end, label), row in zip(events[:3], [None] * 3, strict=True):
        samples, rate = whole[0]
        name = f"day0_{start:08.3f}-{end:08.3f}.wav"
        (index,) = np.flatnonzero(dataset.manifest.train["fname"] == name)
        cut, cut_rate = sf.read(dataset.manifest.train_folder / name, dtype="float32")
        assert (cut_rate, dataset.manifest.train["label"][index]) == (rate, label)
        np.testing.assert_array_equal(cut, samples[round(start * rate) : round(end * rate)])
        assert row is None


def test_the_clips_are_the_same_when_they_are_cut_again(ten_minutes, tmp_path: Path, monkeypatch) -> None:
    folder, events = ten_minutes
    for number, own in enumerate(per_recording(events)):
        write_track(tmp_path / "tracks" / f"day{number}.txt", own[:9])
    digests = []
    for cache in ("one", "two"):
        monkeypatch.setenv("FSAT_CACHE_DIR", str(tmp_path / cache))
        options = LayoutOptions(annotations=str(tmp_path / "tracks"))
        manifest = read_manifest(folder, layout=options)
        digests.append(manifest.digest)
        stamp = (manifest.train_folder / manifest.train["fname"][0]).stat().st_mtime_ns
        again = read_manifest(folder, layout=options)
        assert (again.train_folder / again.train["fname"][0]).stat().st_mtime_ns == stamp
    assert digests[0] == digests[1]


# --- small recordings ------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Three recordings of ten seconds, each with two sounds of two classes, in label tracks beside them."""
    for number in range(3):
        samples = np.concatenate([tone(300 + 40 * i + number, 1, 8000) for i in range(10)])
        write_wav(tmp_path / "site" / f"rec{number}.wav", samples)
        events = [(1 + 0.1 * number, 2, "Owl, calling"), (4, 5.5, "Fox"), (6, 6.5, "Owl, calling"), (8, 9, "Fox")]
        write_track(tmp_path / "site" / f"rec{number}.txt", events)
    return tmp_path


def test_recordings_with_label_tracks_are_recognised(small: Path) -> None:
    dataset = load(small)
    name, reading = dataset.manifest.layout
    assert (name, reading) == ("annotations", "12 clips of 3 annotated recordings (site/rec0.txt, site/rec1.txt, ...)")
    assert dataset.labels == ["Fox", "Owl, calling"]
    lengths = sorted(dataset.train.lengths / 8000)
    assert lengths == pytest.approx([0.5] * 3 + [0.8, 0.9] + [1] * 4 + [1.5] * 3)
    for recording, folds in dataset.manifest.train.assign(fold=dataset.folds).groupby("group")["fold"]:
        assert folds.nunique() == 1, recording


def test_clips_of_one_length_and_background(small: Path) -> None:
    dataset = load(small, clip_seconds=0.75, background="none of them", task="single")
    assert set((dataset.train.lengths / 8000).round(3)) == {0.75}
    counts = dataset.manifest.train["label"].value_counts()
    assert counts["Fox"] == 3 * (2 + 1)  # 1.5 s are two clips
    assert counts["none of them"] == counts["Fox"]
    free = dataset.manifest.train[dataset.manifest.train["label"] == "none of them"]["fname"]
    for name in free:
        start, end = map(float, name.removesuffix(".wav").split("_")[-1].split("-"))
        assert not any(start < stop and begin < end for begin, stop in [(1.2, 2), (4, 5.5), (5.9, 6.6), (8, 9)])


def test_clips_with_the_labels_of_all_that_sounds(small: Path, tmp_path: Path) -> None:
    rain = (3.9, 9.4, "Rain")  # over a Fox, an Owl and a Fox
    for number in range(3):
        track = small / "site" / f"rec{number}.txt"
        events = [(1 + 0.1 * number, 2, "Owl, calling"), (4, 5.5, "Fox"), (6, 6.5, "Owl, calling"), (8, 9, "Fox")]
        write_track(track, [*events, rain, (4, 5.5, "Dog")])
    assert read_manifest(small).task == "single"
    options = {"task": "multi", "clip_seconds": 1.0}
    manifest = read_manifest(small, layout=LayoutOptions(**options))
    first = manifest.train[manifest.train["recording"] == "site/rec0.wav"]
    labels = {(row.start, row.end): row.label for row in first.itertuples()}
    assert labels[1.0, 2.0] == '"Owl, calling"'
    assert labels[4.0, 5.0] == labels[4.5, 5.5] == "Dog,Fox,Rain"  # once, though two annotations have this time
    assert labels[5.75, 6.75] == '"Owl, calling",Rain'  # all of the owl, and the rain fills the clip
    assert labels[8.0, 9.0] == "Fox,Rain"
    assert labels[3.9, 4.9] == "Dog,Fox,Rain"
    assert manifest.train["group"].nunique() == 3
    assert manifest.layout[1].endswith("; task=multi: the labels of all that sounds in a clip")
    background = read_manifest(small, layout=LayoutOptions(**options | {"task": "auto", "background": "wind, waves"}))
    assert (background.task, background.labels) == ("multi", manifest.labels)
    assert (background.train["label"] == "").sum() == 2 * 3  # before the owl and after it
    for understood, name in ((manifest, ""), (background, "wind, waves")):
        table = tmp_path.with_name(f"{understood.digest}.csv")
        write_manifest_table(read_layout(small, LayoutOptions(**options, background=name)), small, table)
        again = read_manifest(small, layout=LayoutOptions(table=str(table)))
        assert (again.digest, again.layout[0]) == (understood.digest, "annotations")


def test_one_recording_is_split_by_its_stretches_with_a_word(small: Path) -> None:
    for number in (1, 2):
        (small / "site" / f"rec{number}.wav").unlink()
        (small / "site" / f"rec{number}.txt").unlink()
    dataset = load(small)
    assert len(dataset.train) == 4
    assert any(line.startswith("all clips are of one recording, site/rec0.wav") for line in dataset.manifest.warnings)


def test_a_table_of_all_recordings(small: Path) -> None:
    tracks = sorted((small / "site").glob("*.txt"))
    rows = [(track.with_suffix(".wav").name, *line.split("\t")) for track in tracks for line in track.open()]
    expected = load(small).manifest.digest
    for track in tracks:
        track.unlink()
    rows = [[cell.strip() for cell in row] for row in rows]
    write_csv(small / "events.csv", ["filename", "onset", "offset", "event_label"], rows)
    dataset = load(small)
    assert (dataset.manifest.layout[0], dataset.manifest.digest) == ("annotations", expected)
    write_csv(small / "events.csv", ["wave", "from", "to", "what"], rows)
    columns = {"path_column": "wave", "start_column": "from", "end_column": "to", "label_column": "what"}
    assert load(small, **columns).manifest.digest == expected
    write_csv(
        small / "events.csv", ["filename", "onset", "offset", "event_label"], [*rows, ["rec1.wav", "9", "11", "Fox"]]
    )
    with pytest.raises(DataError) as caught:
        load(small)
    assert [str(problem) for problem in caught.value.problems] == [
        "events.csv:14: site/rec1.wav: 9 to 11 s: the recording ends at 10 s"
    ]


def test_times_of_clips_that_were_cut_before_are_no_annotations(tmp_path: Path) -> None:
    rows = []
    for i in range(8):
        write_wav(tmp_path / "clips" / f"{i}.wav", tone(400 + 30 * i, 1, 8000))
        rows.append((f"{i}.wav", 10 * i, 10 * i + 1, ("Owl", "Fox")[i % 2]))
    write_csv(tmp_path / "table.csv", ["filename", "start", "end", "label"], rows)
    manifest = read_manifest(tmp_path)
    assert manifest.layout[0] == "table"
    assert any("unknown columns are left out: start, end" in line for line in manifest.warnings)


def test_a_table_of_annotations_is_read_as_such(small: Path, tmp_path: Path) -> None:
    expected = read_manifest(small)
    table = tmp_path / "understood.csv"
    result = CliRunner().invoke(cli, ["manifest", str(small), "-o", str(table)])
    assert result.exit_code == 0, result.output
    again = read_manifest(small, layout=LayoutOptions(table=str(table)))
    assert (again.layout[0], again.digest) == ("annotations", expected.digest)
    message = error_line(ConfigError, read_manifest, small, layout=LayoutOptions(table=str(table), annotations="."))
    assert message == "table and annotations name the same; give one of them"


def test_annotations_that_cannot_be_used(small: Path, tmp_path: Path) -> None:
    message = error_line(DataError, read_manifest, small, layout=LayoutOptions(annotations="nowhere"))
    assert message.startswith("annotations=nowhere: no such file or folder")
    (small / "site" / "rec1.wav").write_bytes(b"RIFF no sound")
    with pytest.raises(DataError) as caught:
        read_manifest(small)
    assert [(problem.file, problem.row) for problem in caught.value.problems] == [
        ("site/rec1.txt", i) for i in (1, 2, 3, 4)
    ]
    assert len(read_manifest(small, "exclude").train) == 8


# --- spans -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "seconds", "expected"),
    [
        ((4.0, 5.0), 0, [(4, 5)]),
        ((4.0, 5.0), 3, [(3, 6)]),
        ((0.0, 1.0), 3, [(0, 3)]),
        ((9.5, 10.0), 3, [(7, 10)]),
        ((2.0, 9.0), 3, [(2, 5), (6, 9)]),
        ((4.0, 5.0), 20, [(0, 10)]),
    ],
)
def test_spans_of_an_annotation(event, seconds, expected) -> None:
    spans = spans_of("a.wav", [Annotation(*event, "Owl")], 10, seconds)
    assert [(span.start, span.end) for span in spans] == expected


def test_background_is_spread_over_the_recordings() -> None:
    spans = {"a.wav": [(4, 5)], "b.wav": [(2, 3), (0, 8)]}
    found = background_spans(spans, {"a.wav": 10, "b.wav": 10}, "none", 2, 3)
    assert [(span.recording, span.start, span.end) for span in found] == [
        ("a.wav", 0, 2),
        ("a.wav", 5, 7),
        ("b.wav", 8, 10),
    ]
    assert background_spans(spans, {}, "none", 2, 99)[-1].recording == "a.wav"  # nothing is known after b's end


def test_names_and_stretches_of_spans() -> None:
    spans = [
        Span("a.wav", 1, 2, "Owl"),
        Span("a.wav", 1, 2, "Fox"),
        Span("s/b.mp3", 1.5, 3, "Fox"),
        Span("a.wav", 9, 10, "Fox"),
    ]
    names = clip_names(spans)
    assert names == ["a_0001.000-0002.000.wav", "a_0001.000-0002.000_2.wav", "s/b.mp3_0001.500-0003.000.wav",
                     "a_0009.000-0010.000.wav"]  # fmt: skip
    groups = stretches(spans)
    assert groups[0] == groups[1]
    assert len(set(groups)) == 3


# --- recordings that cannot be read, and their names ------------------------------------------------


EVENTS = [(0.5, 1.0, "a"), (2.0, 3.0, "b"), (4.0, 4.5, "a"), (6.0, 7.0, "b")]


def two_recordings(folder: Path, first: str = "x", second: str = "y") -> Path:
    """Write two recordings with the same annotations."""
    for i, name in enumerate((first, second)):
        noise = np.random.default_rng(i).normal(0, 0.1, 10 * 8000).astype(np.float32)
        write_wav(folder / f"{name}.wav", noise)
        write_track(folder / f"{name}.txt", EVENTS)
    return folder


def test_a_broken_link_is_a_problem_of_its_rows(tmp_path: Path) -> None:
    folder = two_recordings(tmp_path / "data")
    (folder / "z.wav").symlink_to(tmp_path / "moved.wav")
    write_track(folder / "z.txt", EVENTS)
    with pytest.raises(DataError) as caught:
        read_manifest(folder)
    assert {problem.file for problem in caught.value.problems} == {"z.txt"}
    assert len(read_manifest(folder, "exclude").train) == 8
    (folder / "y.wav").rename(tmp_path / "moved.wav")
    (folder / "y.wav").symlink_to(tmp_path / "moved.wav")
    assert len(read_manifest(folder).train) == 12


def test_what_needs_ffmpeg_is_cut_once_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = two_recordings(tmp_path)

    def refuse(*_: object) -> None:
        raise AudioError("needs FFmpeg")

    with monkeypatch.context() as without:
        without.setattr(annotated_clips, "has_ffmpeg", lambda: False)
        without.setattr(annotated_clips, "cut_pieces", refuse)
        with pytest.raises(DataError):
            read_manifest(folder)
    monkeypatch.setattr(annotated_clips, "has_ffmpeg", lambda: True)
    assert len(read_manifest(folder).train) == 8


def test_clips_of_recordings_with_long_names(tmp_path: Path) -> None:
    start = "\u0916" * 78  # 234 bytes
    manifest = read_manifest(two_recordings(tmp_path, f"{start}1", f"{start}2"))
    assert sorted(manifest.train["recording"].value_counts()) == [4, 4]
    assert manifest.train["digest"].nunique() == 8
    assert all(len(name.encode()) <= 200 for name in manifest.train["fname"])


def test_no_background_where_an_annotation_is_left_out(tmp_path: Path) -> None:
    """The sound of a row that cannot be used is none, though nothing is annotated there."""
    folder = two_recordings(tmp_path)
    write_track(folder / "x.txt", [*EVENTS, (7.5, 9.5, "")])
    manifest = read_manifest(folder, "exclude", layout=LayoutOptions(background="none", task="single"))
    assert set(manifest.train.loc[manifest.train["label"] == "none", "recording"]) == {"y.wav"}
    assert "background=none: none is taken from x.wav, of which annotations are left out" in manifest.warnings
