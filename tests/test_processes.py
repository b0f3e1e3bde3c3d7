"""Folds side by side: every fold once, cores shared out, errors and signals that end them all in order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from helpers import one_line

from fsat import interrupts
from fsat.config import Config
from fsat.errors import ConfigError, RunError
from fsat.parallel import processes
from fsat.parallel.processes import cores, n_workers, train_side_by_side

pytestmark = pytest.mark.process


def train(folder: Path, fold: int) -> str:
    """Stands for the training of a fold; notes when and where it ran."""
    begun = time.time()
    if fold == 7:
        raise ConfigError("fold 7 is\nwrong")
    if fold == 8:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.4)
    share = ",".join(map(str, cores()))
    (folder / f"{fold}").write_text(f"{os.getpid()} {begun} {time.time()} {share}")
    return f"run{fold}"


def wait_for_ever(folder: Path, fold: int) -> str:
    try:
        (folder / f"begun{fold}").write_text(str(os.getpid()))
        time.sleep(60)
    finally:
        (folder / f"closed{fold}").touch()
    return ""


def main(folder: str) -> None:
    interrupts.install()
    train_side_by_side(partial(wait_for_ever, Path(folder)), [0, 1, 2], 2)


def notes(folder: Path) -> dict[int, list[str]]:
    return {int(path.name): path.read_text().split() for path in folder.iterdir()}


def test_every_fold_once_on_a_share_of_the_cores(tmp_path: Path) -> None:
    assert train_side_by_side(partial(train, tmp_path), [0, 1, 2, 5], 2) == {k: f"run{k}" for k in (0, 1, 2, 5)}
    ran = notes(tmp_path)
    assert sorted(ran) == [0, 1, 2, 5]
    shares = {pid: set(share.split(",")) for pid, _, _, share in ran.values()}
    assert len(shares) == 2
    assert str(os.getpid()) not in shares
    first, second = shares.values()
    if len(cores()) > 1:
        assert not first & second
        assert first | second == set(map(str, cores()))
    spans = sorted((float(begun), float(ended)) for _, begun, ended, _ in ran.values())
    assert spans[1][0] < spans[0][1]  # at the same time


def test_an_error_lets_the_others_finish_and_begins_no_more(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="fold 7: fold 7 is wrong") as caught:
        train_side_by_side(partial(train, tmp_path), [0, 7, 1, 2, 3, 4], 2)
    one_line(caught.value)
    assert 0 in notes(tmp_path)
    assert 4 not in notes(tmp_path)


def test_a_killed_process_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="fold 8: its process was killed by SIGKILL") as caught:
        train_side_by_side(partial(train, tmp_path), [8, 0], 2)
    one_line(caught.value)
    assert 0 in notes(tmp_path)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_them_all(signum: signal.Signals, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        f"if __name__ == '__main__':\n    import test_workers\n    test_workers.main({str(tmp_path)!r})\n"
    )
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    process = subprocess.Popen([sys.executable, script], stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path})
    deadline = time.monotonic() + 60
    while not all((tmp_path / f"begun{fold}").exists() for fold in (0, 1)) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signum)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert {path.name for path in tmp_path.glob("closed*")} == {"closed0", "closed1"}
    for fold in (0, 1):
        assert not Path(f"/proc/{(tmp_path / f'begun{fold}').read_text()}").exists()


def test_a_number_is_taken_as_it_is_but_never_more_than_there_are_folds() -> None:
    assert n_workers("1", Config(), 10, 100) == 1
    assert n_workers("3", Config(), 10, 100) == 3
    assert n_workers("30", Config(), 4, 100) == 4
    assert n_workers("2", Config(), 0, 100) == 1  # every fold is done


@pytest.mark.parametrize(("n_cores", "expected"), [(1, 1), (2, 1), (4, 1), (8, 2), (16, 4), (64, 10)])
def test_auto_gives_each_fold_the_cores_that_it_fills(
    n_cores: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FSAT_THREADS", raising=False)
    monkeypatch.setattr(processes, "cores", lambda: list(range(n_cores)))
    assert n_workers("auto", Config(), 10, 9000) == expected
    assert n_workers("auto", Config(), 10, 100) == 1  # not worth a process
    monkeypatch.setenv("FSAT_THREADS", "16")
    assert n_workers("auto", Config(), 10, 9000) == max(1, n_cores // 16)
