"""Tagging collections of files: what goes in, what comes out, and what is left when it is killed."""

from __future__ import annotations

import io
import os
import signal
import sqlite3
import time
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from fsat_process import FsatProcess
from helpers import CLASSES, one_line, tone, write_csv, write_wav
from taggers import TINY, register_tagger, write_tagger

from fsat.cli import cli
from fsat.commands.predict import predict, uri_of
from fsat.errors import ConfigError, DataError, FsatError, RunError
from fsat.options import CLIPS, TagSettings
from fsat.parallel.processes import Processes
from fsat.tagging import Tagger, ledger
from fsat.tracking.registry import open_tagger

RATE = 8000
BAD = {"empty.wav": "empty file", "text.flac": "unreadable audio", "gone.wav": "missing file"}
OTHER = {**TINY, "model": "conv2d_mfcc", "audio_duration": 1.0, "sampling_rate": 16000}


@pytest.fixture(scope="module")
def tagger(store) -> Tagger:
    """The champion: two studies of two folds, at two rates."""
    register_tagger(write_tagger(store / "tagger", [TINY, OTHER]))
    return open_tagger("models:/fsat@champion")


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """150 tones in folders, of many lengths, and files that cannot be tagged."""
    folder = tmp_path_factory.mktemp("clips")
    for i in range(150):
        path = folder / ("deep/er" if i % 7 == 0 else "") / f"{i:03d}.wav"
        write_wav(path, tone(200 + 20 * i, 0.05 + 0.01 * i, RATE, 0.2 + 0.005 * i), RATE)
    (folder / "empty.wav").write_bytes(b"")
    (folder / "text.flac").write_text("no sound")
    (folder / "gone.wav").symlink_to(folder / "nowhere.wav")
    (folder / "notes.md").write_text("not looked at")
    return folder


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, keep_default_na=False)


def names_below(folder: Path) -> list[str]:
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    return sorted(name for name in found if name.endswith((".wav", ".flac")))


def test_every_file_has_its_row_and_what_the_tagger_says(tagger, clips, tmp_path):
    result = predict(str(clips), tmp_path / "tags.csv", "champion")
    assert (result.n_files, result.n_failed) == (153, 3)
    table = read(tmp_path / "tags.csv")
    assert list(table) == ["fname", "label", "scores", "error"]
    assert table["fname"].tolist() == names_below(clips)
    scores, errors = tagger.scores([clips / name for name in table["fname"]])
    for row, expected, error in zip(table.itertuples(), scores, errors, strict=True):
        assert row.error == error
        if error:
            assert error.startswith(BAD[row.fname])
            assert (row.label, row.scores) == ("", "")
            continue
        best = np.argsort(-expected, kind="stable")
        assert row.label.split() == [CLASSES[j] for j in best]
        np.testing.assert_allclose([float(x) for x in row.scores.split()], expected[best], atol=2e-6)
    assert table["label"].nunique() > 3  # the tagger tells the tones apart
    assert [path.name for path in tmp_path.iterdir()] == ["tags.csv"]


def test_the_run_keeps_the_table_and_counts(tagger, clips, tmp_path):
    predict(str(clips), tmp_path / "tags.csv", "fsat@champion", TagSettings(top_k=1, min_score=0.5))
    run = mlflow.search_runs(filter_string="tags.`fsat.stage` = 'predict'", output_format="list")[0]
    assert run.info.status == "FINISHED"
    assert (run.data.metrics["n_tagged"], run.data.metrics["n_failed"]) == (150, 3)
    assert (run.data.params["top_k"], run.data.params["min_score"]) == ("1", "0.5")
    kept = mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="tags.csv")
    assert Path(kept).read_text() == (tmp_path / "tags.csv").read_text()
    table = read(tmp_path / "tags.csv")
    scores = [float(text) for text in table["scores"] if text]
    assert min(scores) >= 0.5
    assert 0 < len(scores) < 150  # the others have no tag, and no error either
    assert (table["error"] != "").sum() == 3


def test_json_lines_and_parquet_hold_the_same(tagger, clips, tmp_path):
    for suffix in ("csv", "jsonl", "parquet"):
        predict(str(clips), tmp_path / f"tags.{suffix}", "1", TagSettings(top_k=2))
    lines = pd.read_json(tmp_path / "tags.jsonl", lines=True, dtype={"fname": str})
    parquet = pd.read_parquet(tmp_path / "tags.parquet")
    table = read(tmp_path / "tags.csv")
    for other in (lines, parquet):
        assert list(other) == ["fname", "labels", "scores", "error"]
        assert other["fname"].tolist() == table["fname"].tolist()
        assert other["error"].tolist() == table["error"].tolist()
        assert [" ".join(labels) for labels in other["labels"]] == table["label"].tolist()
        assert [" ".join(f"{x:.6f}" for x in row) for row in other["scores"]] == table["scores"].tolist()


def test_globs_tables_and_lists_name_the_same_files(tagger, clips, tmp_path, monkeypatch):
    predict(str(clips), tmp_path / "folder.csv", "champion")
    expected = read(tmp_path / "folder.csv").set_index("fname")
    names = list(reversed(names_below(clips)))
    write_csv(clips / "list.csv", ["label", "fname"], [("?", name) for name in names])
    (clips / "list.txt").write_text("\n".join(names) + "\n")
    monkeypatch.chdir(clips)
    given = {
        "table": (str(clips / "list.csv"), b""), "lines": (str(clips / "list.txt"), b""), "glob": ("**/*.[wf]*", b""),
        "stdin": ("-", "\r\n".join(names).encode()), "nul": ("-", b"\0".join(name.encode() for name in names) + b"\0"),
        "stdin table": ("-", ("\ufefffname,x\n" + "".join(f'"{name}",1\n' for name in names)).encode()),
    }  # fmt: skip
    for what, (text, stdin) in given.items():
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        predict(text, tmp_path / f"{what}.csv", "champion")
        table = read(tmp_path / f"{what}.csv")
        assert table["fname"].tolist() == (sorted(names) if what == "glob" else names), what
        assert table["label"].tolist() == expected["label"][table["fname"]].tolist(), what
        assert table["error"].tolist() == expected["error"][table["fname"]].tolist(), what


def test_one_file_and_a_name_that_is_given_twice(tagger, clips, tmp_path, capsys):
    assert predict(str(clips / "001.wav"), tmp_path / "one.csv", "champion").n_files == 1
    assert read(tmp_path / "one.csv")["fname"].tolist() == ["001.wav"]
    (clips / "twice.txt").write_text("001.wav\n002.wav\n001.wav\n")
    assert predict(str(clips / "twice.txt"), tmp_path / "two.csv", "champion").n_files == 2
    assert read(tmp_path / "two.csv")["fname"].tolist() == ["001.wav", "002.wav"]
    assert "warning: 1 name" in capsys.readouterr().err


@pytest.mark.process
def test_processes_side_by_side_find_the_same_bits(tagger, clips, tmp_path):
    predict(str(clips), tmp_path / "alone.parquet", "champion", workers="1")
    predict(str(clips), tmp_path / "two.parquet", "champion", workers="2")
    pd.testing.assert_frame_equal(
        pd.read_parquet(tmp_path / "two.parquet"), pd.read_parquet(tmp_path / "alone.parquet"), check_exact=True
    )


def die(item: int) -> int:
    if item == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


@pytest.mark.process
def test_a_process_that_dies_is_said_and_ends_the_others():
    with pytest.raises(RunError, match=r"item 3: its process was killed by SIGKILL; use workers=1"):
        list(Processes(2, "use workers=1").map(die, iter(range(1000))))


def test_members_can_be_chosen(tagger, clips, tmp_path):
    """Numbers take the studies by turns; names say which."""
    path = clips / "100.wav"
    (all_members,), _ = tagger.scores([path])
    (one,), _ = tagger.only("1").scores([path])
    (named,), _ = tagger.only("study0/0").scores([path])
    (two,), _ = tagger.only("2").scores([path])
    (both,), _ = tagger.only("study1/0, study0/0").scores([path])
    np.testing.assert_array_equal(one, named)
    np.testing.assert_array_equal(two, both)
    assert len({row.tobytes() for row in (all_members, one, two)}) == 3
    assert [member.name for member in tagger.members] == ["study0/0", "study0/1", "study1/0", "study1/1"]
    predict(str(path), tmp_path / "one.csv", "champion", TagSettings(members="1", top_k=1))
    assert float(read(tmp_path / "one.csv")["scores"][0]) == pytest.approx(one.max(), abs=1e-6)
    for wrong in ("0", "5", "study0/7", ""):
        with pytest.raises(ConfigError, match=r"members=.*study0/0, study0/1, study1/0, study1/1"):
            tagger.only(wrong)


def test_weights_of_the_studies_that_are_left_sum_to_one(tmp_path):
    how = {"blend": "weighted", "study_weights": {"study0": 0.25, "study1": 0.75}}
    tagger = Tagger(write_tagger(tmp_path / "weighted", [TINY, OTHER], n_folds=1, **how))
    path = write_wav(tmp_path / "clip.wav", tone(500, 0.4, RATE), RATE)
    (row,), _ = tagger.only("study1/0").scores([path])
    alone = replace(tagger.members[1].config)
    assert row.sum() == pytest.approx(1)
    plain = Tagger(write_tagger(tmp_path / "plain", [TINY, alone.to_dict()], n_folds=1)).only("study1/0")
    np.testing.assert_array_equal(row, plain.scores([path])[0][0])


@pytest.mark.parametrize(
    ("given", "uri"),
    [
        ("champion", "models:/fsat@champion"), ("birds@best", "models:/birds@best"), ("3", "models:/fsat/3"),
        ("models:/birds/2", "models:/birds/2"), ("runs:/abc/tagger", "runs:/abc/tagger"), ("./m", "./m"),
    ],
)  # fmt: skip
def test_models_by_uri_or_alias(given, uri):
    assert uri_of(given) == uri


def test_a_clip_that_is_too_long_is_told_about_windows(tagger, tmp_path):
    write_wav(tmp_path / "long.wav", tone(300, 3, RATE), RATE)
    result = predict(str(tmp_path / "long.wav"), tmp_path / "t.csv", "champion", TagSettings(max_seconds=2))
    assert result.failure == ("long.wav", "longer than max_seconds=2: 3 s; window=SECONDS gives tags over time")


def command(clips: Path, output: Path, **options: object) -> list[str]:
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return ["predict", "--input", str(clips), "--output", str(output), *words]


def start(store: Path, *arguments: object, **options: object) -> FsatProcess:
    environment = {"MLFLOW_TRACKING_URI": f"sqlite:///{store}/mlflow.db"}
    return FsatProcess(command(*arguments, **options), cwd=store, env=environment)


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    """3,000 short files, so that a tagging takes a while."""
    folder = tmp_path_factory.mktemp("many")
    kinds = [write_wav(folder / f"k{i:02d}.wav", tone(200 + 90 * i, 0.25, RATE), RATE) for i in range(40)]
    for i in range(2960):
        os.link(kinds[i % 40], folder / f"{i:04d}.wav")
    return folder


def wait_until_some_are_done(process: FsatProcess, files: Path, output: Path) -> None:
    """Until the ledger is larger than one of which nothing is done."""
    listed = output.with_name("listed.csv")
    with pytest.raises(ZeroDivisionError), ledger.opened(listed, {}) as empty:
        empty.add((path.name for path in files.iterdir()), ordered=False)
        raise ZeroDivisionError
    size = Path(f"{listed}{ledger.SUFFIX}").stat().st_size + 20_000
    path, deadline = Path(f"{output}{ledger.SUFFIX}"), time.monotonic() + 120
    while not path.exists() or path.stat().st_size < size:
        assert process.returncode is None, process.stderr
        assert time.monotonic() < deadline, "nothing was tagged"
        time.sleep(0.005)


def n_done(output: Path) -> int:
    with sqlite3.connect(output.with_name(output.name + ledger.SUFFIX)) as db:
        return db.execute("SELECT COUNT(*) FROM files WHERE result IS NOT NULL").fetchone()[0]


@pytest.mark.process
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_killed_it_goes_on_where_it_was(tagger, many, store, tmp_path, how, capsys):
    """No file twice, none missing, and not a bit otherwise than undisturbed."""
    output = tmp_path / "tags.parquet"
    process = start(store, many, output)
    wait_until_some_are_done(process, many, output)
    process.send_signal(how)
    _, said = process.communicate(timeout=60)
    assert process.returncode == (-how if how == signal.SIGKILL else 128 + how)
    done = n_done(output)
    assert 0 < done < 3000
    if how == signal.SIGTERM:
        assert f"{done} of 3000 files are tagged and kept; the same command resumes from there" in said
        assert said.strip().splitlines()[-1] == "fsat: error: stopped by SIGTERM"
    else:
        os.link(many / "0000.wav", many / "new.wav")  # what has come meanwhile is tagged too
        predict(str(many), tmp_path / "whole.parquet", "champion")
        for text, other in (("top_k=0, not top_k=1", TagSettings(top_k=1)), ("window", TagSettings(window=0.5))):
            with pytest.raises(DataError, match=text) as caught:
                predict(str(many), output, "champion", other)
            assert "resume=false" in one_line(caught.value)
    tagged_now = []
    record = ledger.Ledger.record

    def count(self: ledger.Ledger, found: list) -> None:
        tagged_now.extend(number for number, _ in found)
        record(self, found)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger.Ledger, "record", count)
        predict(str(many), output, "champion")
    assert f"{done} of" in capsys.readouterr().err
    assert len(tagged_now) == len(set(tagged_now)) == len(list(many.iterdir())) - done
    ended = mlflow.search_runs(filter_string="tags.`fsat.stage` = 'predict'", output_format="list")
    assert [run.info.status for run in ended[:2]] == ["FINISHED", "KILLED"] or how == signal.SIGKILL
    assert "RUNNING" not in {run.info.status for run in ended}  # the killed one, too
    table = pd.read_parquet(output)
    assert not output.with_name(output.name + ledger.SUFFIX).exists()
    if how == signal.SIGKILL:
        whole = pd.read_parquet(tmp_path / "whole.parquet")
        assert table["fname"].iloc[-1] == "new.wav"
        pd.testing.assert_frame_equal(table, whole, check_exact=True)
        (many / "new.wav").unlink()


def test_resume_false_begins_anew(tagger, clips, tmp_path):
    output = tmp_path / "tags.csv"
    facts = {"input": "another"}
    with pytest.raises(ZeroDivisionError), ledger.opened(output, facts) as begun:
        begun.add(["a.wav"], ordered=True)
        raise ZeroDivisionError
    with pytest.raises(DataError, match="holds results for input=another"):
        predict(str(clips), output, "champion")
    predict(str(clips), output, "champion", resume=False)
    assert len(read(output)) == 153


def test_an_alias_that_has_moved_is_no_reason_to_mix_two_models(tagger, clips, tmp_path):
    output = tmp_path / "tags.csv"
    facts = {"input": str(clips), "folder": str(clips), "model": "models:/fsat/7"}
    with pytest.raises(ZeroDivisionError), ledger.opened(output, facts) as begun:
        begun.add(["a.wav"], ordered=True)
        raise ZeroDivisionError
    with pytest.raises(DataError, match=r"model=models:/fsat/7, not model=models:/fsat/1"):
        predict(str(clips), output, "champion")


def test_two_at_once_on_one_output(tagger, clips, tmp_path):
    output = tmp_path / "tags.csv"
    with ledger.opened(output, {}) as _, pytest.raises(DataError, match="another process writes to it"):
        predict(str(clips), output, "champion")


@pytest.mark.parametrize("resume", [True, False])
def test_a_ledger_that_is_none(tagger, clips, tmp_path, resume):
    (tmp_path / "tags.csv.unfinished").write_bytes(b"no database " * 1000)
    if resume:
        with pytest.raises(FsatError, match=r"not a database.*resume=false"):
            predict(str(clips), tmp_path / "tags.csv", "champion")
    else:
        assert predict(str(clips), tmp_path / "tags.csv", "champion", resume=False).n_files == 153


@pytest.mark.parametrize(
    ("text", "output", "model", "message"),
    [
        ("nowhere", "t.csv", "champion", "input=nowhere: no such file or folder"),
        ("*.nothing", "t.csv", "champion", "no files to tag in it; expected a file, a folder"),
        (".", "t.xml", "champion", "expected a name that ends in .csv, .jsonl, .parquet"),
        (".", "t.csv", "challenger", "model=models:/fsat@challenger: cannot be loaded"),
        ("bad.csv", "t.csv", "champion", "bad.csv: got columns 'name'; expected"),
        ("torn.csv", "t.csv", "champion", "torn.csv: line 3: 1 cell in a table of 2 columns"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_leaves_nothing(
    tagger, tmp_path, monkeypatch, text, output, model, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.csv").write_text("name\na.wav\n")
    (tmp_path / "torn.csv").write_text("fname,label\na.wav,x\nb.wav\n")
    write_wav(tmp_path / "a.wav", tone(300, 0.2, RATE), RATE)
    with pytest.raises(FsatError, match=message) as caught:
        predict(text, Path(output), model)
    one_line(caught.value)
    assert not list(tmp_path.glob("t.*"))


def test_a_datasets_table_names_the_clips_in_its_folder(tagger, tmp_path):
    write_wav(tmp_path / "audio_train" / "a.wav", tone(300, 0.2, RATE), RATE)
    write_csv(tmp_path / "train.csv", ["fname", "label"], [("a.wav", "Bell")])
    result = predict(str(tmp_path / "train.csv"), tmp_path / "t.csv", "champion")
    assert (result.n_files, result.n_failed) == (1, 0)


def test_where_nothing_could_be_tagged_the_command_fails_with_its_table_written(tagger, tmp_path, monkeypatch, signals):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "none.txt").write_text("x.wav\ny.wav\n")
    result = CliRunner().invoke(cli, ["predict", "--input", "none.txt"])
    assert "none of 2 files could be tagged, first x.wav: missing file; tags.csv has" in one_line(result.exception)
    assert read(tmp_path / "tags.csv")["error"].tolist() == ["missing file"] * 2


def test_settings_that_cannot_be():
    assert (CLIPS.tags, TagSettings(window=2).tags, TagSettings(window=2, top_k=4).tags) == (3, 1, 4)
    for wrong, message in [
        ({"hop": 1}, "hop=1: expected window=SECONDS too"), ({"window": 1, "hop": 2}, "at most window=1"),
        ({"window": 1e-5}, "at least 0.01"), ({"window": float("nan")}, "window=nan"), ({"min_score": 2}, "at most 1"),
        ({"max_seconds": float("inf")}, "max_seconds=inf"),
    ]:  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            TagSettings(**wrong)


# --- tags over time --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recording(tagger, tmp_path_factory) -> tuple[Path, list[tuple[float, float, str]]]:
    """Tones one after the other, and what the tagger says of each by itself, equal neighbours merged."""
    folder = tmp_path_factory.mktemp("recording")
    pieces = [tone(frequency, 1, RATE) for frequency in (300, 300, 900, 2500, 2500, 2500, 700, 3500)]
    write_wav(folder / "day one.wav", np.concatenate(pieces), RATE)
    truth: list[tuple[float, float, str]] = []
    for i, piece in enumerate(pieces):
        (row,), _ = tagger.scores([write_wav(folder.parent / "piece.wav", piece, RATE)])
        label = CLASSES[row.argmax()]
        if truth and truth[-1][2] == label:
            truth[-1] = (truth[-1][0], i + 1, label)
        else:
            truth.append((i, i + 1, label))
    assert len(truth) > 2
    return folder / "day one.wav", truth


def test_tags_over_time_and_label_tracks(tagger, recording, tmp_path):
    path, truth = recording
    predict(str(path.parent), tmp_path / "t.csv", "champion", TagSettings(window=1), label_tracks=tmp_path / "tracks")
    table = read(tmp_path / "t.csv")
    assert list(table) == ["fname", "start", "end", "label", "score", "error"]
    assert [(row.start, row.end, row.label) for row in table.itertuples()] == truth
    lines = (tmp_path / "tracks" / "day one.wav.txt").read_text().splitlines()
    assert [(float(start), float(end), label) for start, end, label in (line.split("\t") for line in lines)] == truth
    for suffix in ("jsonl", "parquet"):
        predict(str(path), tmp_path / f"t.{suffix}", "champion", TagSettings(window=1))
    other = pd.read_parquet(tmp_path / "t.parquet")
    lines = pd.read_json(tmp_path / "t.jsonl", lines=True)
    for frame in (other, lines):
        assert [(row.start, row.end, row.label) for row in frame.itertuples()] == truth
        np.testing.assert_allclose(frame["score"], table["score"].astype(float), atol=1e-6)


def test_what_was_found_before_a_recording_breaks_is_kept(tagger, tmp_path):
    samples = np.concatenate([tone(300, 60, RATE), np.full(10, np.nan, np.float32), tone(300, 30, RATE)])
    write_wav(tmp_path / "broken.wav", samples, RATE, "FLOAT")
    write_wav(tmp_path / "whole.wav", tone(300, 2, RATE), RATE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fsat.data.audio.BLOCK", 1 << 17)
        result = predict(str(tmp_path), tmp_path / "t.csv", "champion", TagSettings(window=1))
    assert (result.n_files, result.n_failed) == (2, 1)
    table = read(tmp_path / "t.csv")
    broken = table[table["fname"] == "broken.wav"]
    assert broken["error"].tolist() == [*[""] * (len(broken) - 1), "NaN or infinite samples"]
    assert 40 < float(broken["end"].iloc[-2]) <= 60
    assert float(table[table["fname"] == "whole.wav"]["end"].iloc[0]) == 2
