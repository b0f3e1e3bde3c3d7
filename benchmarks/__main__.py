"""Run benchmarks and write RESULTS.md: ``python -m benchmarks DATA_DIR [NAME ...]``."""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

from benchmarks import report
from benchmarks.harness import ROOT, Bench, Section, is_installed, say

NAMES = (
    "decode",
    "spectra",
    "train",
    "frameworks",
    "predict",
    "collection",
    "recording",
    "long_clips",
    "serve",
    "export",
    "blend",
    "startup",
    "memory",
    "folds",
    "precision",
)
"""Benchmarks that run by default, in the order of RESULTS.md; each is a module with a function `run`."""

SCORES = (
    "quality", "recipe", "weak_labels", "transfer", "weak_labels_embedding", "warm_start", "several_labels", "open_set",
)  # fmt: skip
"""Benchmarks of the models' scores, with seeds instead of repeats."""

LONG = (*SCORES, "embed", "eda")
"""Benchmarks that run only by name: they take long, need a pretrained network, or, as `eda`, 11 GB of disk."""

FAULTS = ("kill_fold", "kill_predict", "server_away", "sqlite_ten", "disk_full", "records", "overhead", "ray_cost")
"""Benchmarks in `benchmarks.faults`, run only by name: behaviour when processes, servers and disks fail."""

ALL = (*NAMES, *LONG, *FAULTS)

RESULTS = Path(__file__).with_name("RESULTS.md")


def main() -> int:
    """Run benchmarks one after the other; return 1 if one of them failed."""
    arguments = parse()
    failed = []
    for name in arguments.names:
        say(f"{name}:")
        commit, before, busy = report.commit(), report.cpu_times(), report.busy_share()
        with tempfile.TemporaryDirectory(prefix=f"fsat-bench-{name}-", dir=arguments.tmp) as folder:
            os.environ["FSAT_CACHE_DIR"] = str(Path(folder) / "cache")  # not the user's cache
            work = Path(folder) / "work"
            work.mkdir()
            bench = Bench(
                arguments.data_dir,
                work,
                arguments.repeats,
                arguments.quick,
                tuple(arguments.store_mb),
                download(work) if arguments.download else arguments.backbone,
            )
            try:
                section = run(name, bench)
            except Exception:  # the others still run; the old section stays
                traceback.print_exc()
                failed.append(name)
                continue
        text = report.render(name, section, command(arguments, name), commit, quiet(before, busy))
        print(text, flush=True)
        if arguments.output:
            report.update(arguments.output, {name: text}, ALL)
    if failed:
        say(f"failed: {', '.join(failed)}; their sections stay as they were")
    return 1 if failed else 0


def run(name: str, bench: Bench) -> Section:
    """Run a benchmark; if a library that it needs is missing, return a section that says so."""
    module = importlib.import_module(f"benchmarks.{'faults.' if name in FAULTS else ''}{name}")
    if missing := [need for need in getattr(module, "NEEDS", ()) if not is_installed(need)]:
        words = " ".join(missing)
        return Section(notes=[f"Not run: {words} is not installed. `pip install {words}`, then run it again."])
    return module.run(bench)


def download(folder: Path) -> Path:
    """Download BirdNET 2.4 into a folder, and return the folder of its descriptor."""
    out = folder / "birdnet"
    subprocess.run([sys.executable, "-m", "fsat", "download", "birdnet", str(out)], cwd=ROOT, check=True)
    return out


def parse() -> argparse.Namespace:
    """Parse and check the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("data_dir", type=Path, metavar="DATA_DIR", help="folder with train.csv and audio_train/")
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"benchmarks to run: {', '.join(ALL)} [default: all but {', '.join((*LONG, *FAULTS))}]",
    )
    parser.add_argument("--repeats", type=int, default=3, help="runs of each side [default: 3]")
    parser.add_argument(
        "--quick", action="store_true", help="test that the benchmarks run, with small sizes; print only"
    )
    parser.add_argument("--output", type=Path, help="file to write [default: RESULTS.md; none with --quick]")
    parser.add_argument("--tmp", type=Path, help="folder for temporary files, up to 11 GB [default: the system's]")
    parser.add_argument(
        "--store_mb",
        type=int,
        nargs=2,
        default=None,
        metavar=("SMALL", "LARGE"),
        help="memory: MB of decoded clips in the two stores [default: 400 4000]",
    )
    parser.add_argument(
        "--backbone",
        type=Path,
        help="transfer, embed, weak_labels_embedding, several_labels, open_set: the pretrained network",
    )
    parser.add_argument("--download", action="store_true", help="download BirdNET 2.4 (61 MB, CC BY-NC-SA) as backbone")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(ALL):
        parser.error(f"unknown benchmark {', '.join(sorted(unknown))}; expected {', '.join(ALL)}")
    if not (arguments.data_dir / "train.csv").is_file():
        parser.error(f"{arguments.data_dir}: expected a folder with train.csv and audio_train/")
    if arguments.repeats < 1:
        parser.error(f"--repeats {arguments.repeats}: expected at least 1")
    arguments.data_dir = arguments.data_dir.resolve()
    arguments.backbone = arguments.backbone and arguments.backbone.resolve()
    arguments.names = list(dict.fromkeys(arguments.names)) or list(NAMES)
    arguments.store_mb = arguments.store_mb or ([4, 40] if arguments.quick else [400, 4000])
    if arguments.output is None and not arguments.quick:
        arguments.output = RESULTS
    return arguments


def command(arguments: argparse.Namespace, name: str) -> str:
    """Return the command that produces a section."""
    sizes = f" --store_mb {arguments.store_mb[0]} {arguments.store_mb[1]}" if name == "memory" else ""
    quick = " --quick" if arguments.quick else ""
    has_seeds = name in (*SCORES, *FAULTS[:5])
    repeats = "" if has_seeds else f" --repeats {arguments.repeats}"
    backbone = " --download" if arguments.download else " --backbone DIR" if arguments.backbone else ""
    return f"python -m benchmarks DATA_DIR {name}{repeats}{sizes}{backbone}{quick}"


def quiet(before: tuple[int, int, int], busy: float) -> str:
    """Return the other load on the machine before and during a benchmark."""
    after = report.cpu_times()
    stolen = (after[2] - before[2]) / max(1, after[0] - before[0])
    return f"Other load in the 2 s before: {busy:.0%} of the cores; stolen by other virtual machines: {stolen:.0%}"


if __name__ == "__main__":
    sys.exit(main())
