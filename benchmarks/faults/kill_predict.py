"""A tagging of many files that is killed at random moments and asked for again leaves what an undisturbed one does."""

from __future__ import annotations

import random
import sqlite3
import time
from collections import Counter
from pathlib import Path

from benchmarks.collection import LARGE, SECONDS
from benchmarks.faults.processes import Place
from benchmarks.harness import Bench, BenchmarkError, Check, Section, call, say

KILLS, SEED = 5, 1001
MUST = "a row for each file, in order, none twice; all as undisturbed, byte for byte; nothing else is left behind"


def run(bench: Bench) -> Section:
    """Tag undisturbed once, then kill."""
    n_files, n_kills = bench.pick(LARGE, 2000), bench.pick(KILLS, 2)
    clips = bench.folder / "clips"
    call("benchmarks.sounds:write_short", data_dir=str(bench.data_dir), folder=str(clips), n_files=n_files,
         seconds=SECONDS)  # fmt: skip
    (clips / "000777.wav").write_bytes(b"no sound")
    place = Place(bench.folder / "place")
    place.call("benchmarks.collection:register_small")
    began = time.monotonic()
    _finish(place, clips, "whole.csv")
    whole = time.monotonic() - began
    say(f"  undisturbed: {whole:.1f} s")
    chance, moments = random.Random(SEED), []
    output = place.folder / "killed.csv"
    while len(moments) < n_kills:
        sitting = place.start("predict", input=clips, output=output, model="small@champion")
        left = whole * (1 - _done(output) / n_files)
        until = time.monotonic() + chance.uniform(0, 2 * left / (n_kills - len(moments) + 1))
        if not sitting.wait_until(lambda until=until: time.monotonic() >= until):
            break
        sitting.kill()
        moments.append(_done(output))
        say(f"  killed after {moments[-1]} files")
    _finish(place, clips, str(output))
    lines = output.read_text().splitlines()
    names = [line.partition(",")[0] for line in lines[1:]]
    wrong = []
    if output.read_bytes() != (place.folder / "whole.csv").read_bytes():
        wrong.append("the table is not the undisturbed one")
    if names != sorted(path.name for path in clips.iterdir()):
        twice = sum(count - 1 for count in Counter(names).values())
        wrong.append(f"{len(names)} rows for {n_files} files, {twice} of them twice")
    if left := [path.name for path in place.folder.glob("killed.csv?*")]:
        wrong.append(f"left behind: {', '.join(left)}")
    what = f"{len(moments)} times SIGKILL; files that were done then: {', '.join(map(str, moments))}"
    check = Check(what, MUST, "; ".join(wrong) or f"so it is: {len(names)} rows", not wrong)
    notes = [
        f"`python -m fsat predict` of {n_files} files of {SECONDS:g} s, cut from the clips of DATA_DIR, by one member "
        f"of conv1d with fresh weights; {whole:.0f} s undisturbed. One of them is no sound. Moments at random (seed "
        f"{SEED}), starts included; after each kill the same command was given again."
    ]
    return Section(notes=notes, libraries=["tensorflow", "keras", "mlflow"], checks=[check])


def _finish(place: Place, clips: Path, output: str) -> None:
    sitting = place.start("predict", input=clips, output=output, model="small@champion")
    if code := sitting.wait():
        raise BenchmarkError(f"predict ended with {code}\n{sitting.said[-3000:]}")


def _done(output: Path) -> int:
    """How many files the ledger has of a tagging that was killed."""
    path = output.with_name(output.name + ".unfinished")
    if not path.exists():
        return 0
    with sqlite3.connect(path) as db:
        there = db.execute("SELECT COUNT(*) FROM sqlite_master WHERE name = 'files'").fetchone()[0]
        return db.execute("SELECT COUNT(*) FROM files WHERE result IS NOT NULL").fetchone()[0] if there else 0
