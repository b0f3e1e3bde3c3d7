"""Processes: each item once, cores shared out, errors and signals that end all of them in order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from helpers import error_line, wait_for

from fsat import interrupts
from fsat.config import Config
from fsat.errors import ConfigError, RunError
from fsat.parallel import executor
from fsat.parallel.executor import Processes, cores

pytestmark = pytest.mark.process


def train(folder: Path, fold: int) -> str:
    """Stand for the training of a fold; write where it ran."""
    if fold == 7:
        raise ConfigError("fold 7 is\nwrong")
    if fold == 8:
        os.kill(os.getpid(), signal.SIGKILL)
    (folder / f"{fold}").write_text(f"{os.getpid()} {','.join(map(str, cores()))}")
    time.sleep(0.4)
    return f"run{fold}"


def train_two_at_once(folder: Path, fold: int) -> str:
    """Do as `train`; folds 0 and 1 wait for each other."""
    run_id, deadline = train(folder, fold), time.monotonic() + 30
    while fold < 2 and not (folder / f"{1 - fold}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return run_id


def never_finish(folder: Path, fold: int) -> str:
    try:
        (folder / f"begun{fold}").write_text(str(os.getpid()))
        time.sleep(60)
    finally:
        (folder / f"closed{fold}").touch()
    return ""


def run(function: Callable[..., str], folder: Path, folds: Any) -> list[str]:
    return list(Processes(2, "use one").map(partial(function, folder), folds, "fold"))


def main(folder: str) -> None:
    interrupts.install()
    run(never_finish, Path(folder), [0, 1, 2])


def test_each_item_runs_once_on_a_share_of_the_cores(tmp_path: Path) -> None:
    assert run(train_two_at_once, tmp_path, [0, 1, 2, 5]) == [f"run{fold}" for fold in (0, 1, 2, 5)]
    notes = {path.name: path.read_text().split() for path in tmp_path.iterdir()}
    assert sorted(notes) == ["0", "1", "2", "5"]
    shares = {pid: set(share.split(",")) for pid, share in notes.values()}
    assert len(shares) == 2
    assert str(os.getpid()) not in shares
    first, second = shares.values()
    if len(cores()) > 1:
        assert not first & second
        assert first | second == set(map(str, cores()))


def test_an_iterator_is_read_a_few_items_ahead() -> None:
    taken: list[int] = []
    source = (taken.append(i) or -i for i in range(1000))
    results = Processes(2, "use one").map(abs, source)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    results.close()
    assert len(taken) <= 3 + 4


def test_after_an_error_the_others_finish_and_no_more_begin(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert "fold 7: fold 7 is wrong" in error_line(RunError, run, train, tmp_path, [0, 7, 1, 2, 3, 4])
    assert "fold 7: fold 7 is wrong" in capsys.readouterr().err
    assert (tmp_path / "0").exists()
    assert not (tmp_path / "4").exists()


@pytest.mark.parametrize("folds", [[8, 0], iter([0, 8])], ids=["sequence", "iterator"])
def test_a_killed_process_fails_its_own_item(folds: Any, tmp_path: Path) -> None:
    line = error_line(RunError, run, train, tmp_path, folds)
    assert line == "fold 8: its process was killed by SIGKILL; use one"
    assert (tmp_path / "0").exists()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_all_of_them(signum: signal.Signals, tmp_path: Path) -> None:
    code = f"import test_processes; test_processes.main({str(tmp_path)!r})"
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    command, environment = [sys.executable, "-c", code], {**os.environ, "PYTHONPATH": path}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env=environment)
    wait_for(lambda: all((tmp_path / f"begun{fold}").exists() for fold in (0, 1)), 60)
    process.send_signal(signum)
    _, said = process.communicate(timeout=60)
    assert process.returncode != 0
    assert said.count(b"Traceback") == 1  # of the parent, which has no command line around it
    assert {path.name for path in tmp_path.glob("closed*")} == {"closed0", "closed1"}
    for fold in (0, 1):
        assert not Path(f"/proc/{(tmp_path / f'begun{fold}').read_text()}").exists()


@pytest.mark.parametrize(("n_cores", "expected"), [(1, 1), (2, 1), (4, 1), (8, 2), (16, 4), (64, 10)])
def test_folds_at_once(n_cores: int, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from fsat.commands.train import folds_at_once  # here, as each process imports this module

    requests = {"1": 1, "3": 3, "30": 10}
    assert {text: folds_at_once(text, Config(), 10, 100) for text in requests} == requests
    assert folds_at_once("2", Config(), 0, 100) == 1  # every fold is finished
    monkeypatch.delenv("FSAT_THREADS", raising=False)
    monkeypatch.setattr(executor, "cores", lambda: list(range(n_cores)))
    assert folds_at_once("auto", Config(), 10, 9000) == expected  # each has the cores that it fills
    assert folds_at_once("auto", Config(), 10, 100) == 1  # not worth a process
    assert folds_at_once("auto", Config(model="embedding"), 10, 9000) == 1
    monkeypatch.setenv("FSAT_THREADS", "16")
    assert folds_at_once("auto", Config(), 10, 9000) == max(1, n_cores // 16)
