"""Fill the disk while files are written: fsat ends with one clear error and loses no results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.faults.disks import Disk, MountError, small_disk
from benchmarks.faults.fold_checks import compare_stores, count_statuses, summarise
from benchmarks.faults.processes import Command, Workspace
from benchmarks.harness import Bench, Check, Section

MB = 2**20
OPTIONS = {"fold": 1, "model": "dummy1d", "audio_duration": 1, "eval_crops": 2}
REQUIRED = (
    "exit code 1 and one line that says what is full and what to do; with free space, the same command ends with 0, "
    "uses no partial file, and its predictions, weights and metrics equal the undisturbed ones"
)
LARGE = 1024 * MB

CASES = {
    "cache": "the disk of the cache has space for half of the decoded clips",
    "decoding": "the disk of the cache fills up while clips are decoded",
    "checkpoint": "the disk of the cache fills up during training, before a checkpoint",
    "results": "the disk of the cache fills up while the results of the trained fold are written",
    "artifacts": "the disk of the artifact store fills up before the upload of the trained fold",
    "records": "the disk of the SQLite store fills up during training",
}


def run(bench: Bench) -> Section:
    """Fill disks, one after the other."""
    n_epochs = bench.pick(40, 10)
    options = {**OPTIONS, "data_dir": bench.data_dir, "max_epochs": n_epochs, "patience": n_epochs}
    workspace = Workspace(bench.folder / "undisturbed")
    workspace.run("train_fold", **options)
    cache = workspace.folder / "cache"
    expected, clips = workspace.describe_store(), _size(cache)
    enough = clips + 20 * MB
    cases: dict[str, Callable[[Path], Check]] = {
        "cache": lambda folder: _fill_cache(folder, options, expected, clips // 2, "cache", "no space left"),
        "decoding": lambda folder: _fill_cache(folder, options, expected, enough, "decoding", "no space left"),
        "checkpoint": lambda folder: _fill_cache(folder, options, expected, enough, "checkpoint", "the checkpoint of"),
        "results": lambda folder: _fill_cache(folder, options, expected, enough, "results", "cannot be written"),
        "artifacts": lambda folder: _fill_store(folder, options, expected, cache, "artifacts", "make room there"),
        "records": lambda folder: _fill_store(folder, options, expected, cache, "records", "full"),
    }
    checks = []
    for name, case in cases.items():
        try:
            check = case(bench.folder / name)
        except MountError as error:
            return Section(notes=[f"Not run: no disk can be mounted here ({error}); run it as root."])
        result = check.result.replace(f"{bench.folder}/{name}/", "").replace(f"{bench.folder}/", "")
        checks.append(replace(check, result=result))
    notes = [
        f"`python -m fsat train_fold` of dummy1d on DATA_DIR, {n_epochs} epochs, with FSAT_CACHE_DIR, the folder of "
        "the artifacts, or the database of an SQLite store on a tmpfs of its own. Another program fills the disk at "
        "the moment named; then space is freed, and the same command is run again."
    ]
    return Section(notes=notes, libraries=["tensorflow", "keras", "mlflow"], checks=checks)


def _fill_cache(folder: Path, options: dict[str, Any], expected: dict, size: int, case: str, message: str) -> Check:
    with small_disk(folder / "disk", size) as disk:
        workspace = Workspace(folder / "work", cache=disk.path)

        def reached(command: Command) -> bool:
            if case == "decoding":
                return any(path.stat().st_size > MB for path in disk.path.glob("clips/*/samples.f32*"))
            return command.epochs >= 3 if case == "checkpoint" else bool(workspace.run_files("results.unfinished"))

        problems, line = _fail(workspace, options, None if case == "cache" else disk, reached, message)
        disk.clear()
        disk.resize(LARGE)
        return _run_again(workspace, options, expected, problems, line, CASES[case])


def _fill_store(folder: Path, options: dict[str, Any], expected: dict, cache: Path, case: str, message: str) -> Check:
    """Fill the disk of an SQLite store's artifacts or database."""
    other = folder / "other"
    other.mkdir(parents=True)
    with small_disk(folder / "disk", 8 * MB) as disk:
        work, database = (disk.path, other) if case == "artifacts" else (other, disk.path)
        workspace = Workspace(work, f"sqlite:///{database}/mlflow.db", cache, {"FSAT_SERVER_WAIT": "10"})
        spare = 64 * 1024 if case == "artifacts" else 0
        problems, line = _fail(workspace, options, disk, lambda command: command.epochs >= 3, message, spare)
        if not workspace.run_files("checkpoint"):
            problems.append("no checkpoint is left")
        disk.clear()
        disk.resize(LARGE)
        return _run_again(workspace, options, expected, problems, line, CASES[case])


def _fail(
    workspace: Workspace,
    options: dict[str, Any],
    disk: Disk | None,
    reached: Callable[[Command], bool],
    message: str,
    spare: int = 0,
) -> tuple[list[str], str]:
    """Train until the disk is full; return the problems, and the error message."""
    command = workspace.start("train_fold", **options)
    if disk is not None and command.wait_until(lambda: reached(command)):
        disk.fill(spare)
    code, errors = command.wait(), command.errors
    problems = [] if code == 1 else [f"exit code {code}"]
    if len(errors) != 1 or message not in errors[0] or "Traceback" in command.stderr:
        problems.append(f"message: {' / '.join(errors)[:400]}")
    return problems, errors[0] if errors else ""


def _run_again(
    workspace: Workspace, options: dict[str, Any], expected: dict, problems: list[str], line: str, action: str
) -> Check:
    """Run the command again with free space, and compare the results."""
    command = workspace.start("train_fold", **options)
    if code := command.wait():
        problems.append(f"second run: exit code {code}: {command.last_line[:300]}")
    if warnings := [line for line in command.stderr.splitlines() if "damaged" in line or "cannot be used" in line]:
        problems.append(f"second run: {warnings[0]}")
    store = workspace.describe_store()
    problems += compare_stores(store, expected)
    assert workspace.cache is not None
    if remaining := [*workspace.cache.rglob("*.unfinished"), *workspace.run_files("*")]:
        problems.append(f"the cache still has {', '.join(sorted({path.name for path in remaining}))}")
    result = summarise(problems) or f"as required; message: {line}; runs: {count_statuses(store)}"
    return Check(action, REQUIRED, result, not problems)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
