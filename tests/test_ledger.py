"""The ledger of a tagging: resumed by its own facts only, and removed at the end."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from helpers import one_line

from fsat.errors import DataError, FsatError
from fsat.tagging.ledger import SUFFIX, opened


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "t.csv"


def begin(output: Path, *names: str, **facts: object) -> None:
    """Leave a ledger in which the first of some files has a result."""
    with pytest.raises(KeyboardInterrupt), opened(output, facts) as ledger:
        ledger.add(names, ordered=True)
        ledger.record([(1, ["", []])])
        raise KeyboardInterrupt


def test_names_are_added_once_and_keep_their_numbers(output: Path) -> None:
    odd = os.fsdecode(b"\xff.wav")
    begin(output, "b", odd, "a", "b")
    with opened(output, {}) as ledger:
        assert (ledger.n_files, ledger.n_done) == (3, 1)
        assert ledger.add(["z", "c", "a", "c"], ordered=False) == 1
        assert [[file.name for file in group] for group in ledger.groups(2)] == [[odd], ["a", "c"], ["z"]]
        ledger.record([(file.number, file.name[-1:]) for group in ledger.groups(2) for file in group])
        assert [name for name, _ in ledger.results()] == ["b", odd, "a", "c", "z"]
    assert not list(output.parent.iterdir())


def test_groups_do_not_depend_on_interruptions(output: Path) -> None:
    begin(output, *"abcdefg")
    with opened(output, {}) as ledger:
        assert [[file.number for file in group] for group in ledger.groups(3)] == [[2, 3], [4, 5, 6], [7]]


def test_a_ledger_with_other_facts_is_refused(output: Path) -> None:
    begin(output, "a", model="models:/fsat/7", top_k=0)
    for facts in ({"model": "models:/fsat/1", "top_k": 0}, {"model": "models:/fsat/7", "top_k": 1}):
        with pytest.raises(DataError, match=r"not (model=models:/fsat/1|top_k=1);") as refused, opened(output, facts):
            pass
        assert "resume=false" in one_line(refused.value)
    with opened(output, {"model": "models:/fsat/1"}, resume=False) as ledger:
        assert ledger.n_files == 0
    assert not list(output.parent.iterdir())  # nothing was added


def test_one_process_at_a_time(output: Path) -> None:
    with opened(output, {}), pytest.raises(DataError, match="another process writes to it"), opened(output, {}):
        pass


def test_a_file_that_is_not_a_ledger(output: Path) -> None:
    Path(f"{output}{SUFFIX}").write_bytes(b"no database " * 1000)
    with pytest.raises(FsatError, match=r"not a database.*resume=false"), opened(output, {}):
        pass
    with opened(output, {}, resume=False) as ledger:
        assert ledger.n_files == 0
