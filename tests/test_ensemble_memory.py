"""Blending takes memory that does not grow with members times clips; what it gives is what whole arrays give.

Memory is measured in a process of its own, because the peak of a process never comes down. It counts mapped pages.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from helpers import error_line

from fsat.commands.blend_members import blend_members
from fsat.errors import RunError
from fsat.metrics import row_blocks
from fsat.metrics.blending import Blended, OutOfFold, cross_fit
from fsat.metrics.ranking import accuracy, map_at_k, top_k
from fsat.model_presets import BLENDS
from fsat.reports.prediction_tables import submission, write_submission
from fsat.tracking import fold_artifacts
from fsat.tracking.fold_artifacts import Member

N_CLASSES = 41
LABELS = [f"class_{j:02d}" for j in range(N_CLASSES)]
SLACK = 48e6
"""Bytes: scratch arrays of up to four threads, and the large pages that they touch of each member."""


def predictions(n_clips: int, seed: int) -> np.ndarray:
    scores = np.random.default_rng(seed).random((n_clips, N_CLASSES), dtype=np.float32) ** 8
    return scores / scores.sum(axis=1, keepdims=True)


def write_member(folder: Path, train: np.ndarray, test: np.ndarray, fold: int, n_folds: int) -> Path:
    (folder / "predictions").mkdir(parents=True)
    (folder / "labels.json").write_text(json.dumps(LABELS))
    np.save(folder / "predictions" / "train.npy", train)
    np.save(folder / "predictions" / "test.npy", test)
    i = np.arange(len(train))
    labels, verified = [LABELS[n * 7 % N_CLASSES] for n in i], np.where(i % 3 == 0, "1", "0")
    facts = pd.DataFrame({"fname": [f"{n}.wav" for n in i], "label": labels, "manually_verified": verified})
    tests = pd.DataFrame({"fname": [f"t{n}.wav" for n in range(len(test))]})
    clips = fold_artifacts.clip_table(facts, np.where(i % n_folds == fold, "val", "train"), tests)
    clips.to_csv(folder / "predictions" / "clips.csv", index=False)
    return folder


def member(folder: Path, study: str, fold: int) -> Member:
    config, facts = (
        SimpleNamespace(model=f"model of {study}", selected_on="own fold", n_folds=3, task="single", use_sigmoid=False),
        {"dataset": "d", "minutes": 1.5, "leak": ""},
    )
    return Member(SimpleNamespace(study=study, fold=fold, run_id=f"{study}{fold}", config=config, **facts), folder)


@pytest.fixture
def studies(tmp_path: Path) -> dict[str, list[Member]]:
    """Study a with three of three folds, b with two of three: 307 training clips, 100 test clips."""
    made: dict[str, list[Member]] = {}
    for study, folds in {"a": 3, "b": 2}.items():
        for fold in range(folds):
            folder, seed = tmp_path / f"{study}{fold}", 10 * fold + 1 + (study == "b")
            write_member(folder, predictions(307, seed), predictions(100, 100 + seed), fold, 3)
            made.setdefault(study, []).append(member(folder, study, fold))
    return made


@pytest.mark.parametrize(("method", "named"), [
    ("geometric", False), ("geometric", True), ("arithmetic", True), ("weighted", True),
])  # fmt: skip
def test_a_blend_in_small_parts_is_the_blend_of_whole_arrays(studies, method, named, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(row_blocks, "CHUNK_ELEMENTS", 41 * 16)
    monkeypatch.setattr(row_blocks, "THREADS", 3)
    monkeypatch.setattr(fold_artifacts, "CLIPS_AT_ONCE", 50)
    (tmp_path / "blend").mkdir()
    blend = blend_members([*studies["a"], *studies["b"]], tmp_path / "blend" if named else None, method)

    monkeypatch.setattr(row_blocks, "CHUNK_ELEMENTS", 10**9)
    fold, targets = np.arange(307) % 3, np.arange(307) * 7 % N_CLASSES
    verified = np.arange(307) % 3 == 0
    whole = {study: [np.array(member.train) for member in folds] for study, folds in studies.items()}
    lazy = {study: OutOfFold(arrays, [fold == i for i in range(len(arrays))]) for study, arrays in whole.items()}
    parts = {study: part[:] for study, part in lazy.items()}
    covered = fold < 2
    weights = cross_fit(list(lazy.values()), targets, verified, covered)
    assert (weights.by_fold[0] != weights.by_fold[1]).any()
    cross_validated = [Blended([[p] for p in parts.values()], "weighted", w).fill() for w in weights.by_fold]
    oofs = {
        "geometric": Blended([list(parts.values())]).fill(),
        "arithmetic": Blended([list(parts.values())], "arithmetic").fill(),
        "weighted": np.where((fold == 0)[:, np.newaxis], cross_validated[0], cross_validated[1]),
    }
    np.testing.assert_array_equal(blend.covered, covered)
    np.testing.assert_array_equal(blend.oof[covered], oofs[method][covered])
    assert np.isnan(blend.oof[~covered]).all()
    tests = [[np.array(member.test) for member in folds] for folds in studies.values()]
    test = Blended(tests, method, weights.final).fill()
    np.testing.assert_array_equal(blend.test, test)
    assert blend.weights == (dict(zip("ab", weights.final.tolist(), strict=True)) if method == "weighted" else {})
    np.testing.assert_array_equal(blend.best, top_k(test))
    np.testing.assert_array_equal(blend.targets, targets)
    if named:
        np.testing.assert_array_equal(np.load(tmp_path / "blend" / "oof.npy"), blend.oof)
        assert {path.name for path in (tmp_path / "blend").iterdir()} == {"oof.npy", "test.npy", "best.npy"}

    def scores(array: np.ndarray, where: np.ndarray) -> list[float]:
        part, both = (array[where], targets[where]), where & verified
        return [where.sum(), map_at_k(*part), accuracy(*part), map_at_k(array[both], targets[both])]

    expected = []
    for study, arrays in whole.items():
        expected += [scores(array, fold == i) for i, array in enumerate(arrays)]
        expected.append(scores(parts[study], fold < len(arrays)))
    expected += [scores(oofs[name], covered) for name in BLENDS]
    actual = blend.scores[["clips", "map3", "accuracy", "map3_verified"]].to_numpy(dtype=float)
    np.testing.assert_array_equal(actual, np.array(expected, dtype=float))
    assert blend.scores["kind"].tolist() == ["member"] * 3 + ["study"] + ["member"] * 2 + ["study"] + ["blend"] * 3
    assert blend.scores["method"].tolist() == [""] * 7 + list(BLENDS)
    assert blend.metrics["oof_map3"] == expected[7 + BLENDS.index(method)][1] == blend.row["map3"]
    assert {name: blend.metrics[f"weight_{name}"] for name in blend.weights} == blend.weights


@pytest.mark.parametrize(("runs", "old", "new", "message"), [
    ("b1", "", "", "run b1: predictions/test.npy has shape (99, 41), expected (100, 41); train fold 1 again"),
    ("b1", "306.wav,train,class_10", "306.wav,train,class_00", "disagrees with run a0 (study a) on the training clips"),
    ("b1", "t98.wav,test,,\nt99", "t99.wav,test,,\nt98", "disagrees with run a0 (study a) on the test clips"),
    ("a0 a1 a2 b0 b1", "class_00", "class_99", "run a0: predictions/clips.csv has a label that is not in labels.json"),
])  # fmt: skip
def test_members_that_disagree_are_refused_without_their_tables_in_memory(
    studies, runs: str, old: str, new: str, message: str, tmp_path: Path
) -> None:
    for name in runs.split():
        path = tmp_path / name / "predictions" / "clips.csv"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))
    if not old:
        np.save(tmp_path / "b1" / "predictions" / "test.npy", predictions(99, 0))
    assert message in error_line(RunError, blend_members, [*studies["a"], *studies["b"]])
    assert not any("clips" in vars(member) for member in studies["b"])


def test_a_submission_in_parts_is_the_submission(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("fsat.reports.prediction_tables.CLIPS_AT_ONCE", 7)
    for n_clips in (0, 7, 30):
        scores, names = predictions(n_clips, 1), [f'a, "{i}".wav' for i in range(n_clips)]
        write_submission(tmp_path / "out.csv", names, top_k(scores), LABELS)
        submission(names, top_k(scores), LABELS).to_csv(tmp_path / "expected.csv", index=False)
        assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "expected.csv").read_bytes()


BLEND = """
import sys
from pathlib import Path
sys.path.insert(0, "tests")
from test_ensemble_memory import blend_members, member, LABELS, write_submission
import pyarrow, scipy.optimize
def peak():  # bytes; unlike getrusage's, VmHWM does not start at what the parent has taken before exec
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024
folder = Path(sys.argv[1])
members = [member(folder / str(i), study, i) for study in "st" for i in range(4)]
before = peak()
blend = blend_members(members, folder, "weighted")
write_submission(folder / "submission.csv", members[0].clips["fname"].array[100_000:], blend.best, LABELS)
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc and madvise")
def test_an_ensemble_is_blended_in_memory_for_one_table(tmp_path: Path) -> None:
    n_clips, n_folds = 100_000, 4
    train, test = predictions(n_clips, 0), predictions(n_clips, 1)
    first = write_member(tmp_path / "0", train, test, 0, n_folds)
    table = pd.read_csv(first / "predictions" / "clips.csv", dtype=str, keep_default_na=False)
    number = pd.Series(np.arange(n_clips) % n_folds).reindex(range(2 * n_clips), fill_value=-1).to_numpy()
    for fold in range(1, n_folds):
        folder = tmp_path / str(fold) / "predictions"
        folder.mkdir(parents=True)
        (tmp_path / str(fold) / "labels.json").write_bytes((first / "labels.json").read_bytes())
        for name in ("train.npy", "test.npy"):
            (folder / name).symlink_to(first / "predictions" / name)
        split = np.where(number < 0, "test", np.where(number == fold, "val", "train"))
        table.assign(split=split).to_csv(folder / "clips.csv", index=False)
    done = subprocess.run([sys.executable, "-c", BLEND, tmp_path], cwd=ROOT, capture_output=True, text=True, check=True)
    grown = int(done.stdout)
    per_clip = 2 * n_clips * 300  # bytes: the table of clips being read, the lines being written, numbers
    fitted = 2 * 50_000 * N_CLASSES * 4  # logarithms that weights are fitted on
    assert grown < SLACK + per_clip + fitted < 2 * n_folds * (train.nbytes + test.nbytes) / 2
    np.testing.assert_allclose(np.load(tmp_path / "oof.npy", mmap_mode="r")[-1000:], train[-1000:], atol=1e-6)
    assert len((tmp_path / "submission.csv").read_text().splitlines()) == n_clips + 1
