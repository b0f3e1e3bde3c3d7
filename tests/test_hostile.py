"""Files in a folder besides clips: each has a line of its own, and none hangs, crashes or fills the memory."""

from __future__ import annotations

import csv
import json
import os
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
from helpers import make_dataset, one_line, tone, write_wav
from hostile_files import FILES, LEADS_OUT, OTHERS, RATE, USABLE, wav, write_all
from hypothesis import given, settings
from hypothesis import strategies as st
from taggers import TINY, register_tagger, write_tagger

from fsat.commands.predict import predict
from fsat.config import Config
from fsat.data.audio import decode, read_header
from fsat.data.clip_checks import check_clip
from fsat.data.dataset import load_dataset
from fsat.errors import AudioError, DataError, FsatError
from fsat.files import sha256_of
from fsat.options import TagSettings
from fsat.tagging import Tagger
from fsat.tagging.tables import shown

HANGS_AFTER = 120
"""Seconds after which a test that waits for a FIFO fails."""

MOST_BYTES = 100_000_000
"""Memory for decoding any of these files, far less than their headers claim."""


@pytest.fixture(autouse=True)
def no_hanging() -> Iterator[None]:
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it hangs"))
    signal.alarm(HANGS_AFTER)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("hostile")
    assert len(write_all(made)) == len(list(made.iterdir())) >= 40
    return made


def expected() -> dict[str, str]:
    return {**{name: reason for name, (_, reason) in FILES.items()}, **OTHERS}


@pytest.mark.parametrize("name", [*FILES, *OTHERS], ids=lambda name: shown(name).replace("\n", "_"))
def test_every_file_is_decoded_or_has_a_reason(folder: Path, name: str) -> None:
    reason = expected()[name]
    tracemalloc.start()
    try:
        sources = [folder / name, *([(folder / name).read_bytes()] if name in FILES else [])]
        for source in sources:
            if reason == USABLE:
                samples = decode(source, 16000, 600)
                assert samples.dtype == np.float32
                assert len(samples)
                assert np.isfinite(samples).all()
            else:
                with pytest.raises(AudioError) as caught:
                    decode(source, 16000, 600)
                assert one_line(caught.value).startswith(reason)
                assert "fsat" not in str(caught.value)
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()


def test_training_lists_each_problem_before_it_starts(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", clips_per_class=4, test_clips=0)
    names = [name for name in write_all(data / "audio_train") if shown(name) == name]  # tables are UTF-8
    with open(data / "train.csv", "a", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([name, "Bell", 1] for name in names)
    config = Config.resolve({"model": "dummy1d", "sampling_rate": RATE, "audio_duration": 0.25, "n_folds": 2})
    found: dict[str, str] = {}
    for _ in range(2):  # the first pass reads headers, the second one decodes
        with pytest.raises(DataError) as caught:
            load_dataset(data, config)
        one_line(caught.value)
        found |= {problem.fname: problem.reason for problem in caught.value.problems}
        with open(data / "train.csv", newline="", encoding="utf-8") as file:
            rows = [row for row in csv.reader(file) if row[0] not in found]
        with open(data / "train.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)
    dataset = load_dataset(data, config)
    for name in names:
        reason = "leaves the folder" if name in LEADS_OUT else expected()[name]
        reason = {"socket.wav": "not a regular file"}.get(name, reason)
        assert found.get(name, "").startswith(reason), name
        assert (name in found) == bool(reason), name
    assert len(dataset.train) == 12 + len(names) - len(found)


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tagger(tmp_path_factory.mktemp("tagger") / "tagger", [{**TINY, "eval_crops": 1}], n_folds=1)


@pytest.fixture(scope="module")
def champion(store: Path, tagger: Path) -> int:
    return register_tagger(tagger)


@pytest.mark.parametrize("window", [0, 0.5])
def test_predict_has_a_row_for_each_file(champion: int, tmp_path: Path, window: float) -> None:
    folder = tmp_path / "hostile"
    folder.mkdir()
    reasons = write_all(folder)
    result = predict(str(folder), tmp_path / "t.jsonl", "champion", TagSettings(window=window, max_seconds=600))
    table = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    errors: dict[str, str] = {}
    for row in table:
        errors[row["fname"]] = errors.get(row["fname"], "") or row["error"]
    assert set(errors) == {shown(name) for name in reasons}
    for name, reason in reasons.items():
        assert errors[shown(name)].startswith(reason), name
        assert bool(errors[shown(name)]) == bool(reason), name
    assert result.n_files == len(reasons)
    assert result.n_failed == sum(map(bool, reasons.values()))


def test_an_unreadable_file(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "secret.wav", tone(300, 0.2, RATE), RATE)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("root may read every file: run the tests as another user")
    with pytest.raises(AudioError, match="unreadable file"):
        decode(path, RATE)
    assert check_clip(tmp_path, path.name).reason.startswith("unreadable file")


FIELDS = [4, 16, 20, 22, 24, 28, 32, 34, 40]
"""Offsets of the numbers in the header."""

GOOD = bytearray(wav(np.arange(-400, 400, dtype="<i2").repeat(2)))


@settings(max_examples=600, deadline=None)
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
    refused = None
    try:
        samples = decode(data, target, max_seconds=5)
    except AudioError as error:
        refused = one_line(error)
    if refused:
        assert len(refused) < 200
        return
    assert samples.dtype == np.float32
    assert 1 <= len(samples) <= 5 * target + 1
    assert np.isfinite(samples).all()


def test_a_header_that_is_read_is_one_that_is_decoded(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "clip.wav", tone(300, 0.2, RATE), RATE)
    header = read_header(path)
    assert (header.frames, header.samplerate) == (len(decode(path, RATE)), RATE)


# --- models ------------------------------------------------------------------------------------------------


def _halved(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _text(path: Path) -> None:
    path.write_text("no weights")


def _pickle(path: Path) -> None:
    path.write_bytes(b"\x80\x04cos\nsystem\n(S'touch /tmp/fsat-was-here'\ntR.")


def _without_a_layer(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["layers"][next(name for name in sorted(file["layers"]) if len(file["layers"][name]["vars"]))]


def _other_shapes(path: Path) -> None:
    with h5py.File(path, "a") as file:
        for name in sorted(file["layers"]):
            for key in list(file["layers"][name]["vars"]):
                del file["layers"][name]["vars"][key]
                file["layers"][name]["vars"][key] = np.zeros((3, 1), np.float32)


def _not_a_number(path: Path) -> None:
    with h5py.File(path, "a") as file:
        for name in sorted(file["layers"]):
            for key in list(file["layers"][name]["vars"]):
                file["layers"][name]["vars"][key][...] = np.nan


TAMPERINGS = (_halved, _text, _pickle, _without_a_layer, _other_shapes, _not_a_number, Path.unlink)


@pytest.mark.parametrize("new_hash", [False, True], ids=["hash kept", "hash updated"])
@pytest.mark.parametrize("tamper", TAMPERINGS)
def test_weights_that_were_tampered_with(tagger: Path, tmp_path: Path, tamper, new_hash: bool) -> None:
    folder = shutil.copytree(tagger, tmp_path / "tagger")
    weights = folder / "study0-fold0.weights.h5"
    tamper(weights)
    if new_hash and weights.exists():
        text = (folder / "tagger.json").read_text()
        (folder / "tagger.json").write_text(re.sub(r'(?<="sha256": ")\w+', sha256_of(weights), text))
    with pytest.raises(FsatError, match=r"study0-fold0\.weights\.h5: .*register the tagger anew") as caught:
        Tagger(folder)
    one_line(caught.value)
    assert not Path("/tmp/fsat-was-here").exists()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"labels": ["a"], "members": [{}]}', '{"labels": ["a"], "members": []}']
)
def test_a_tagger_whose_facts_were_tampered_with(tagger: Path, tmp_path: Path, text: str) -> None:
    folder = shutil.copytree(tagger, tmp_path / "tagger")
    (folder / "tagger.json").write_text(text)
    with pytest.raises(FsatError, match=r"tagger\.json: .*register the tagger anew") as caught:
        Tagger(folder)
    one_line(caught.value)


def test_weights_outside_the_folder_are_refused(tagger: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tagger, tmp_path / "tagger")
    outside = shutil.copy(folder / "study0-fold0.weights.h5", tmp_path)
    text = (folder / "tagger.json").read_text()
    (folder / "tagger.json").write_text(text.replace("study0-fold0.weights.h5", f"../{Path(outside).name}"))
    with pytest.raises(FsatError, match=r"tagger\.json"):
        Tagger(folder)
