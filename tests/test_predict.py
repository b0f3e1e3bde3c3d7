"""Tagging collections of files: the table, its formats, and resuming after an interruption."""

from __future__ import annotations

import io
import os
import re
import signal
import sqlite3
import unicodedata
from contextlib import suppress
from pathlib import Path
from unittest import mock

import mlflow
import numpy as np
import pandas as pd
import pytest
import soundfile as sf
from audio_bytes import by_libsndfile, make
from click.testing import CliRunner
from fsat_process import FsatProcess
from helpers import CLASSES, error_line, make_dataset, one_line, tone, wait_for, write_wav
from stores import artifacts
from taggers import TINY, register_tagger, write_tagger

from fsat.cli import cli, run
from fsat.commands.predict import predict, uri_of
from fsat.errors import ConfigError, FsatError
from fsat.options import CLIPS, TagSettings
from fsat.tagging import Tagger, ledger
from fsat.tagging.tag_groups import GROUP_SIZE
from fsat.tracking.registry import open_tagger

pytestmark = pytest.mark.slow

RATE = 8000
BAD = {"empty.wav": "empty file", "text.flac": "unreadable audio", "gone.wav": "missing file"}
OTHER = {"model": "dummy1d", "sampling_rate": 16000, "audio_duration": 0.5, "eval_crops": 2}


@pytest.fixture(scope="module")
def tagger(store) -> Tagger:
    """The champion: two studies of two folds, at two rates."""
    register_tagger(write_tagger(store / "tagger", [TINY, OTHER]))
    return open_tagger("models:/fsat@champion")


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """72 tones of many lengths in folders, more than a group, and files that cannot be tagged."""
    folder = tmp_path_factory.mktemp("clips")
    for i in range(72):
        path = folder / ("deep/er" if i % 7 == 0 else "") / f"{i:03d}.wav"
        write_wav(path, tone(200 + 40 * i, 0.05 + 0.02 * i, RATE, 0.2 + 0.01 * i), RATE)
    (folder / "empty.wav").write_bytes(b"")
    (folder / "text.flac").write_text("no sound")
    (folder / "gone.wav").symlink_to(folder / "nowhere.wav")
    (folder / "notes.md").write_text("ignored")
    return folder


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, keep_default_na=False)


def tags_of(row: pd.Series) -> tuple[list[str], list[float]]:
    """Labels and scores of a clip's row in CSV, best first."""
    names = [name for name in row.index if re.fullmatch(r"label(_\d+)?", name) and row[name]]
    return [row[name] for name in names], [float(row[name.replace("label", "score")]) for name in names]


def names_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix in (".wav", ".flac"))


@pytest.fixture(scope="module")
def table(tagger, clips, tmp_path_factory) -> pd.DataFrame:
    """The table of the clips, the only file that is left."""
    folder = tmp_path_factory.mktemp("table")
    result = predict(str(clips), folder / "tags.csv", "champion")
    assert (result.n_files, result.n_failed) == (75, 3)
    assert [path.name for path in folder.iterdir()] == ["tags.csv"]
    return read(folder / "tags.csv")


def test_every_file_has_a_row_with_the_scores_of_the_tagger(tagger, clips, table):
    assert list(table) == ["fname", "label", "score", "label_2", "score_2", "label_3", "score_3", "error", "note"]
    assert table["fname"].tolist() == names_below(clips)
    scores, errors = tagger.scores([clips / name for name in table["fname"]])
    for (_, row), expected, error in zip(table.iterrows(), scores, errors, strict=True):
        if error:
            assert error.startswith(BAD[row["fname"]])
            assert (row["error"], *tags_of(row)) == (error, [], [])
            continue
        best = np.argsort(-expected, kind="stable")
        labels, written = tags_of(row)
        assert labels == [CLASSES[j] for j in best]
        np.testing.assert_allclose(written, expected[best], atol=2e-6)
    assert table["label"].nunique() > 3  # the tagger tells the tones apart


def test_the_run_has_the_table_and_counts(tagger, clips, tmp_path):
    predict(str(clips), tmp_path / "tags.csv", "fsat@champion", TagSettings(top_k=1, min_score=0.5))
    run = mlflow.search_runs(filter_string="tags.`fsat.stage` = 'predict'", output_format="list")[0]
    assert run.info.status == "FINISHED"
    assert (run.data.metrics["n_tagged"], run.data.metrics["n_failed"]) == (72, 3)
    assert (run.data.params["top_k"], run.data.params["min_score"]) == ("1", "0.5")
    assert (artifacts(run.info.run_id) / "tags.csv").read_text() == (tmp_path / "tags.csv").read_text()
    table = read(tmp_path / "tags.csv")
    scores = [float(text) for text in table["score"] if text]
    assert min(scores) >= 0.5
    assert 0 < len(scores) < 72  # the others have no tag, and no error either
    assert (table["error"] != "").sum() == 3


def test_json_lines_and_parquet_hold_the_same(table, clips, tmp_path):
    for suffix in ("jsonl", "parquet"):
        predict(str(clips), tmp_path / f"tags.{suffix}", "1")
    lines = pd.read_json(tmp_path / "tags.jsonl", lines=True, dtype={"fname": str})
    for other in (lines, pd.read_parquet(tmp_path / "tags.parquet")):
        assert list(other) == ["fname", "labels", "scores", "error", "note"]
        assert other["fname"].tolist() == table["fname"].tolist()
        for (_, row), written in zip(table.iterrows(), other.itertuples(), strict=True):
            rounded = [float(f"{score:.6f}") for score in written.scores]
            assert (list(written.labels), rounded, written.error, written.note) == (*tags_of(row), row.error, row.note)


def test_a_list_is_tagged_in_its_order(table, clips, tmp_path, monkeypatch, capsys):
    names = names_below(clips)[::-1]
    monkeypatch.chdir(clips)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("\n".join([*names, names[1]]).encode())))
    predict("-", tmp_path / "list.csv", "champion")
    listed = read(tmp_path / "list.csv")
    assert listed["fname"].tolist() == names
    assert listed["label"].tolist() == table.set_index("fname")["label"][names].tolist()
    assert "warning: 1 repeated name in the input; each file is tagged once" in capsys.readouterr().err


@pytest.mark.process
def test_processes_give_the_same_bits(tagger, clips, tmp_path):
    for workers in ("1", "2"):  # the second process would start with a second group
        predict(str(clips / "deep"), tmp_path / f"{workers}.parquet", "champion", workers=workers)
    pd.testing.assert_frame_equal(*map(pd.read_parquet, tmp_path.glob("*.parquet")), check_exact=True)


def test_members_are_selected_by_number_or_name(tagger, clips, tmp_path):
    """A number takes the studies by turns."""
    path = clips / "050.wav"
    (all_members,), _ = tagger.scores([path])
    rows = [tagger.only(names).scores([path])[0][0] for names in ("1", "study0/0", "2", "study1/0, study0/0")]
    np.testing.assert_array_equal(rows[0], rows[1])
    np.testing.assert_array_equal(rows[2], rows[3])
    assert len({row.tobytes() for row in (all_members, rows[0], rows[2])}) == 3
    assert [member.name for member in tagger.members] == ["study0/0", "study0/1", "study1/0", "study1/1"]
    predict(str(path), tmp_path / "one.csv", "champion", TagSettings(members="1", top_k=1))
    assert float(read(tmp_path / "one.csv")["score"][0]) == pytest.approx(rows[0].max(), abs=1e-6)
    for wrong in ("0", "5", "study0/7", ""):
        line = error_line(ConfigError, tagger.only, wrong)
        assert re.match("members=.*study0/0, study0/1, study1/0, study1/1", line)


def test_weights_of_the_selected_studies_sum_to_one(tmp_path):
    blend = {"blend": "weighted", "study_weights": {"study0": 0.25, "study1": 0.75}}
    tagger = Tagger(write_tagger(tmp_path / "tagger", [TINY, OTHER], n_folds=1, **blend)).only("study1/0")
    assert tagger.blend == ("weighted", {"study1": 1.0})
    (row,), _ = tagger.scores([write_wav(tmp_path / "clip.wav", tone(500, 0.4, RATE), RATE)])
    assert row.sum() == pytest.approx(1)


def test_models_by_uri_or_alias():
    short = {"champion": "models:/fsat@champion", "birds@best": "models:/birds@best", "3": "models:/fsat/3",
             "latest": "models:/fsat/latest"}  # fmt: skip
    for model in (*short, "models:/birds/2", "runs:/abc/tagger", "./m"):
        assert uri_of(model) == short.get(model, model)


def test_the_error_of_a_long_clip_suggests_windows(tagger, tmp_path):
    write_wav(tmp_path / "long.wav", tone(300, 3, RATE), RATE)
    result = predict(str(tmp_path / "long.wav"), tmp_path / "t.csv", "champion", TagSettings(max_seconds=2))
    assert result.failure == ("long.wav", "longer than max_seconds=2: 3 s; window=SECONDS gives tags over time")


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    """400 short files, so that a tagging takes a while."""
    folder = tmp_path_factory.mktemp("many")
    for i in range(400):
        write_wav(folder / f"{i:04d}.wav", tone(200 + 9 * i, 0.25, RATE), RATE)
    return folder


def n_recorded(output: Path) -> int:
    """Number of files in the ledger that have a result, perhaps before they are committed."""
    with suppress(sqlite3.Error), sqlite3.connect(f"file:{output}{ledger.SUFFIX}?immutable=1", uri=True) as db:
        return db.execute("SELECT COUNT(*) FROM files WHERE result IS NOT NULL").fetchone()[0]
    return 0  # missing, or being written


@pytest.mark.process
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_an_interrupted_tagging_is_resumed(tagger, many, store, tmp_path, how, capsys):
    output = tmp_path / "tags.parquet"
    command = ["predict", "--input", many, "--output", output]
    process = FsatProcess(command, cwd=store, env={"MLFLOW_TRACKING_URI": f"sqlite:///{store}/mlflow.db"})
    wait_for(lambda: n_recorded(output) > GROUP_SIZE or process.returncode is not None, 120)
    process.send_signal(how)
    _, messages = process.communicate(timeout=60)
    assert process.returncode == (-how if how == signal.SIGKILL else 128 + how), messages
    if how == signal.SIGKILL:
        os.link(many / "0000.wav", many / "new.wav")  # new files are tagged too
        predict(str(many), tmp_path / "whole.parquet", "champion")
    with mock.patch.object(ledger.Ledger, "record", autospec=True, side_effect=ledger.Ledger.record) as record:
        predict(str(many), output, "champion")
    n_done = int(re.search(r"(\d+) of \d+ files were tagged before", capsys.readouterr().err)[1])
    assert 0 < n_done < 400
    recorded = [number for call in record.call_args_list for number, _ in call.args[1]]
    assert len(recorded) == len(set(recorded)) == len(list(many.iterdir())) - n_done
    statuses = mlflow.search_runs(filter_string="tags.`fsat.stage` = 'predict'")["status"].tolist()
    assert "RUNNING" not in statuses  # nor the one of the killed process
    assert not output.with_name(output.name + ledger.SUFFIX).exists()
    if how == signal.SIGTERM:
        assert statuses[:2] == ["FINISHED", "KILLED"]
        assert f"{n_done} of 400 files are tagged; the same command resumes there" in messages
        return
    (many / "new.wav").unlink()
    table = pd.read_parquet(output)
    assert table["fname"].iloc[-1] == "new.wav"
    pd.testing.assert_frame_equal(table, pd.read_parquet(tmp_path / "whole.parquet"), check_exact=True)


@pytest.mark.parametrize(("text", "output", "model", "message"), [
    ("*.nothing", "t.csv", "champion", "no files to tag; expected a file, a folder"),
    (".", "t.xml", "champion", "expected a name that ends in .csv, .tsv, .jsonl, .parquet"),
    (".", "t.csv", "challenger", "model=models:/fsat@challenger: cannot be loaded"),
    ("torn.csv", "t.csv", "champion", "torn.csv: line 3: 1 cell in a table of 2 columns"),
])  # fmt: skip
def test_mistakes_are_one_line_and_leave_no_files(tagger, tmp_path, monkeypatch, text, output, model, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "torn.csv").write_text("fname,label\na.wav,x\nb.wav\n")
    write_wav(tmp_path / "a.wav", tone(300, 0.2, RATE), RATE)
    assert message in error_line(FsatError, predict, text, Path(output), model)
    assert not list(tmp_path.glob("t.*"))


def test_the_table_of_a_dataset_names_the_clips_in_its_folder(tagger, tmp_path):
    data = make_dataset(tmp_path / "data", clips_per_class=1)
    result = predict(str(data / "train.csv"), tmp_path / "t.csv", "champion")
    assert (result.n_files, result.n_failed) == (3, 0)


def test_the_command_fails_if_no_file_can_be_tagged(tagger, tmp_path, monkeypatch, signals):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "none.txt").write_text("x.wav\ny.wav\n")
    result = CliRunner().invoke(cli, ["predict", "--input", "none.txt"])
    assert "none of 2 files could be tagged, first x.wav: missing file; tags.csv has" in one_line(result.exception)
    assert read(tmp_path / "tags.csv")["error"].tolist() == ["missing file"] * 2


def test_settings_are_checked():
    assert (CLIPS.tags, TagSettings(window=2).tags, TagSettings(window=2, top_k=4).tags) == (3, 1, 4)
    for wrong, message in [
        ({"hop": 1}, "hop=1"), ({"window": 1, "hop": 2}, "at most window=1"), ({"window": 1e-5}, "at least 0.01"),
        ({"window": float("nan")}, "window=nan"), ({"min_score": 2}, "min_score=2"),
        ({"max_seconds": float("inf")}, "max_seconds=inf"),
    ]:  # fmt: skip
        assert message in error_line(ConfigError, TagSettings, **wrong)


def test_tags_over_time_and_label_tracks(tagger, tmp_path):
    """Tones one after the other get the tags that each gets by itself, equal neighbours merged."""
    pieces = [tone(frequency, 1, RATE) for frequency in (300, 300, 900, 2500, 2500, 2500, 700, 3500)]
    path = write_wav(tmp_path / "recordings" / "day one.wav", np.concatenate(pieces), RATE)
    scores, _ = tagger.scores([write_wav(tmp_path / f"{i}.wav", piece, RATE) for i, piece in enumerate(pieces)])
    truth: list[tuple[float, float, str]] = []
    for i, label in enumerate(CLASSES[row.argmax()] for row in scores):
        start = truth.pop()[0] if truth and truth[-1][2] == label else i
        truth.append((start, i + 1, label))
    assert len(truth) > 2
    tracks = tmp_path / "tracks"
    predict(str(path.parent), tmp_path / "t.csv", "champion", TagSettings(window=1), label_tracks=tracks)
    for suffix in ("jsonl", "parquet"):
        predict(str(path), tmp_path / f"t.{suffix}", "champion", TagSettings(window=1))
    table = read(tmp_path / "t.csv")
    assert list(table) == ["fname", "start", "end", "label", "score", "error", "note"]
    for frame in (table, pd.read_parquet(tmp_path / "t.parquet"), pd.read_json(tmp_path / "t.jsonl", lines=True)):
        assert [(row.start, row.end, row.label) for row in frame.itertuples()] == truth
        np.testing.assert_allclose(frame["score"].astype(float), table["score"].astype(float), atol=1e-6)
    lines = [line.split("\t") for line in (tracks / "day one.wav.txt").read_text().splitlines()]
    assert [(float(start), float(end), label) for start, end, label in lines] == truth


def test_label_tracks_do_not_overwrite_each_other(tagger, tmp_path, capsys):
    names = ["sub/ä.wav", "sub/a.flac", "sub/Ä.wav", "../sub/ä.wav"]  # decomposed on disk
    root = tmp_path / "root"
    for i, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        sf.write(root / unicodedata.normalize("NFD", name), tone(300 + 400 * i, 1, RATE), RATE)
    (root / "list.txt").write_text("\n".join(names))
    tracks = tmp_path / "tracks"
    predict(str(root / "list.txt"), tmp_path / "t.csv", "champion", TagSettings(window=1), label_tracks=tracks)
    table = read(tmp_path / "t.csv").drop_duplicates("fname")
    paths = ["sub/ä.wav", "sub/a.flac", "sub/Ä.wav (2)", "sub/ä.wav (3)"]
    for row, path in zip(table.itertuples(), paths, strict=True):
        assert (tracks / f"{path}.txt").read_text().split()[2] == row.label
    assert "warning: 2 label tracks with a number, as another has the same name; first that of sub/Ä.wav, " in (
        capsys.readouterr().err
    )


def test_a_real_recording_from_the_table_to_segments(tagger, shared, tmp_path, signals, capsys):
    """Through the command line: tags for Excel and Raven, and the best of each class cut out of the recording."""
    clips = sorted((shared / "data" / "esc10").rglob("*.ogg"))[::40]
    parts, (rate, *_) = zip(*(sf.read(clip, dtype="int16") for clip in clips), strict=True)
    recording = write_wav(tmp_path / "site1" / "=day.wav", np.concatenate(parts), rate)
    folders = ["--raven_tables", tmp_path / "raven", "--label_tracks", tmp_path / "tracks"]
    options = ["--window", 0.5, "--top_k", 2, *folders, "--excel", "true", "--long", "true", "--output"]
    given, best = ["--input", tmp_path / "site1"], ["--output", tmp_path / "best", "--per_class", 4]
    predicting = ["predict", *given, *options, tmp_path / "tags.tsv"]
    for words in (predicting, ["segments", *given, "--tags", tmp_path / "tags.tsv", *best]):
        assert run([str(word) for word in words]) == 0, capsys.readouterr().err
    table = pd.read_csv(tmp_path / "tags.tsv", sep="\t", encoding="utf-8-sig", keep_default_na=False)
    tags = table[table["label"] != ""]
    raven = pd.read_csv(tmp_path / "raven" / "=day.Table.1.selections.txt", sep="\t")
    assert raven["Annotation"].tolist() == tags["label"].tolist()
    np.testing.assert_allclose(raven["End Time (s)"], tags["end"].astype(float), atol=1e-3)
    assert set(raven["High Freq (Hz)"]) == {max(tagger.rates) / 2}
    assert len((tmp_path / "tracks" / "=day.wav.txt").read_text().splitlines()) == len(tags)
    rows = read(tmp_path / "best" / "segments.csv")
    assert set(table["fname"]) == {"'=day.wav"}
    assert set(rows["group"]) == {"=day.wav"}
    for label, scores in tags["score"].astype(float).groupby(tags["label"]):
        expected = scores.sort_values(ascending=False)[:4]
        np.testing.assert_allclose(rows[rows["label"] == label]["score"], expected, atol=1e-6)
    for row in rows.itertuples():
        first, last = round(row.recording_start * rate), round(row.recording_end * rate)
        expected, _ = sf.read(recording, start=first, stop=last, dtype="int16")
        np.testing.assert_array_equal(sf.read(tmp_path / "best" / row.fname, dtype="int16")[0], expected)


def test_a_long_table_of_clips(tagger, clips, table, tmp_path, signals):
    """Its rows are the cells of the other form."""
    command = ["predict", "--input", str(clips), "--long", "true", "--output", str(tmp_path / "t.parquet")]
    assert run(command) == 0
    frame = pd.read_parquet(tmp_path / "t.parquet")
    assert list(frame) == ["fname", "label", "score", "rank", "error", "note"]
    for _, row in table.iterrows():
        rows, (labels, scores) = frame[frame["fname"] == row["fname"]], tags_of(row)
        assert rows["label"].tolist() == (labels or [""])
        assert rows["rank"].tolist() == [1, 2, 3][: len(labels)] or rows["rank"].isna().all()
        assert rows["error"].tolist() == [row["error"]] * max(1, len(labels))
        np.testing.assert_allclose(rows["score"].dropna(), scores, atol=1e-6)


def test_a_recording_is_tagged_up_to_where_it_is_unreadable(tagger, tmp_path, monkeypatch):
    samples = np.concatenate([tone(300, 60, RATE), np.full(10, np.nan, np.float32), tone(300, 30, RATE)])
    write_wav(tmp_path / "broken.wav", samples, RATE, "FLOAT")
    write_wav(tmp_path / "whole.wav", tone(300, 2, RATE), RATE)
    monkeypatch.setattr("fsat.data.audio.BLOCK", 1 << 17)
    result = predict(str(tmp_path), tmp_path / "t.csv", "champion", TagSettings(window=1))
    assert (result.n_files, result.n_failed, result.partial.number) == (2, 0, 1)
    table = read(tmp_path / "t.csv")
    broken = table[table["fname"] == "broken.wav"]
    assert broken["error"].tolist() == [*[""] * (len(broken) - 1), "NaN or infinite samples"]
    assert float(broken["end"].iloc[-2]) == 60
    assert float(table[table["fname"] == "whole.wav"]["end"].iloc[0]) == 2


# --- files and drives as they are ------------------------------------------------------------------


@pytest.fixture
def odd_files(tmp_path) -> Path:
    """A folder with what recorders and phones leave; each sound is a tone of 4 s."""
    folder, sound = tmp_path / "odd", tone(700, 4.0, RATE)
    write_wav(folder / "silent.wav", np.zeros(4 * RATE), RATE)
    write_wav(folder / "inverted.wav", np.stack([sound, -sound], axis=1), RATE, "FLOAT")
    write_wav(folder / "half silent.wav", np.concatenate([sound, 0 * sound]), RATE)
    wav = write_wav(folder / "unclosed.wav", sound, RATE).read_bytes()
    (folder / "unclosed.wav").write_bytes(wav[:40] + bytes(4) + wav[44:])
    ogg = by_libsndfile("OGG", "VORBIS", samples=tone(700, 30.0, 44100)[:, np.newaxis], rate=44100)
    (folder / "cut.ogg").write_bytes(ogg[: len(ogg) // 2])
    (folder / "phone.m4a").write_bytes(make("m4a"))
    (folder / "._phone.m4a").write_bytes(bytes(200))
    (folder / "notes.txt").write_text("no sound")
    (folder / "._list.csv").write_bytes(bytes(200))
    return folder


def test_odd_files_are_tagged_as_far_as_they_can_be(tagger, odd_files, tmp_path, capfd):
    result = predict(str(odd_files), tmp_path / "t.csv", "champion")
    rows = {row.fname: row for row in read(tmp_path / "t.csv").itertuples()}
    assert (result.n_files, result.n_failed, len(rows)) == (6, 0, 6)
    assert {name for name, row in rows.items() if row.label} == set(rows) - {"silent.wav"}
    assert (rows["silent.wav"].error, rows["silent.wav"].note) == ("", "silent")
    assert rows["inverted.wav"].note.startswith("channels cancel")
    assert rows["unclosed.wav"].note == "header wrong: it says 0.00 s, the file has 4.00 s"
    assert rows["cut.ogg"].error.startswith("cut off after 1")
    assert rows["phone.m4a"].error == rows["phone.m4a"].note == ""
    printed = capfd.readouterr().err
    assert "predict: left out: 1 file without sound: 1 .txt\n" in printed
    assert "predict: left out: 2 files ._* in which macOS keeps its own notes\n" in printed
    assert "note: silent: 1 file: silent.wav\n" in printed
    assert "warning: only a part could be tagged of 1 file: cut.ogg: cut off after" in printed
    score = tagger.scores([write_wav(tmp_path / "mono.wav", tone(700, 4.0, RATE), RATE, "FLOAT")])[0][0]
    assert rows["inverted.wav"].label == CLASSES[score.argmax()]


def test_odd_recordings_are_tagged_over_time(tagger, odd_files, tmp_path):
    predict(str(odd_files), tmp_path / "t.csv", "champion", TagSettings(window=1), label_tracks=tmp_path / "tracks")
    table = read(tmp_path / "t.csv")
    by_name = {name: list(rows.itertuples()) for name, rows in table.groupby("fname")}
    assert [(row.label, row.note, row.end) for row in by_name["silent.wav"][:1]] == [("", "silent", "4.000")]
    last = by_name["half silent.wav"][-1]
    assert (last.start, last.end, last.label, last.score, last.note) == ("4.000", "8.000", "", "", "silent")
    cut = by_name["cut.ogg"]
    assert cut[-1].error.startswith(f"cut off after {float(cut[-2].end):.2f} s")
    assert by_name["inverted.wav"][-1].note.startswith("channels cancel")
    assert (tmp_path / "tracks" / "silent.wav.txt").read_text() == ""


@pytest.mark.parametrize("moved", ["root", "subfolder"])
def test_a_drive_that_goes_away_stops_the_tagging(tagger, tmp_path, monkeypatch, moved):
    """No file is booked as missing, and the same command goes on when the drive is back."""
    root = tmp_path / "disk" / "clips"
    for i in range(2 * GROUP_SIZE + 3):
        write_wav(root / "day" / f"{i:03d}.wav", tone(300 + 10 * i, 0.1, RATE), RATE)
    gone = root if moved == "root" else root / "day"
    record = ledger.Ledger.record

    def record_and_unplug(self, results):
        record(self, results)
        with suppress(FileNotFoundError):
            gone.rename(tmp_path / "away")

    with monkeypatch.context() as patch:
        patch.setattr(ledger.Ledger, "record", record_and_unplug)
        line = error_line(FsatError, predict, str(root), tmp_path / "t.csv", "champion", workers="1")
    assert line.startswith(f"{root / 'day'}: the folder went away while its files were tagged; connect it again")
    assert not (tmp_path / "t.csv").exists()
    (tmp_path / "away").rename(gone)
    assert predict(str(root), tmp_path / "t.csv", "champion").n_failed == 0
    assert (read(tmp_path / "t.csv")["error"] == "").all()


def test_a_file_that_was_deleted_is_missing(tagger, tmp_path, monkeypatch):
    folder = tmp_path / "clips"
    for i in range(3):
        write_wav(folder / f"{i}.wav", tone(300, 0.1, RATE), RATE)
    add = ledger.Ledger.add

    def add_and_delete(self, names, ordered):
        n_repeats = add(self, names, ordered)
        (folder / "1.wav").unlink()
        return n_repeats

    monkeypatch.setattr(ledger.Ledger, "add", add_and_delete)
    assert predict(str(folder), tmp_path / "t.csv", "champion").failure == ("1.wav", "missing file")
