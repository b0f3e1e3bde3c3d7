"""Start ten processes at once on a new SQLite store: all of them train their folds."""

from __future__ import annotations

from benchmarks.faults.fold_checks import check_fold, count_statuses, summarise
from benchmarks.faults.processes import Workspace
from benchmarks.harness import Bench, Check, Section

PROCESSES = 10
REQUIRED = "all exit codes 0; one FINISHED run per fold, no other; each epoch's metrics once; artifacts match checksums"


def run(bench: Bench) -> Section:
    """Start all processes on a new store, and again on the same store."""
    n_processes, n_epochs = bench.pick(PROCESSES, 3), bench.pick(20, 2)
    workspace = Workspace(bench.folder / "ten")
    options = {
        "data_dir": bench.data_dir,
        "model": "dummy1d",
        "folds": "stratified",
        "n_folds": n_processes,
        "audio_duration": 0.5,
        "max_epochs": n_epochs,
        "patience": n_epochs,
        "resume": "false",  # train FINISHED folds again
    }
    checks = [_train_all(workspace, options, n_processes, n_epochs, round_number) for round_number in (1, 2)]
    notes = [
        f"{n_processes} processes `python -m fsat train_fold --fold K` of dummy1d, {n_epochs} epochs, started at the "
        "same moment with one cache folder and one MLFLOW_TRACKING_URI=sqlite:///..., whose file and tables do not "
        "exist the first time; the second time on the same store."
    ]
    return Section(notes=notes, libraries=["tensorflow", "keras", "mlflow"], checks=checks)


def _train_all(workspace: Workspace, options: dict, n_processes: int, n_epochs: int, round_number: int) -> Check:
    commands = [workspace.start("train_fold", fold=fold, **options) for fold in range(n_processes)]
    problems = [f"exit code {code}: {command.last_line[:300]}" for command in commands if (code := command.wait())]
    store = workspace.describe_store()
    expected = sorted([str(fold) for fold in range(n_processes)] * round_number)
    folds = sorted(run["fold"] for run in store["runs"] if run["status"] == "FINISHED")
    if folds != expected:
        problems.append(f"FINISHED folds {', '.join(folds)}")
    if len(store["runs"]) != len(expected):
        problems.append(f"runs: {count_statuses(store)}")
    for fold in store["folds"].values():
        problems += check_fold(fold)
        epochs = [step for step, _ in fold["metrics"].get("loss", [])]
        if epochs != list(range(n_epochs)):
            problems.append(f"loss has {len(epochs)} epochs")
    action = f"{n_processes} folds at once on {'a new store' if round_number == 1 else 'the same store'}"
    return Check(action, REQUIRED, summarise(problems) or f"as required; runs: {count_statuses(store)}", not problems)
