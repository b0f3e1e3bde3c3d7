"""Embeddings of any files: shared with datasets, computed once; and their table."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from clip_files import clip_file, clip_files
from helpers import tone, write_wav
from test_embeddings import CONFIG, RATE, SECONDS, Counting, embedded, expected_of, never

from fsat.data.clip_checks import check_clips
from fsat.data.clip_store import ClipFile, clips_dir, open_clips
from fsat.data.embeddings import embed_clips, window_crops
from fsat.data.file_embeddings import embed_files, window_spans
from fsat.errors import ConfigError, DataError, WindowError
from fsat.tagging import embedding_table
from fsat.tagging.embedding_table import FACTS, Rows, check_table_suffix, read_means, read_table_facts, write_embeddings

pytestmark = pytest.mark.usefixtures("cache_folder")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i, seconds in enumerate(SECONDS):
        write_wav(tmp_path / "clips" / f"{i}.wav", tone(200 + 100 * i, seconds, RATE), RATE)
    return tmp_path / "clips"


def test_files_have_the_embeddings_of_clips_without_a_clip_store(folder, monkeypatch):
    monkeypatch.setattr("fsat.data.file_embeddings.BATCH_BYTES", 5000)  # several groups
    monkeypatch.setattr("fsat.data.clip_store.LONG_BYTES", 4000)  # some are decoded one at a time
    files = clip_files(folder)
    bad = clip_file(write_wav(folder / "bad.wav", np.full(4000, np.nan, np.float32), RATE, "FLOAT"))
    found = embed_files([*files[:2], bad, *files[2:], files[0]], CONFIG, Counting())
    assert found.errors == {bad.digest: "NaN or infinite samples"}
    assert not clips_dir().exists()
    clips = open_clips(files, RATE)
    for i, file in enumerate(files):
        np.testing.assert_allclose(found.windows(file.digest), expected_of(clips[i]), rtol=1e-5)
        np.testing.assert_allclose(found.mean(file.digest), expected_of(clips[i]).mean(axis=0), rtol=1e-5)


def test_a_clip_without_embeddings_is_named_and_the_others_are_kept(folder):
    """Two soft clips, in a batch with others, have none."""
    for i in (1, 3):
        write_wav(folder / f"{i}.wav", tone(500, SECONDS[i], RATE, amplitude=0.05), RATE)
    files = clip_files(folder)

    def embed(windows: np.ndarray) -> np.ndarray:
        if (np.abs(windows).max(axis=1) < 0.1).any():
            raise WindowError("net: NaN")
        return embedded(windows)

    found, clips = embed_files(files, CONFIG, lambda: embed), open_clips(files, RATE)
    assert found.errors == {files[1].digest: "net: NaN", files[3].digest: "net: NaN"}
    for i in set(range(len(files))) - {1, 3}:
        np.testing.assert_allclose(found.windows(files[i].digest), expected_of(clips[i]), rtol=1e-5)
    with pytest.raises(WindowError) as error:
        embed_clips(clips, CONFIG, lambda: embed)
    assert error.value.index == 1


def test_files_and_datasets_share_what_is_computed(folder, tmp_path):
    clips = open_clips(clip_files(folder), RATE)
    embed_clips(clips, CONFIG, Counting())
    copies = shutil.copytree(folder, tmp_path / "copies")
    embed_files(clip_files(copies), CONFIG, never)
    write_wav(copies / "new.wav", tone(900, 0.25, RATE), RATE)
    more = Counting()
    embed_files(clip_files(copies), CONFIG, more)
    assert more.n_windows == 1
    embed_files(clip_files(copies), CONFIG, never)
    embed_clips(open_clips(clip_files(copies), RATE), CONFIG, never)


def test_a_computation_continues_where_it_was_stopped(folder, monkeypatch):
    monkeypatch.setattr("fsat.data.file_embeddings.BATCH_BYTES", 1)  # a clip at a time
    files = clip_files(folder)
    with pytest.raises(KeyboardInterrupt):
        embed_files(files, CONFIG, Counting(stop_after=4))
    rest = Counting()
    found = embed_files(files, CONFIG, rest)
    n_windows = [len(found.windows(file.digest)) for file in files]
    assert 0 < rest.n_windows < sum(n_windows)


def test_spans_are_those_of_the_windows(folder):
    for length in (400, 1000, 1500, 5200):
        crops = window_crops(np.array([length]), CONFIG)
        spans = window_spans(length, int(crops.counts[0]), CONFIG)
        starts = np.maximum(0, np.sort(crops.starts)) / RATE
        np.testing.assert_allclose(spans[:, 0], starts)
        np.testing.assert_allclose(spans[:, 1], np.minimum(length / RATE, np.sort(crops.starts) / RATE + 0.25))


def test_files_outside_the_folder_are_checked_and_remembered(folder, tmp_path, monkeypatch):
    outside = write_wav(tmp_path / "outside.wav", tone(300, 0.3, RATE), RATE)
    names = ["0.wav", "../outside.wav", str(outside), "gone.wav"]
    (folder / "link.wav").symlink_to(outside)
    facts = check_clips(folder, [*names, "link.wav", "a\0.wav", ""], "files", anywhere=True)
    assert [bool(fact.reason) for fact in facts] == [False, False, False, True, False, True, True]
    assert facts[1].digest == facts[2].digest == facts[4].digest
    assert [bool(fact.reason) for fact in check_clips(folder, names, "clips")] == [False, True, True, True]
    assert isinstance(ClipFile(outside, facts[1].digest, facts[1].stamp), ClipFile)


def test_a_table_is_written_in_groups_and_read_back(tmp_path, monkeypatch):
    monkeypatch.setattr(embedding_table, "GROUP_BYTES", 60)
    rng = np.random.default_rng(0)
    vectors = {f"{name}.wav": rng.normal(size=(n, 4)).astype(np.float32) for name, n in (("a", 3), ("b", 1), ("ü", 9))}
    rows = [Rows(name, np.arange(2 * len(part)).reshape(-1, 2) / 2, part) for name, part in vectors.items()]
    facts = {name: f"{name} é" for name in FACTS}
    path = tmp_path / "new folder" / "out.parquet"
    write_embeddings(path, rows, facts)
    assert read_table_facts(path) == facts
    table = pq.read_table(path)
    assert str(table.schema.field("embedding").type).startswith("list<")
    assert table.column_names == ["fname", "start", "end", "embedding"]
    assert table["fname"].to_pylist() == ["a.wav"] * 3 + ["b.wav"] + ["ü.wav"] * 9
    assert table["end"].to_pylist()[:3] == [0.5, 1.5, 2.5]
    assert pq.ParquetFile(path).num_row_groups == 2
    np.testing.assert_array_equal(np.stack(table["embedding"].to_numpy()), np.concatenate(list(vectors.values())))
    means = dict(read_means(path, 4))
    assert list(means) == list(vectors)
    for name, part in vectors.items():
        np.testing.assert_allclose(means[name], part.mean(axis=0), rtol=1e-6)


def test_another_file_is_no_table(tmp_path):
    other = tmp_path / "x.parquet"
    other.write_bytes(b"not Parquet at all")
    with pytest.raises(DataError, match=r"x\.parquet: cannot be read as Parquet"):
        read_table_facts(other)
    import pandas as pd

    pd.DataFrame({"fname": ["a"]}).to_parquet(other)
    with pytest.raises(DataError, match="has columns fname; expected a table that `fsat embed` wrote"):
        read_table_facts(other)
    for name in ("out.csv", "out.npz", "out"):
        with pytest.raises(ConfigError, match=r"expected a name that ends in \.parquet"):
            check_table_suffix(Path(name))
