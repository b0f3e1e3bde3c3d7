"""Files in a folder besides clips: each has a line of its own, and none hangs, crashes or fills the memory."""

from __future__ import annotations

import json
import re
import shutil
import signal
import struct
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from clip_files import halve
from helpers import error_line, make_dataset, one_line, read_csv, write_csv
from hostile_files import FILES, LEADS_OUT, OTHERS, RATE, USABLE, wav, write_all
from hypothesis import given, settings
from hypothesis import strategies as st
from taggers import TINY, register_tagger, write_tagger

from fsat.commands.predict import predict
from fsat.config import Config
from fsat.data.audio import decode
from fsat.data.dataset import load_dataset
from fsat.errors import AudioError, DataError, FsatError
from fsat.files import sha256_of
from fsat.options import TagSettings
from fsat.tagging import Tagger
from fsat.tagging.tables import shown

REASONS = {**{name: reason for name, (_, reason) in FILES.items()}, **OTHERS}
WEIGHTS = "study0-fold0.weights.h5"


@pytest.fixture(autouse=True)
def no_hanging() -> Iterator[None]:
    """Fail a test that waits for a FIFO."""
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it hangs"))
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("hostile")
    assert len(write_all(made)) == len(list(made.iterdir())) >= 40
    return made


@pytest.mark.parametrize("name", REASONS, ids=lambda name: shown(name).replace("\n", "_"))
def test_every_file_is_decoded_or_has_a_reason(folder: Path, name: str) -> None:
    reason = REASONS[name]
    tracemalloc.start()
    try:
        sources = [folder / name, *([(folder / name).read_bytes()] if name in FILES else [])]
        for source in sources:
            if reason == USABLE:
                samples = decode(source, 16000, 600)
                assert (samples.dtype, len(samples) > 0, np.isfinite(samples).all()) == (np.float32, True, True)
            else:
                line = error_line(AudioError, decode, source, 16000, 600)
                assert line.startswith(reason)
                assert "fsat" not in line
        assert tracemalloc.get_traced_memory()[1] < 100_000_000  # far less than headers claim
    finally:
        tracemalloc.stop()


def test_training_lists_each_problem_before_it_starts(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", clips_per_class=4, test_clips=0)
    names = [name for name in write_all(data / "audio_train") if shown(name) == name]  # tables are UTF-8
    table = data / "train.csv", ["fname", "label", "manually_verified"]
    rows = [(row["fname"], row["label"], 1) for row in read_csv(table[0])] + [(name, "Bell", 1) for name in names]
    config = Config.resolve({"model": "dummy1d", "sampling_rate": RATE, "audio_duration": 0.25, "n_folds": 2})
    found: dict[str, str] = {}
    for _ in range(2):  # the first pass reads headers, the second one decodes
        write_csv(*table, [row for row in rows if row[0] not in found])
        with pytest.raises(DataError) as caught:
            load_dataset(data, config)
        one_line(caught.value)
        found |= {problem.fname: problem.reason for problem in caught.value.problems}
    write_csv(*table, [row for row in rows if row[0] not in found])
    dataset = load_dataset(data, config)
    for name in names:
        reason = "leaves the folder" if name in LEADS_OUT else REASONS[name]
        assert found.get(name, "").startswith(reason), name
        assert (name in found) == bool(reason), name
    assert len(dataset.train) == len(rows) - len(found)


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tagger(tmp_path_factory.mktemp("tagger") / "tagger", [{**TINY, "eval_crops": 1}], n_folds=1)


@pytest.mark.slow
def test_predict_has_a_row_for_each_file(tagger: Path, folder: Path, store: Path, tmp_path: Path) -> None:
    register_tagger(tagger)
    for window in (0, 0.5):
        settings = TagSettings(window=window, max_seconds=600)
        result = predict(str(folder), tmp_path / "t.jsonl", "champion", settings, resume=False)
        errors: dict[str, str] = {}
        tagged: set[str] = set()
        for row in map(json.loads, (tmp_path / "t.jsonl").read_text().splitlines()):
            errors[row["fname"]] = errors.get(row["fname"], "") or row["error"]
            tagged |= {row["fname"]} if row.get("label") or row.get("labels") or row["note"] else set()
        assert set(errors) == {shown(name) for name in REASONS}
        for name, reason in REASONS.items():
            assert errors[shown(name)].startswith(reason), name
            assert bool(errors[shown(name)]) == bool(reason), name
        cut = {name for name, reason in REASONS.items() if reason.startswith("cut off")}
        assert tagged >= {shown(name) for name in cut}
        n_partial = sum(bool(errors[name]) for name in tagged)
        assert (result.n_files, result.n_failed) == (len(REASONS), len(REASONS) - len(tagged))
        assert result.partial.number == n_partial >= len(cut)


FIELDS = [4, 16, 20, 22, 24, 28, 32, 34, 40]
"""Offsets of the numbers in the header."""

GOOD = bytearray(wav(np.arange(-400, 400, dtype="<i2").repeat(2)))


@settings(max_examples=250, deadline=None)
@given(
    changes=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 255)), max_size=6),
    fields=st.lists(st.tuples(st.sampled_from(FIELDS), st.integers(0, 2**32 - 1)), max_size=3),
    length=st.integers(0, len(GOOD)),
    target=st.sampled_from([1, 8000, 44100]),
)
def test_no_mangled_header_does_harm(changes, fields, length, target) -> None:
    """Decoding gives finite samples within the limit, or one line."""
    data = bytearray(GOOD)
    for place, value in fields:
        struct.pack_into("<I", data, place, value)
    for place, value in changes:
        data[place] = value
    data = bytes(data[:length] if length % 3 else data)
    try:
        samples = decode(data, target, max_seconds=5)
    except AudioError as error:
        line = one_line(error)
        assert len(line) < 200
    else:
        assert (samples.dtype, np.isfinite(samples).all()) == (np.float32, True)
        assert 1 <= len(samples) <= 5 * target + 1


# --- models ------------------------------------------------------------------------------------------------


def _variables(weights: h5py.File) -> list[tuple[h5py.Group, str]]:
    return [(layer["vars"], name) for layer in weights["layers"].values() for name in list(layer["vars"])]


def _without_a_layer(path: Path) -> None:
    with h5py.File(path, "a") as weights:
        del weights[_variables(weights)[0][0].parent.name]


def _other_shapes(path: Path) -> None:
    with h5py.File(path, "a") as weights:
        for group, name in _variables(weights):
            del group[name]
            group[name] = np.zeros((3, 1), np.float32)


def _not_a_number(path: Path) -> None:
    with h5py.File(path, "a") as weights:
        for group, name in _variables(weights):
            group[name][...] = np.nan


PICKLE = b"\x80\x04cos\nsystem\n(S'touch /tmp/fsat-was-here'\ntR."
TAMPERINGS = (halve, _without_a_layer, _other_shapes, _not_a_number, Path.unlink,
              lambda path: path.write_text("no weights"), lambda path: path.write_bytes(PICKLE))  # fmt: skip


@pytest.mark.parametrize(("tamper", "new_hash"), [*((tamper, True) for tamper in TAMPERINGS), (_not_a_number, False)])
def test_weights_that_were_tampered_with(tagger: Path, tmp_path: Path, tamper, new_hash: bool) -> None:
    folder = shutil.copytree(tagger, tmp_path / "tagger")
    weights, facts = folder / WEIGHTS, folder / "tagger.json"
    tamper(weights)
    if new_hash and weights.exists():
        facts.write_text(re.sub(r'(?<="sha256": ")\w+', sha256_of(weights), facts.read_text()))
    line = error_line(FsatError, Tagger, folder)
    assert re.search(rf"{re.escape(WEIGHTS)}: .*register the tagger anew", line)
    assert ("it has changed since" in line) != new_hash
    assert not Path("/tmp/fsat-was-here").exists()


def test_a_tagger_whose_facts_were_tampered_with(tagger: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tagger, tmp_path / "tagger")
    shutil.copy(folder / WEIGHTS, tmp_path)
    outside = (folder / "tagger.json").read_text().replace(WEIGHTS, f"../{WEIGHTS}")
    no_members, empty_member = '{"labels": ["a"], "members": []}', '{"labels": ["a"], "members": [{}]}'
    for text in ("", "{", "[]", "{}", no_members, empty_member, outside):
        (folder / "tagger.json").write_text(text)
        line = error_line(FsatError, Tagger, folder)
        assert re.search(r"tagger\.json: .*register the tagger anew", line), text
