"""A disk that fills up while clips, checkpoints, results or artifacts are written costs one clear line, no results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.faults.disks import Disk, NoDisk, small_disk
from benchmarks.faults.found import faults_of, statuses, verdict
from benchmarks.faults.processes import Place, Sitting
from benchmarks.harness import Bench, BenchmarkError, Check, Section

MB = 2**20
OPTIONS = {"fold": 1, "model": "dummy1d", "audio_duration": 1, "eval_crops": 2}
MUST = (
    "exit code 1, one line that says what is full and what to do; with room again the same command ends with 0, "
    "takes up nothing half-written, and leaves predictions, weights and metrics as undisturbed"
)
LARGE = 1024 * MB


def run(bench: Bench) -> Section:
    """Fill disks, one after the other."""
    n_epochs = bench.pick(40, 10)
    options = {**OPTIONS, "data_dir": bench.data_dir, "max_epochs": n_epochs, "patience": n_epochs}
    place = Place(bench.folder / "undisturbed")
    sitting = place.start("train_fold", **options)
    if code := sitting.wait():
        raise BenchmarkError(f"the undisturbed fold ended with {code}\n{sitting.said[-3000:]}")
    whole, clips = place.ask("look"), _size(place.cache)
    roomy = clips + 20 * MB
    cases: dict[str, Callable[[Path], Check]] = {
        "noticed": lambda folder: _small_cache(folder, options, whole, clips // 2, "noticed", "no space left"),
        "decoding": lambda folder: _small_cache(folder, options, whole, roomy, "decoding", "no space left"),
        "checkpoint": lambda folder: _small_cache(folder, options, whole, roomy, "checkpoint", "the checkpoint of"),
        "results": lambda folder: _small_cache(folder, options, whole, roomy, "results", "cannot be written"),
        "artifacts": lambda folder: _small_store(folder, options, whole, place.cache, "artifacts", "make room there"),
        "records": lambda folder: _small_store(folder, options, whole, place.cache, "records", "full"),
    }
    checks = []
    for name, case in cases.items():
        try:
            check = case(bench.folder / name)
            checks.append(
                replace(check, found=check.found.replace(f"{bench.folder}/{name}/", "").replace(f"{bench.folder}/", ""))
            )
        except NoDisk as error:
            return Section(notes=[f"Not run: no disk can be mounted here ({error}); run it as root."])
    notes = [
        f"`python -m fsat train_fold` of dummy1d on DATA_DIR, {n_epochs} epochs, with FSAT_CACHE_DIR, or the working "
        "folder in which an SQLite store keeps artifacts, or its database, on a tmpfs of its own. Another program "
        "fills the disk at the moment named; then room is made, and the same command is given again."
    ]
    return Section(notes=notes, libraries=["tensorflow", "keras", "mlflow"], checks=checks)


DONE = {
    "noticed": "the cache's disk has room for half of the decoded clips",
    "decoding": "the cache's disk fills up while clips are decoded",
    "checkpoint": "the cache's disk fills up in mid-training: the next checkpoint",
    "results": "the cache's disk fills up while the trained fold's results are written",
    "artifacts": "the artifact store's disk fills up: the upload of the trained fold",
    "records": "the disk of an SQLite store's database fills up in mid-training",
}


def _small_cache(folder: Path, options: dict[str, Any], whole: dict, size: int, when: str, expected: str) -> Check:
    with small_disk(folder / "disk", size) as disk:
        place = Place(folder / "work", cache=disk.place)

        def reached(sitting: Sitting) -> bool:
            if when == "decoding":
                return any(path.stat().st_size > MB for path in place.cache.glob("clips/*/samples.f32*"))
            return sitting.epochs >= 3 if when == "checkpoint" else bool(place.kept("results.unfinished"))

        wrong, line = _fail(place, options, None if when == "noticed" else disk, reached, expected)
        disk.make_room()
        disk.resize(LARGE)
        return _again(place, options, whole, wrong, line, DONE[when])


def _small_store(
    folder: Path, options: dict[str, Any], whole: dict, cache: Path, what: str, expected: str
) -> Check:  # fmt: skip
    """An SQLite store whose artifacts, or whose database, lie on a small disk."""
    other = folder / "other"
    other.mkdir(parents=True)
    with small_disk(folder / "disk", 8 * MB) as disk:
        work, database = (disk.place, other) if what == "artifacts" else (other, disk.place)
        place = Place(work, f"sqlite:///{database}/mlflow.db", cache, {"FSAT_SERVER_WAIT": "10"})
        but = 64 * 1024 if what == "artifacts" else 0
        wrong, line = _fail(place, options, disk, lambda sitting: sitting.epochs >= 3, expected, but)
        if not place.kept("checkpoint"):
            wrong.append("nothing is kept")
        disk.make_room()
        disk.resize(LARGE)
        return _again(place, options, whole, wrong, line, DONE[what])


def _fail(
    place: Place, options: dict[str, Any], disk: Disk | None, reached: Callable[[Sitting], bool], expected: str,
    but: int = 0,
) -> tuple[list[str], str]:  # fmt: skip
    """Train until the disk is full: what is wrong with how that ends, and the line that says so."""
    sitting = place.start("train_fold", **options)
    if disk is not None and sitting.wait_until(lambda: reached(sitting)):
        disk.fill(but)
    code = sitting.wait()
    errors = [line for line in sitting.said.splitlines() if line.startswith("fsat: error")]
    wrong = [] if code == 1 else [f"exit code {code}"]
    if len(errors) != 1 or expected not in errors[0] or "Traceback" in sitting.said:
        wrong.append(f"it said: {' / '.join(errors)[:400]}")
    return wrong, errors[0] if errors else ""


def _again(place: Place, options: dict[str, Any], whole: dict, wrong: list[str], line: str, done: str) -> Check:
    """Ask again now that there is room, and compare."""
    sitting = place.start("train_fold", **options)
    if code := sitting.wait():
        wrong.append(f"asked again: exit code {code}: {sitting.last_line[:300]}")
    if warnings := [line for line in sitting.said.splitlines() if "damaged" in line or "cannot be used" in line]:
        wrong.append(f"asked again: {warnings[0]}")
    found = place.ask("look")
    wrong += faults_of(found, whole)
    if left := [*place.cache.rglob("*.unfinished"), *place.kept("*")]:
        wrong.append(f"the cache still keeps {', '.join(sorted({path.name for path in left}))}")
    return Check(done, MUST, verdict(wrong) or f"so it is; it said: {line}; runs: {statuses(found)}", not wrong)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
