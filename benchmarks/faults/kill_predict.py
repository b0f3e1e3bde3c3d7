"""Kill `predict` at random moments and start it again each time: its table equals that of an undisturbed job."""

from __future__ import annotations

import random
import sqlite3
import time
from collections import Counter
from pathlib import Path

from benchmarks.collection import LARGE, SECONDS
from benchmarks.faults.processes import Workspace
from benchmarks.harness import Bench, Check, Section, call, say

KILLS, SEED = 5, 1001
TAGGER = "small@champion"
REQUIRED = "one row per file, in order; byte-equal to the undisturbed table; no other file is left"


def run(bench: Bench) -> Section:
    """Tag undisturbed once, then kill."""
    n_files, n_kills = bench.pick(LARGE, 2000), bench.pick(KILLS, 2)
    clips = bench.folder / "clips"
    data_dir = str(bench.data_dir)
    call("benchmarks.sounds:write_short", data_dir=data_dir, folder=str(clips), n_files=n_files, seconds=SECONDS)
    (clips / "000777.wav").write_bytes(b"not audio")
    workspace = Workspace(bench.folder / "workspace")
    workspace.call("benchmarks.collection:register_small")
    start = time.monotonic()
    workspace.run("predict", input=clips, output="undisturbed.csv", model=TAGGER)
    seconds = time.monotonic() - start
    say(f"  undisturbed: {seconds:.1f} s")
    rng, moments = random.Random(SEED), []
    output = workspace.folder / "killed.csv"
    while len(moments) < n_kills:
        command = workspace.start("predict", input=clips, output=output, model=TAGGER)
        remaining = seconds * (1 - _count_done(output) / n_files)
        deadline = time.monotonic() + rng.uniform(0, 2 * remaining / (n_kills - len(moments) + 1))
        if not command.wait_until(lambda deadline=deadline: time.monotonic() >= deadline):
            break
        command.kill()
        moments.append(_count_done(output))
        say(f"  killed after {moments[-1]} files")
    workspace.run("predict", input=clips, output=output, model=TAGGER)
    names = [line.partition(",")[0] for line in output.read_text().splitlines()[1:]]
    problems = []
    if output.read_bytes() != (workspace.folder / "undisturbed.csv").read_bytes():
        problems.append("the table differs from the undisturbed one")
    if names != sorted(path.name for path in clips.iterdir()):
        duplicates = sum(count - 1 for count in Counter(names).values())
        problems.append(f"{len(names)} rows for {n_files} files, {duplicates} of them duplicates")
    if remaining_files := [path.name for path in workspace.folder.glob("killed.csv?*")]:
        problems.append(f"files left: {', '.join(remaining_files)}")
    action = f"{len(moments)} times SIGKILL, after {', '.join(map(str, moments))} files"
    check = Check(action, REQUIRED, "; ".join(problems) or f"as required: {len(names)} rows", not problems)
    notes = [
        f"`python -m fsat predict` of {n_files} files of {SECONDS:g} s, cut from the clips of DATA_DIR, by one member "
        f"of conv1d with random weights; {seconds:.0f} s undisturbed. One of the files is not audio. Moments are "
        f"random (seed {SEED}) and include starts; after each kill the same command was run again."
    ]
    return Section(notes=notes, libraries=["tensorflow", "keras", "mlflow"], checks=[check])


def _count_done(output: Path) -> int:
    """Return the number of files in the ledger of an unfinished job."""
    ledger = output.with_name(output.name + ".unfinished")
    if not ledger.exists():
        return 0
    with sqlite3.connect(ledger) as db:
        if not db.execute("SELECT COUNT(*) FROM sqlite_master WHERE name = 'files'").fetchone()[0]:
            return 0
        return db.execute("SELECT COUNT(*) FROM files WHERE result IS NOT NULL").fetchone()[0]
