"""The tagger as MLflow's pyfunc model, in this process."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from audio_bytes import by_libsndfile, make, noise
from helpers import CLASSES, error_line
from hostile_requests import silence, wav
from taggers import ONE_OF_EACH, PLATT, SEVERAL, THRESHOLDS, register_tagger, write_tagger

from fsat import tagging
from fsat.errors import ConfigError
from fsat.metrics.class_thresholds import TagParams
from fsat.tagging import PyfuncTagger, Tagger
from fsat.tagging.pyfunc import RequestCancelled, cancelled, groups, tag_params

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_tagger(tmp_path_factory.mktemp("taggers") / "tagger", ONE_OF_EACH, n_folds=1)


def frame(*values: object) -> pd.DataFrame:
    return pd.DataFrame({"audio": pd.Series(values, dtype=object)})


def test_odd_files_have_labels_of_what_is_heard_and_a_word(folder) -> None:
    model, wav_file = PyfuncTagger(Tagger(folder), max_seconds=20), make("wav")
    unclosed = wav_file[:40] + bytes(4) + wav_file[44:]
    ogg, joined = by_libsndfile("OGG", samples=noise(12)), make("mp3") * 3
    table = model.predict(frame(silence(1), ogg[: len(ogg) // 2], unclosed, make("m4a"), joined, make("mp3") * 6))
    labels, errors, notes = table["labels"].map(len).tolist(), table["error"].tolist(), table["note"].tolist()
    assert labels == [0, 3, 3, 3, 3, 0]
    assert errors[1].startswith("cut off after ")
    assert errors[5].startswith("longer than max_seconds=20")
    assert [errors[i] for i in (0, 2, 3, 4)] == [""] * 4
    assert notes[0] == "silent"
    assert notes[2] == "header wrong: it says 0.00 s, the file has 4.00 s"
    assert notes[4].startswith("header wrong: it says 4.0")
    assert (notes[1], notes[3]) == ("", "")


def n_compiled(model: PyfuncTagger) -> list[int]:
    return [member.model.predict_function.experimental_get_tracing_count() for member in model.tagger.members]


def test_rows_have_labels_scores_or_an_error(folder, tmp_path) -> None:
    """Only bytes are decoded: the file behind a path is not opened, though it exists."""
    model = PyfuncTagger(Tagger(folder), max_seconds=5)
    result = model.predict(frame(wav(0.3), b"nothing", wav(0.3), silence(6)), {"top_k": 2})
    assert result["error"].tolist() == [
        "", "unreadable audio (unknown format)", "", "longer than max_seconds=5: 6 s",
    ]  # fmt: skip
    scores, _ = model.tagger.scores([wav(0.3)])
    best = np.argsort(-scores[0], kind="stable")[:2]
    assert result["labels"].map(len).tolist() == result["scores"].map(len).tolist() == [2, 0, 2, 0]
    assert result["labels"][0] == [model.tagger.labels[j] for j in best]
    np.testing.assert_allclose(result["scores"][0], scores[0][best], atol=1e-6)
    assert model.predict(frame(wav(0.3)), {"min_score": 1})["labels"][0] == []

    path = tmp_path / "clip.wav"
    path.write_bytes(wav())
    result = model.predict(frame(str(path), wav(), path, None, bytearray(wav())))
    assert [bool(labels) for labels in result["labels"]] == [False, True, False, False, True]
    assert result["error"][0] == "audio is str: expected the bytes of an audio file"


def test_parameters() -> None:
    assert tag_params(None) == tag_params({}) == (3, 0.0)
    assert tag_params({"top_k": np.int32(5), "min_score": 1}) == (5, 1.0)
    assert tag_params({"top_k": 2}, TagParams.of(40, True)) == (2, -1.0)
    assert tag_params({"min_score": 0}, TagParams.of(40, True)) == (40, 0.0)
    assert "expected a number from 0 to 1" in error_line(ConfigError, tag_params, {"min_score": -1})
    assert "unknown parameter ''" in error_line(ConfigError, tag_params, {"": 1})


@pytest.fixture(scope="module")
def several(store) -> PyfuncTagger:
    """A registered tagger with thresholds."""
    folder = write_tagger(store / "several", [SEVERAL], scaling=PLATT, thresholds=THRESHOLDS)
    register_tagger(folder, "several")
    return PyfuncTagger(Tagger(folder))


def test_a_call_gives_the_labels_above_the_thresholds(several) -> None:
    """By default, also through MLflow, which knows the types of parameters; a number takes the thresholds' place."""
    clips = frame(*(wav(0.5, frequency=frequency) for frequency in (300, 350, 900)), silence(1), b"nothing")
    scores, _ = several.tagger.scores(clips["audio"].tolist()[:3])
    model = mlflow.pyfunc.load_model("models:/several/1")
    for table in (several.predict(clips), model.predict(clips), model.predict(clips, {"min_score": -1.0})):
        assert table["labels"].tolist() == [["Bell"], ["Bell", "Cello"], [], [], []]
        assert table["scores"][1] == scores[1][:2].tolist()
        assert table["note"].tolist() == ["", "", "no label", "silent", ""]
    assert model.predict(clips, {"top_k": 1})["labels"].tolist() == [["Bell"], ["Bell"], [], [], []]
    assert model.predict(clips, {"min_score": 0.0})["labels"].map(len).tolist() == [3, 3, 3, 0, 0]
    assert model.predict(clips, {"min_score": 0.83})["labels"].tolist()[2] == ["Bell"]
    params = model.metadata.signature.params.to_dict()
    assert [(param["name"], param["type"], param["default"]) for param in params] == [
        ("top_k", "integer", 3), ("min_score", "double", -1.0),
    ]  # fmt: skip
    thresholds = dict(zip(CLASSES, THRESHOLDS, strict=True))
    assert model.metadata.metadata == {"labels": list(CLASSES), "thresholds": thresholds}


def test_groups_are_no_longer_than_the_longest_clip() -> None:
    """By the headers; what has no header counts as 0 s."""
    clips = [wav(1), wav(1), b"nothing", wav(1), "a path", wav(5), wav(1), silence(1, total=2**36 - 1)]
    assert [part.stop - part.start for part in groups(clips, 2.5)] == [3, 2, 1, 1, 1]
    assert (list(groups(clips, 1e12)), list(groups([], 1))) == ([slice(0, len(clips))], [])


def test_a_cancelled_request_is_given_up(folder) -> None:
    model, event = PyfuncTagger(Tagger(folder)), threading.Event()
    event.set()
    context = copy_context()
    context.run(cancelled.set, event)
    with pytest.raises(RequestCancelled):
        context.run(model.predict, frame(wav()))
    assert model.predict(frame(wav()))["error"][0] == ""


def test_the_scoring_server_gets_a_compiled_tagger_with_its_limits(folder, monkeypatch) -> None:
    """Any number of clips of any length compiles nothing: that would take a second."""
    from fastapi import FastAPI

    monkeypatch.setattr(FastAPI, "build_middleware_stack", FastAPI.build_middleware_stack)  # restored afterwards
    monkeypatch.setitem(sys.modules, tagging.SCORING_SERVER, object())
    monkeypatch.setenv("FSAT_SERVE_MAX_SECONDS", "5")
    model = tagging._load_pyfunc(str(folder))
    assert model.max_seconds == 5
    assert FastAPI.build_middleware_stack.__module__ == "fsat.serving.middleware"
    assert n_compiled(model) == [1, 1, 1]
    for clips in ([wav(0.01)], [wav(0.25)], [wav(3)], [wav(0.4)] * 5, [wav(0.1 + 0.3 * i) for i in range(9)]):
        model.predict(frame(*clips))
    assert n_compiled(model) == [1, 1, 1]
    monkeypatch.delitem(sys.modules, tagging.SCORING_SERVER)
    assert n_compiled(tagging._load_pyfunc(str(folder))) == [0, 0, 0]  # compiled when needed


def test_threads_share_a_fresh_tagger(folder) -> None:
    """Eight threads score its first clips at once; each gets what one thread gets."""
    clips = [wav(0.1 + 0.34 * i, frequency=200 + 200 * i) for i in range(8)]
    tagger, start = Tagger(folder), threading.Barrier(8)

    def scores_of(clip: bytes) -> np.ndarray:
        start.wait(60)
        return tagger.scores([clip])[0]

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(scores_of, clips))
    np.testing.assert_array_equal(together, [tagger.scores([clip])[0] for clip in clips])
