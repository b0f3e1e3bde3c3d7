"""The best-scoring segments of each class as WAV files: their samples, their names, and the command."""

from __future__ import annotations

import os
import shutil
import signal
import tracemalloc
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from audio_bytes import make
from fsat_process import FsatProcess
from helpers import error_line, read_csv, tone, wait_for, write_csv, write_wav

from fsat.cli import run
from fsat.commands.segments import COLUMNS, segments
from fsat.data import cut_pieces as cutting
from fsat.data.cut_pieces import Piece, Pieces, cut_pieces
from fsat.data.manifest import read_manifest
from fsat.data.recording import Recording
from fsat.errors import AudioError, DataError, FsatError, StorageError
from fsat.options import SegmentOptions
from fsat.tagging.best_segments import best_tags, name_segments
from fsat.tagging.file_names import DistinctNames, safe_name
from fsat.tagging.ledger import Ledger
from fsat.tagging.read_tables import Tag
from fsat.tagging.tables import Form, Span, Tags, write_tags

RATE = 44100
OVER_TIME = ("fname", "start", "end", "label", "score", "error", "note")


def noise(seconds: float, channels: int = 1, rate: int = RATE) -> np.ndarray:
    samples = 0.3 * np.random.default_rng(1).standard_normal((round(seconds * rate), channels))
    samples[::1000] = 1.5  # which whole numbers clip
    return samples.astype(np.float32)


@pytest.mark.parametrize(
    ("form", "subtype", "stored"),
    [
        ("WAV", "PCM_U8", "PCM_U8"), ("WAV", "PCM_16", "PCM_16"), ("WAV", "PCM_24", "PCM_24"),
        ("WAV", "PCM_32", "FLOAT"),
        ("WAV", "FLOAT", "FLOAT"), ("AIFF", "DOUBLE", "FLOAT"), ("AIFF", "PCM_S8", "PCM_U8"), ("WAV", "ULAW", "PCM_16"),
        ("FLAC", "PCM_16", "PCM_16"), ("FLAC", "PCM_24", "PCM_24"), ("CAF", "ALAC_24", "PCM_24"),
    ],
)  # fmt: skip
def test_a_piece_has_the_very_samples_of_its_time(form, subtype, stored, tmp_path, monkeypatch) -> None:
    """Those that soundfile reads, also where a piece goes over the edges of blocks."""
    monkeypatch.setattr(cutting, "BLOCK", 2 * 10_000)
    source = tmp_path / "recording"
    sf.write(source, noise(2.0, 2), RATE, subtype, format=form)
    spans = [(0.1234, 1.9), (0.0, 0.05), (0.5, 0.75), (0.5, 2.0), (1.0, 1.0 + 1e-6)]
    pieces = [Piece(tmp_path / f"{i}.wav", *span) for i, span in enumerate(spans)]
    assert cut_pieces(source, pieces).fault == ""
    for piece in pieces:
        first, last = round(piece.start * RATE), max(round(piece.start * RATE) + 1, round(piece.end * RATE))
        expected, _ = sf.read(source, dtype="float32", start=first, stop=last, always_2d=True)
        actual, rate = sf.read(piece.path, dtype="float32", always_2d=True)
        np.testing.assert_array_equal(actual, expected)
        info = sf.info(piece.path)
        assert (rate, info.channels, info.subtype, info.format) == (RATE, 2, stored, "WAV")


def test_pieces_of_compressed_recordings_are_rounded(tmp_path) -> None:
    for name, bits in (("mp3", 16), ("ogg", 16), ("m4a", 16), ("wv", 16), ("alac", 16)):
        source = tmp_path / name
        source.write_bytes(make(name))
        result = cut_pieces(source, [Piece(tmp_path / "piece.wav", 1.0, 2.0), Piece(tmp_path / "all.wav")])
        assert result.spans[0] == (1.0, 2.0)
        whole, piece = (sf.read(tmp_path / f"{part}.wav", dtype="int16")[0] for part in ("all", "piece"))
        np.testing.assert_array_equal(whole[48000:96000], piece)
        if name in ("mp3", "ogg"):
            expected = np.rint(np.clip(sf.read(source, dtype="float32")[0] * 2 ** (bits - 1), -32768, 32767))
            np.testing.assert_array_equal(whole, expected)


def test_padding_and_length(tmp_path) -> None:
    source = write_wav(tmp_path / "r.wav", noise(10.0), RATE)
    options = {"longest": 2.0, "padding": 1.0}
    pieces = [Piece(tmp_path / f"{i}.wav", *span, **options) for i, span in enumerate([(0.5, 1.5), (2, 8), (8.5, 10)])]
    whole = [Piece(tmp_path / "all.wav"), Piece(tmp_path / "middle.wav", longest=2.0)]
    result = cut_pieces(source, [*pieces, *whole])
    assert result == Pieces([(0.0, 2.5), (3.0, 7.0), (7.5, 10.0), (0.0, 10.0), (4.0, 6.0)])
    assert [sf.info(piece.path).duration for piece in pieces] == [2.5, 4.0, 2.5]


def test_a_recording_that_ends_early_gives_what_it_has(tmp_path) -> None:
    data = write_wav(tmp_path / "r.wav", noise(10.0), RATE).read_bytes()
    (tmp_path / "r.wav").write_bytes(data[: len(data) // 2])
    pieces = [Piece(tmp_path / f"{i}.wav", i, i + 2.0) for i in (7, 1, 4)]
    result = cut_pieces(tmp_path / "r.wav", pieces)
    assert (result.spans, result.fault) == ([None, (1.0, 3.0), None], "cut off after 5.00 s of 10.00 s")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.wav", "r.wav"]  # no file is left half written
    whole = write_wav(tmp_path / "whole.wav", noise(5.0), RATE)
    result = cut_pieces(whole, [Piece(tmp_path / "late.wav", 7, 9), Piece(tmp_path / "end.wav", 4, 5.02)])
    assert (result.spans, result.fault) == ([None, (4.0, 5.0)], "the recording ends at 5.00 s")
    for content, fault in ((b"", "empty file"), (b"no sound" * 99, "unreadable audio")):
        (tmp_path / "r.wav").write_bytes(content)
        assert error_line(AudioError, cut_pieces, tmp_path / "r.wav", pieces).startswith(fault)


def test_a_piece_of_more_than_4_gb_is_an_rf64(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(cutting, "LARGEST_WAV", 40_000)
    monkeypatch.setattr(cutting, "BLOCK", 10_000)
    source = write_wav(tmp_path / "r.wav", noise(2.0), RATE)
    cut_pieces(source, [Piece(tmp_path / "long.wav", 0.25, 1.75)])
    assert sf.info(tmp_path / "long.wav").format == "RF64"
    expected = sf.read(source, start=round(0.25 * RATE), stop=round(1.75 * RATE))[0]
    np.testing.assert_array_equal(sf.read(tmp_path / "long.wav")[0], expected)


def test_memory_does_not_grow_with_a_recording_or_a_piece(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(cutting, "BLOCK", 1 << 16)
    source = write_wav(tmp_path / "r.wav", noise(600.0, rate=8000), 8000)  # 19 MB as float32
    tracemalloc.start()
    cut_pieces(source, [Piece(tmp_path / "all.wav"), Piece(tmp_path / "end.wav", 500, 600)])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4e6
    assert sf.info(tmp_path / "all.wav").frames == 4_800_000


def test_a_full_disk_is_one_line_and_leaves_no_half_file(tmp_path, monkeypatch) -> None:
    source = write_wav(tmp_path / "r.wav", noise(1.0), RATE)

    def fail(*_: object) -> None:
        raise sf.LibsndfileError(2)

    monkeypatch.setattr(sf.SoundFile, "write", fail)
    line = error_line(FsatError, cut_pieces, source, [Piece(tmp_path / "p.wav", 0, 0.5)])
    assert line.startswith(f"{tmp_path / 'p.wav'}: cannot be written: ")
    assert [path.name for path in tmp_path.iterdir()] == ["r.wav"]


# --- choosing and naming ---------------------------------------------------------------------------


def test_the_best_of_each_class_in_the_order_of_the_table() -> None:
    tags = [Tag("r", i, i + 1.0, "ab"[i % 2], score) for i, score in enumerate([0.5, 0.1, 0.9, 0.2, 0.5, 0.3, 0.7])]
    best = best_tags(iter(tags), per_class=3, min_score=0.2)
    assert {label: [tag.start for tag in chosen] for label, chosen in best.items()} == {"a": [2, 6, 0], "b": [5, 3]}


def test_names_sort_best_first_and_tell_recording_and_time() -> None:
    tags = [
        Tag("site1/day.wav", 123.5, 126.5, "Owl", 0.9734),
        Tag("/abs/../x:y?.flac", 100.0, 200.0, "Owl", 0.25),
        Tag("clip.wav", None, None, "Owl", 0.125),
    ]
    paths = [segment.path for segment in name_segments(best_tags(tags, 9), 30.0)]
    assert paths == [
        "Owl/01_0.973_site1_day_000123.50-000126.50.wav",
        "Owl/02_0.250_abs_x_y__000135.00-000165.00.wav",
        "Owl/03_0.125_clip.wav",
    ]
    many = [Tag("r.wav", i, i + 1, "Owl", i / 1000) for i in range(150)]
    names = [segment.path for segment in name_segments(best_tags(many, 150), 30.0)]
    assert names == sorted(names)
    assert len(set(names)) == 150


LABELS = {
    "Gans, graue": "Gans, graue", "AC/DC": "AC_DC", "a\\b:c*?\"<>|": "a_b_c______", "..": "_", "...": "_", "": "_",
    " . x. ": "_ x", ".hidden": "_hidden", "CON": "CON_", "nul.wav": "nul_.wav", "falcon": "falcon", "com1": "com1_",
    "LPT¹": "LPT¹_", "con .x": "con_ .x", "line\nend": "line_end", "\u202eexe.gnp": "_exe.gnp", "ヨシキリ": "ヨシキリ",
    "می‌رود": "می‌رود", "a\u0308": "ä", "\udce4": "_", "🦉": "🦉", "-rf": "-rf", "aux": "aux_",
}  # fmt: skip


def test_any_label_is_a_folder(tmp_path) -> None:
    assert {label: safe_name(label) for label in LABELS} == LABELS
    long = ["ä" * 300, "ä" * 300 + "b", "x" * 99 + ".y", "x" * 99 + " y", "👩‍🔬" * 90]
    names = DistinctNames(["segments.csv"])
    given = [
        names.of(label) for label in [*LABELS, *long, "segments.csv", "SEGMENTS.CSV", "gans, Graue", "GANS, GRAUE"]
    ]
    keys = [unicodedata.normalize("NFC", name).casefold() for name in given]
    assert len(set(keys)) == len(keys)
    assert "segments.csv" not in keys
    for name in given:
        assert len(name.encode()) < 150
        assert name == name.strip(" .")
        (tmp_path / name).mkdir()
    assert sorted(os.listdir(tmp_path)) == sorted(given)


def test_files_of_any_recording_can_be_written(tmp_path) -> None:
    """Also while they are unfinished, when their names are longer."""
    tags = [Tag("x/" * 50 + "ö" * 250 + ".wav", i * 1e6, i * 1e6 + 5, "L" * 300, 0.5) for i in range(3)]
    for segment in name_segments(best_tags(tags, 3), 30.0):
        path = tmp_path / segment.path
        path.parent.mkdir(exist_ok=True)
        cut_pieces(make("wav"), [Piece(path)])
        assert path.stat().st_size > 100_000


# --- the command -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> Path:
    """Two stereo recordings in folders, a whole clip, one that is cut off and one that is no sound."""
    root = tmp_path_factory.mktemp("recordings")
    for name, seconds in (("site1/day.wav", 30.0), ("site2/day.wav", 20.0)):
        samples = noise(seconds, 2, 8000)
        write_wav(root / name, samples, 8000, "PCM_24")
    write_wav(root / "clip.wav", tone(300, 2.0, 8000), 8000)
    data = (root / "site2/day.wav").read_bytes()
    (root / "cut.wav").write_bytes(data[: len(data) // 2])
    (root / "text.wav").write_text("no sound")
    return root


@pytest.fixture(scope="module")
def table(recordings) -> Path:
    rows = [
        ("site1/day.wav", 1.0, 3.0, "Owl, barn", 0.9), ("site1/day.wav", 3.0, 6.5, "", ""),
        ("site1/day.wav", 20.0, 22.5, "owl, Barn", 0.4), ("site1/day.wav", 22.5, 25.0, "CON", 0.2),
        ("site2/day.wav", 0.0, 1.0, "Owl, barn", 0.95), ("site2/day.wav", 5.0, 7.0, "Owl, barn", 0.1),
        ("cut.wav", 1.0, 2.0, "CON", 0.7), ("cut.wav", 15.0, 16.0, "CON", 0.6),
        ("text.wav", 1.0, 2.0, "CON", 0.5), ("gone.wav", 0.0, 1.0, "Owl, barn", 0.99),
    ]  # fmt: skip
    return write_csv(recordings / "tags.csv", OVER_TIME, [(*row, "", "") for row in rows])


@pytest.mark.slow
def test_the_best_segments_of_each_class_are_cut_out(recordings, table, store, tmp_path, capsys) -> None:
    output = tmp_path / "segments"
    result = segments(table, str(recordings), output, SegmentOptions(per_class=3, padding=0.5, min_score=0.15))
    assert (result.n_segments, result.n_classes, result.n_recordings) == (4, 3, 3)
    rows = read_csv(output / "segments.csv")
    assert list(rows[0]) == [*COLUMNS]
    assert [row["fname"] for row in rows] == [
        "CON_/01_0.700_cut_000001.00-000002.00.wav",
        "Owl, barn/02_0.950_site2_day_000000.00-000001.00.wav",
        "Owl, barn/03_0.900_site1_day_000001.00-000003.00.wav",
        "owl, Barn (2)/01_0.400_site1_day_000020.00-000022.50.wav",
    ]
    assert [list(row.values())[1:] for row in rows] == [
        ["CON", "0", "cut.wav", "0.5", "2.5", "0.7"],
        ["Owl, barn", "0", "site2/day.wav", "0.0", "1.5", "0.95"],
        ["Owl, barn", "0", "site1/day.wav", "0.5", "3.5", "0.9"],
        ["owl, Barn", "0", "site1/day.wav", "19.5", "23.0", "0.4"],
    ]
    for row in rows:
        first, last = (round(float(row[name]) * 8000) for name in ("recording_start", "recording_end"))
        source = recordings / row["group"]
        if row["group"] == "cut.wav":
            source = recordings / "site2/day.wav"  # of which it is the first half
        expected = sf.read(source, start=first, stop=last, dtype="int32")[0]
        np.testing.assert_array_equal(sf.read(output / row["fname"], dtype="int32")[0], expected)
    said = capsys.readouterr().err
    assert "warning: gone.wav: missing file\n" in said
    assert "warning: cut.wav: cut off after 10.00 s of 20.00 s: 1 of 2 segments cut out\n" in said
    assert "warning: text.wav: unreadable audio" in said
    assert f"4 segments of 3 classes from 3 recordings; table in {output}/segments.csv\n" in said
    assert sorted(path.name for path in output.iterdir()) == ["CON_", "Owl, barn", "owl, Barn (2)", "segments.csv"]
    (output / "segments.csv").write_text("reviewed")
    line = error_line(DataError, segments, table, str(recordings), output, SegmentOptions())
    assert "is not empty, it has CON_; expected a new or empty folder" in line
    assert (output / "segments.csv").read_text() == "reviewed"


@pytest.mark.slow
def test_segments_are_a_dataset_after_a_review(recordings, table, store, tmp_path) -> None:
    """As a table of clips in the folder of a dataset."""
    output, data, tags = tmp_path / "segments", tmp_path / "data", tmp_path / "tags.csv"
    tags.write_text(table.read_text().replace('"Owl, barn"', "Owl").replace('"owl, Barn"', "Crow"))
    segments(tags, str(recordings), output, SegmentOptions())
    data.mkdir()
    (data / "train.csv").write_text((output / "segments.csv").read_text().replace(",0,", ",1,"))
    (data / "audio_train").symlink_to(output)
    manifest = read_manifest(data)
    assert manifest.train["label"].tolist() == [row["label"] for row in read_csv(output / "segments.csv")]
    assert manifest.train["manually_verified"].tolist() == [1] * 6
    assert manifest.problems == []


@pytest.mark.slow
def test_clips_of_any_form_and_format_are_cut_out_whole(recordings, store, tmp_path) -> None:
    samples = sf.read(recordings / "clip.wav", dtype="int16")[0]
    clips = [Tags("clip.wav", ["Owl", "Crow"], [0.75, 0.25], note="clipped"), Tags("text.wav", [], [], "unreadable")]
    for suffix in ("csv", "tsv", "jsonl", "parquet"):
        for long in (False, True):
            path, output = tmp_path / f"t.{suffix}", tmp_path / f"{suffix}-{long}"
            write_tags(path, clips, Form(2, long=long, excel=suffix in ("csv", "tsv")))
            assert segments(path, str(recordings / "clip.wav"), output, SegmentOptions()).n_segments == 2
            for name in ("Crow/01_0.250_clip.wav", "Owl/01_0.750_clip.wav"):
                np.testing.assert_array_equal(sf.read(output / name, dtype="int16")[0], samples)


@pytest.mark.slow
def test_a_recording_whose_name_is_not_text(store, tmp_path) -> None:
    """The table of `predict` has its bytes as escapes."""
    name = os.fsdecode(b"gr\xfcn \xe9.wav")
    write_wav(tmp_path / "in" / "a.wav", noise(1.0), RATE).rename(tmp_path / "in" / name)
    write_tags(tmp_path / "t.csv", [Span(name, 0.0, 0.5, "Owl", 0.5)], Form(1, over_time=True))
    output = tmp_path / os.fsdecode(b"\xfcber")
    assert segments(tmp_path / "t.csv", str(tmp_path / "in"), output, SegmentOptions()).n_segments == 1
    (row,) = read_csv(output / "segments.csv")
    assert (row["fname"], row["group"]) == ("Owl/01_0.500_gr_xfcn _xe9_000000.00-000000.50.wav", "gr\\xfcn \\xe9.wav")
    assert (output / row["fname"]).stat().st_size == 44 + RATE


@pytest.mark.slow
def test_an_interrupted_command_resumes(recordings, table, store, tmp_path, monkeypatch, capsys) -> None:
    output, seen, cut = tmp_path / "segments", list[str](), cutting.cut_pieces

    def cut_and_stop(source: Path, pieces: list[Piece]) -> Pieces:
        seen.append(source.name)
        if len(seen) == 4:
            (output / "CON_" / ".1.unfinished.x.wav").touch()  # as of a killed process
            raise KeyboardInterrupt
        return cut(source, pieces)

    monkeypatch.setattr("fsat.commands.segments.cut_pieces", cut_and_stop)
    with pytest.raises(KeyboardInterrupt):
        segments(table, str(recordings), output, SegmentOptions())
    assert "segments: 2 of 5 recordings are done; the same command resumes there" in capsys.readouterr().err
    assert not (output / "segments.csv").exists()
    with pytest.raises(
        DataError, match=r"holds results for per_class=20, not per_class=3; give that again, choose.*remove /"
    ):
        segments(table, str(recordings), output, SegmentOptions(per_class=3))
    result = segments(table, str(recordings), output, SegmentOptions())
    assert seen == ["cut.wav", "gone.wav", "day.wav", "day.wav", "gone.wav", "day.wav", "text.wav"]
    assert result.n_segments == len(read_csv(output / "segments.csv")) == len(list(output.rglob("*.wav"))) == 6
    assert list(result.faults) == ["gone.wav", "text.wav", "cut.wav"]
    assert len(list(output.iterdir())) == 4


@pytest.mark.process
def test_a_killed_command_resumes(store, tmp_path, signals) -> None:
    """No file is half written, and the rest is cut as if nothing had happened."""
    rows = []
    for i in range(60):
        write_wav(tmp_path / "in" / f"{i}.wav", noise(3.0), RATE)
        rows += [(f"{i}.wav", j / 2, j / 2 + 1.5, "abc"[j % 3], f"0.{i}{j}", "", "") for j in range(4)]
    table, output = write_csv(tmp_path / "tags.csv", OVER_TIME, rows), tmp_path / "out"
    command = ["segments", "--tags", table, "--input", tmp_path / "in", "--per_class", "999", "--output"]
    process = FsatProcess([*command, output], cwd=store, env={"MLFLOW_TRACKING_URI": f"sqlite:///{store}/mlflow.db"})
    wait_for(lambda: len(list(output.rglob("*.wav"))) > 20 or process.returncode is not None, 60)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert (output / "segments.csv.unfinished").exists()
    for path in (output / "a").glob("[0-9]*.wav"):
        assert sf.info(path).frames == round(1.5 * RATE)
    assert run([*map(str, command), str(output)]) == 0
    assert run([*map(str, command), str(tmp_path / "whole")]) == 0
    files = sorted(path.relative_to(output) for path in output.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*.*"))
    assert len(files) == 241
    assert all((output / name).read_bytes() == (tmp_path / "whole" / name).read_bytes() for name in files)


@pytest.mark.slow
def test_a_drive_that_is_away_is_tried_again(recordings, table, store, tmp_path, monkeypatch) -> None:
    output, away = tmp_path / "segments", tmp_path / "away"
    line = error_line(DataError, segments, table, str(tmp_path), output, SegmentOptions())
    assert line.startswith(
        f"input={tmp_path}: none of 5 recordings could be cut, first cut.wav: missing file; expected"
    )
    root = tmp_path / "drive"
    shutil.copytree(recordings, root)
    record = Ledger.record

    def record_and_unplug(self: Ledger, results: object) -> None:
        record(self, results)
        root.rename(away)

    other = tmp_path / "other"
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "record", record_and_unplug)
        line = error_line(StorageError, segments, table, str(root), other, SegmentOptions())
    assert line.startswith(
        f"{root}: the folder went away while its recordings were cut; connect it again, and the same"
    )
    away.rename(root)
    assert segments(table, str(root), other, SegmentOptions()).n_segments == 6  # those of cut.wav were done before


@pytest.mark.slow
def test_mistakes_are_one_line(recordings, table, store, tmp_path, signals, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    given = ["segments", "--tags", str(table), "--input", str(recordings)]
    for more, message in (
        (["--tags", "none.csv"], "none.csv: cannot be read: No such file or directory; expected a table that"),
        (["--input", "nowhere"], "input=nowhere: no such file or folder"),
        (["--output", "full"], "output=full: is not empty, it has mine.txt; expected a new or empty folder"),
        (["--output", "file"], "file/segments.csv: cannot be written: "),
        (["--min_score", "1"], "no tags with a score of at least 1"),
        (["--per_class", "0"], "per_class=0: expected at least 1"),
        (["--padding", "-1"], "padding=-1: expected at least 0"),
        (["--tags", str(recordings / "text.wav")], "expected a table that `fsat predict` wrote, whose name ends in"),
    ):
        assert run([*given, *more]) != 0
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("fsat: error: ")
        assert message in line
    assert not (tmp_path / "segments" / "segments.csv").exists()


@pytest.mark.slow
def test_each_recording_is_read_once(recordings, table, store, tmp_path, monkeypatch) -> None:
    opened, read = list[int](), Recording.read
    monkeypatch.setattr(Recording, "read", lambda self, n_frames: (opened.append(n_frames), read(self, n_frames))[1])
    assert segments(table, str(recordings), tmp_path / "out", SegmentOptions()).n_segments == 6
    assert len(opened) == 3
