"""Ten processes that begin at once on one SQLite store, which none of them finds there, all train their folds."""

from __future__ import annotations

from benchmarks.faults.found import statuses, unsound, verdict
from benchmarks.faults.processes import Place
from benchmarks.harness import Bench, Check, Section

PROCESSES = 10
MUST = "all exit codes 0; a FINISHED run a fold, no other; each metric's epochs once; artifacts as checksums.json says"


def run(bench: Bench) -> Section:
    """Start them all, on a store that is not there yet, and again on the same one."""
    n_processes, n_epochs = bench.pick(PROCESSES, 3), bench.pick(20, 2)
    place = Place(bench.folder / "ten")
    options = {
        "data_dir": bench.data_dir, "model": "dummy1d", "folds": "stratified", "n_folds": n_processes,
        "audio_duration": 0.5, "max_epochs": n_epochs, "patience": n_epochs,
    }  # fmt: skip
    checks = [_round(place, options, n_processes, n_epochs, times) for times in (1, 2)]
    notes = [
        f"{n_processes} processes `python -m fsat train_fold --fold K` of dummy1d, {n_epochs} epochs, started at the "
        "same moment with one cache folder and one MLFLOW_TRACKING_URI=sqlite:///..., whose file and tables none of "
        "them finds there the first time; the second time the same again on the store that is there."
    ]
    return Section(notes=notes, libraries=["tensorflow", "keras", "mlflow"], checks=checks)


def _round(place: Place, options: dict, n_processes: int, n_epochs: int, times: int) -> Check:
    options = {**options, "resume": "false"}  # a FINISHED fold would not be trained again
    sittings = [place.start("train_fold", fold=fold, **options) for fold in range(n_processes)]
    codes = [sitting.wait() for sitting in sittings]
    found = place.ask("look")
    wrong = [
        f"exit code {code}: {sitting.last_line[:300]}" for code, sitting in zip(codes, sittings, strict=True) if code
    ]
    expected = [str(fold) for fold in range(n_processes) for _ in range(times)]
    folds = sorted(run["fold"] for run in found["runs"] if run["status"] == "FINISHED")
    if folds != sorted(expected):
        wrong.append(f"FINISHED folds {', '.join(folds)}")
    if len(found["runs"]) != len(expected):
        wrong.append(f"runs: {statuses(found)}")
    for fold in found["folds"].values():
        wrong += unsound(fold)
        if [step for step, _ in fold["metrics"].get("loss", [])] != list(range(n_epochs)):
            wrong.append(f"loss has {len(fold['metrics'].get('loss', []))} epochs")
    done = f"{n_processes} folds at once on {'a new store' if times == 1 else 'the same store'}"
    return Check(done, MUST, verdict(wrong) or f"so it is; runs: {statuses(found)}", not wrong)
