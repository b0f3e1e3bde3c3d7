"""`embed`, `similar` and the near-duplicates of `eda` with a tiny network, on real files."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from helpers import append_line, make_dataset, read_csv, tone, write_wav
from html_page import Page
from stores import current_store
from tiny_backbones import N_SAMPLES, RATE, WINDOW, reference_embedding, tiny_backbone

from fsat.backbones.runtime import Runtime
from fsat.cli import cli
from fsat.data.audio import decode
from fsat.errors import FsatError, WindowError

pytestmark = pytest.mark.slow
PEAK = 0.25


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory):
    """A folder with sounds of three pitches in two folders, one at another rate, and a file that is no sound."""
    root = tmp_path_factory.mktemp("embed")
    for i, frequency in enumerate((300, 1000, 3000)):
        for j, seconds in enumerate((0.2, 0.4, 1.1)):
            rate = 16000 if (i, j) == (1, 2) else RATE
            write_wav(root / "sounds" / f"pitch{i}" / f"{j}.wav", tone(frequency * (1 + j / 50), seconds, rate), rate)
    (root / "sounds" / "broken.wav").write_bytes(b"RIFF, but no sound")
    tiny_backbone(root / "tiny", "onnx")
    (root / "store").mkdir()
    with current_store(root / "store"):
        yield root


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, list(map(str, arguments)))


def fsat(*arguments: object) -> Result:
    result = CliRunner().invoke(cli, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def error_of(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code != 0
    assert isinstance(result.exception, FsatError | SystemExit), result.exception
    return " ".join((str(result.exception) if isinstance(result.exception, FsatError) else result.output).split())


def newest_run(stage: str):
    return mlflow.search_runs(filter_string=f"tags.`fsat.stage` = '{stage}'", output_format="list")[0]


def test_a_table_has_the_embedding_of_each_window(root: Path) -> None:
    path = root / "out" / "windows.parquet"
    result = fsat("embed", root / "sounds", path, "--backbone", root / "tiny")
    assert result.stdout.strip() == str(path)
    assert "warning: broken.wav: not embedded: " in result.stderr
    assert "9 of 10 files embedded by onnx@" in result.stderr
    table = pd.read_parquet(path)
    assert list(dict.fromkeys(table["fname"])) == [f"pitch{i}/{j}.wav" for i in range(3) for j in range(3)]
    for fname, rows in table.groupby("fname"):
        clip = decode(root / "sounds" / fname, RATE)
        seconds = len(clip) / RATE
        assert rows["start"].min() == 0
        assert rows["end"].max() == pytest.approx(seconds, abs=1e-3)
        assert rows["start"].diff().max() <= WINDOW / 2 + 1e-9 or len(rows) == 1
        for row in rows.itertuples():
            window = clip[round(row.start * RATE) : round(row.end * RATE)]
            missing = N_SAMPLES - len(window)
            padded = np.pad(window, (missing // 2, missing - missing // 2))
            np.testing.assert_allclose(row.embedding, reference_embedding(padded, PEAK), rtol=0.02, atol=1e-4)
    metadata = pq.read_schema(path).metadata
    descriptor = json.loads((root / "tiny" / "backbone.json").read_text())
    assert metadata[b"fsat.sha256"].decode() == descriptor["sha256"]
    assert metadata[b"fsat.license"] == b"CC0"
    assert metadata[b"fsat.backbone"].startswith(b"onnx@")
    assert (metadata[b"fsat.sampling_rate"], metadata[b"fsat.window"]) == (b"8000", b"0.4")
    run = newest_run("embed")
    assert run.info.status == "FINISHED"
    assert (run.data.metrics["n_embedded"], run.data.metrics["n_failed"]) == (9, 1)
    assert run.data.metrics["n_rows"] == len(table)
    failed = read_csv(Path(mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="failed.csv")))
    assert [row["fname"] for row in failed] == ["broken.wav"]


def test_a_row_for_each_clip_by_the_digest_of_the_backbone(root: Path) -> None:
    windows, clips = root / "again.parquet", root / "clips.parquet"
    fsat("embed", root / "sounds", windows, "--backbone", root / "tiny", "--window_hop", 0.1)
    ref = pq.read_schema(windows).metadata[b"fsat.backbone"].decode()
    names = root / "sounds" / "list.txt"
    names.write_text("pitch1/2.wav\npitch0/2.wav\npitch1/2.wav\n")
    result = fsat("embed", names, clips, "--backbone", ref, "--window_hop", 0.1, "--per", "clip")
    names.unlink()
    assert "1 repeated name in the input" in result.stderr
    table, rows = pd.read_parquet(clips), pd.read_parquet(windows).groupby("fname")
    assert table["fname"].tolist() == ["pitch1/2.wav", "pitch0/2.wav"]
    for row in table.itertuples():
        of_clip = rows.get_group(row.fname)
        assert len(of_clip) > 5
        np.testing.assert_allclose(row.embedding, np.mean(np.stack(of_clip["embedding"]), axis=0), rtol=1e-5)
        assert (row.start, row.end) == (0, pytest.approx(1.1))


def test_a_folder_whose_name_is_not_text(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"sounds\xff")
    folder.symlink_to(root / "sounds")
    fsat("embed", folder, tmp_path / "clips.parquet", "--backbone", root / "tiny", "--per", "clip")
    assert newest_run("embed").data.params["input"] == f"{tmp_path}/sounds\\xff"


def test_a_network_of_any_length_takes_the_windows_that_are_given(root: Path) -> None:
    tiny_backbone(root / "free", "onnx_rank1_free")
    path, options = root / "free.parquet", ["--backbone", root / "free" / "backbone.json", "--audio_duration", 0.3]
    fsat("embed", root / "sounds" / "pitch0" / "2.wav", path, *options, "--window_hop", 0.3)
    table = pd.read_parquet(path)
    assert table["fname"].unique().tolist() == ["2.wav"]
    assert table["start"].round(3).tolist() == [0, 0.267, 0.533, 0.8]
    assert (table["end"] - table["start"]).round(4).tolist() == [0.3] * 4
    fsat("embed", root / "sounds" / "pitch0" / "2.wav", path, "--backbone", root / "free")
    assert pd.read_parquet(path)["end"].tolist() == [pytest.approx(1.1)]  # a window of 2 s


def test_recordings_longer_than_a_clip_are_embedded_as_they_are_read(root: Path, monkeypatch) -> None:
    monkeypatch.setattr("fsat.data.audio.LONGEST", 1.0)
    path = root / "recordings.parquet"
    shutil.copytree(root / "sounds" / "pitch0", root / "long")  # elsewhere, so that none has been checked before
    result = fsat("embed", root / "long", path, "--backbone", root / "tiny")
    assert "note: licence of onnx: CC0" in result.stderr
    assert "3 of 3 files embedded" in result.stderr
    rows = pd.read_parquet(path).query("fname == '2.wav'")
    assert rows["start"].round(6).tolist() == [0, 0.2, 0.4, 0.6, 0.7]
    assert rows["end"].round(6).tolist() == [0.4, 0.6, 0.8, 1.0, 1.1]
    clip = decode(root / "sounds" / "pitch0" / "2.wav", RATE)
    for row in rows.itertuples():
        window = clip[round(row.start * RATE) :][:N_SAMPLES]
        np.testing.assert_allclose(row.embedding, reference_embedding(window, PEAK), rtol=0.01, atol=1e-4)
    noise = np.random.default_rng(0).normal(0, 0.1, 3 * RATE).astype(np.float32)
    noise[2 * RATE :] = np.nan
    (root / "damaged").mkdir()
    write_wav(root / "damaged" / "day.wav", noise, RATE, "FLOAT")
    (root / "damaged" / "undecodable\udcff.wav").write_bytes(b"no sound")
    result = fsat("embed", root / "damaged", path, "--backbone", root / "tiny", "--per", "clip")
    assert r"warning: undecodable\udcff.wav: not embedded: " in result.stderr
    assert "warning: day.wav: only a part is embedded: NaN or infinite samples" in result.stderr
    (row,) = pd.read_parquet(path).itertuples()
    assert (row.start, row.end) == (0, pytest.approx(2.0))


def test_a_recording_without_an_embedding_is_named_and_the_others_are_embedded(root: Path, monkeypatch) -> None:
    """The second recording is loud in its last second, which the backbone does not like."""
    monkeypatch.setattr("fsat.data.audio.LONGEST", 1.0)
    monkeypatch.setattr("fsat.commands.embed.WINDOW_BATCH", 2)
    answer = Runtime._answer

    def fail(self: Runtime, windows: np.ndarray) -> np.ndarray:
        if np.abs(windows).max() > 0.9:
            raise WindowError("net: NaN")
        return answer(self, windows)

    for i, loud in enumerate((0.1, 0.95)):
        noise = np.random.default_rng(i).uniform(-0.1, 0.1, 3 * RATE).astype(np.float32)
        noise[-RATE // 2] = loud
        write_wav(root / "days" / f"{i}.wav", noise, RATE, "FLOAT")
    monkeypatch.setattr(Runtime, "_answer", fail)
    result = fsat("embed", root / "days", root / "days.parquet", "--backbone", root / "tiny")
    assert "warning: 1.wav: only a part is embedded: net: NaN" in result.stderr
    table = pd.read_parquet(root / "days.parquet")
    assert table[table["fname"] == "0.wav"]["end"].max() == pytest.approx(3.0)
    assert 0 < table[table["fname"] == "1.wav"]["end"].max() < 2.6


def test_the_nearest_clips_of_a_folder_and_of_a_table(root: Path) -> None:
    clip, output = root / "sounds" / "pitch1" / "1.wav", root / "nearest.csv"
    options = "--backbone", root / "tiny", "--top", 3, "--output", output
    result = fsat("similar", clip, "--among", root / "sounds", *options)
    assert "similar: left out: 1 file with the bytes of the clip: pitch1/1.wav" in result.stderr
    assert "warning: broken.wav: not embedded: " in result.stderr
    table = pd.read_csv(output)
    assert table["rank"].tolist() == [1, 2, 3]
    assert table["similarity"].is_monotonic_decreasing
    nearest = [Path(path).relative_to(root / "sounds").as_posix() for path in table["path"]]
    assert set(nearest[:2]) == {"pitch1/0.wav", "pitch1/2.wav"}
    assert f"{table['similarity'][0]:.4f}" in result.stdout
    embeddings = root / "all.parquet"
    fsat("embed", root / "sounds", embeddings, "--backbone", root / "tiny")
    result = fsat("similar", clip, "--among", embeddings, "--top", 3, "--output", output)
    again = pd.read_csv(output)
    assert again["path"].tolist() == ["pitch1/1.wav", *nearest[:2]]
    assert "note: the same embedding as" in result.stderr
    np.testing.assert_allclose(again["similarity"][1:], table["similarity"][:2], atol=1e-5)
    tiny_backbone(root / "other", "tflite")
    for options, words in (
        (["--backbone", root / "other"], "is another one"),
        (["--window_hop", "0.1"], "window_hop=0.1: "),
    ):
        assert words in error_of("similar", clip, "--among", embeddings, *options)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("embed nowhere out.parquet --backbone {tiny}", "input=nowhere: no such file or folder; expected a file"),
        ("embed {empty} out.parquet --backbone {tiny}", "no files in it; expected a file"),
        ("embed {sounds} out.csv --backbone {tiny}", "output=out.csv: expected a name that ends in .parquet"),
        ("embed {sounds} {empty}/d.parquet --backbone {tiny}", "is a folder; expected the name of a file"),
        ("embed {sounds}/broken.wav out.parquet --backbone {tiny}", "none of 1 file could be embedded, first bro"),
        ("embed {sounds} out.parquet --backbone {sounds}", "no backbone.json in this folder"),
        ("embed {sounds} out.parquet --backbone none@0123456789abcdef", "neither in the cache folder nor in a run"),
        ("embed {sounds} out.parquet --backbone {tiny} --audio_duration 1", "audio_duration=1: windows of the"),
        ("embed {sounds} out.parquet --backbone {tiny} --window_hop -1", "window_hop=-1.0: expected at least 0"),
        ("similar {sounds}/broken.wav --among {sounds} --backbone {tiny}", "expected an audio file to compare with"),
        ("similar gone.wav --among {sounds} --backbone {tiny}", "gone.wav: missing file; expected an audio file"),
        ("similar {clip} --among {empty} --backbone {tiny}", "no files in it"),
        ("similar {clip} --among {clip} --backbone {tiny}", "no other clip to compare"),
        ("similar {clip} --among nowhere --backbone {tiny}", "among=nowhere: no such file or folder"),
        ("similar {clip} --among {sounds}", "--backbone is missing"),
        ("similar {clip} --among {sounds} --backbone {tiny} --output x.txt", "expected a name that ends in .csv"),
        ("eda --data_dir {sounds} --near_duplicate 2", "2.0 is not in the range"),
        ("eda --data_dir {sounds} --near_duplicate 0.9", "has no effect without --backbone"),
    ],
)  # fmt: skip
def test_errors_are_one_line(root: Path, command: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "empty" / "d.parquet").mkdir(parents=True)
    names = {"tiny": root / "tiny", "sounds": root / "sounds", "empty": tmp_path / "empty",
             "clip": root / "sounds" / "pitch0" / "0.wav"}  # fmt: skip
    assert words in error_of(*command.format(**names).split())
    assert not Path("out.parquet").exists()


def test_eda_shows_clips_that_sound_almost_the_same(root: Path) -> None:
    data = make_dataset(root / "data", clips_per_class=4, test_clips=2, fold_column=2, freesound_id=True)
    clips = {path.stem: decode(path, 8000) for path in (data / "audio_train").iterdir()}
    write_wav(data / "audio_train" / "quiet.wav", 0.3 * clips["bell_00"])
    append_line(data / "train.csv", "quiet.wav,Cello,1,2,1000")  # bell_00.wav is in fold 1, of recording 1000
    write_wav(data / "audio_test" / "test_00.wav", 0.3 * clips["flute_00"])
    for name in ("silent_0", "silent_1"):
        write_wav(data / "audio_train" / f"{name}.wav", np.zeros(2000 + 1000 * int(name[-1])))
        append_line(data / "train.csv", f"{name}.wav,Flute,1,1,{name}")
    shutil.copy(data / "audio_train" / "cello_00.wav", data / "audio_test" / "test_01.wav")
    result = fsat("eda", "--data_dir", data, "--backbone", root / "tiny", "--near_duplicate", 0.99999)
    line = next(line for line in result.stderr.splitlines() if "almost the same" in line)
    assert line.startswith("warning: eda: 2 pairs of clips sound almost the same by the embeddings of onnx")
    run = newest_run("eda")
    folder = Path(mlflow.artifacts.download_artifacts(run_id=run.info.run_id))
    rows = {row["fname"]: row for row in read_csv(folder / "tables" / "near_duplicates.csv")}
    assert set(rows) == {"bell_00.wav", "flute_00.wav"}
    quiet = rows["bell_00.wav"]
    assert (quiet["other_fname"], quiet["finding"]) == ("quiet.wav", "different labels; different folds")
    assert (quiet["label"], quiet["other_label"], quiet["same_recording"]) == ("Bell", "Cello", "1")
    assert (rows["flute_00.wav"]["other_fname"], rows["flute_00.wav"]["finding"]) == ("test_00.wav", "train and test")
    assert run.data.metrics["n_near_duplicates_labels"] == run.data.metrics["n_near_duplicates_splits"] == 1
    section = Page(folder / "eda.html").sections["near-duplicates"]
    assert "1 has different labels, of which one may be wrong; 1 has clips in different folds" in section.text
    assert [clip[1].split(" · ")[1] for clip in section.clips[:2]] == ["bell_00.wav", "quiet.wav"]
    assert section.tags["audio"] == 4
    assert len(section.tables[0]) == 2
