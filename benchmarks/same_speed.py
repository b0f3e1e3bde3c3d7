"""``python -m benchmarks.same_speed REF DATA_DIR``: compare this checkout's speed with that of another commit.

Both sides run the functions of their own `benchmarks` package, alternately and each in a process of its own: `decode`,
`train`, `predict`, `collection` and `startup`, without what these are compared with otherwise. The table has the ratio
of the medians, this checkout by REF, where more than 1 is faster; the exit status is 1 if one is below 0.97. Run
nothing else meanwhile.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import ROOT, Row, Samples, alternate, call, command_seconds

LEAST = 0.97
ROWS, FILES, MEMBERS, STARTS = 640, 500, 10, 80
EPOCHS = {"conv1d": 7, "dummy1d": 31, "conv2d_mfcc": 4, "cnn_logmel": 3}
NAMES = ("decode", "train", "predict", "collection", "startup")


class Side:
    """A checkout with a working folder; each method makes one measurement, in units per second."""

    def __init__(self, checkout: Path, folder: Path) -> None:
        self.checkout, self.folder = checkout, folder
        folder.mkdir()

    def call(self, target: str, **arguments: Any) -> Any:
        """Call a function of the checkout in a process."""
        variables = {"PYTHONPATH": str(self.checkout), "FSAT_CACHE_DIR": str(self.folder / "cache")}
        variables["MLFLOW_TRACKING_URI"] = f"sqlite:///{self.folder}/mlflow.db"
        return call(target, environment=variables, cwd=self.folder, **arguments)

    def decode(self, data: str) -> float:
        """Return the clips per second that are checked, hashed and decoded into an empty cache."""
        shutil.rmtree(self.folder / "cache", ignore_errors=True)
        return ROWS / sum(self.call("benchmarks.decode:fsat_store", folder=data).values())

    def train(self, data: str, model: str) -> float:
        """Return the clips per second of whole epochs."""
        options = {"model": model, "epochs": EPOCHS[model], "precision": "auto"}
        return self.call("benchmarks.train:fsat_fold", data_dir=data, **options)["clips_per_second_whole"]

    def write_tagger(self) -> None:
        """Write a tagger with random weights, and register it."""
        tagger = self.folder / "tagger"
        tagger.mkdir()
        self.call("benchmarks.predict:write_tagger", folder=str(tagger), n_members=MEMBERS, eval_crops=3)
        self.call("benchmarks.collection:register", folder=str(tagger), name="ten")

    def predict(self, paths: list[str]) -> float:
        """Return the clips per second that a loaded tagger tags."""
        tagger = str(self.folder / "tagger")
        return FILES / self.call("benchmarks.predict:fsat_tags", paths=paths, folder=tagger)["tag"]

    def collection(self, files: str) -> float:
        """Return the clips per second of the command `predict`, without loading the tagger."""
        return FILES / self.call("benchmarks.collection:predict_files", folder=files)["tag"]

    def startup(self) -> float:
        """Return the starts per second of ``python -m fsat --help``."""
        environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(self.checkout)}
        return 1 / command_seconds([sys.executable, "-m", "fsat", "--help"], cwd=self.folder, env=environment)


def main() -> int:
    """Measure both sides and print the table; return 1 if this checkout is slower."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.same_speed", description=__doc__.split("\n")[0])
    parser.add_argument("ref", metavar="REF", help="commit to compare with")
    parser.add_argument("data_dir", metavar="DATA_DIR", type=Path, help="real clips with a fold column")
    parser.add_argument("names", metavar="NAME", nargs="*", help=f"{', '.join(NAMES)}; all by default")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each side")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fsat-speed-") as name:
        other = Path(name) / "other"
        subprocess.run(["git", "worktree", "add", "--quiet", "--detach", other, arguments.ref], cwd=ROOT, check=True)
        try:
            sides = Side(ROOT, Path(name) / "here"), Side(other, Path(name) / "there")
            rows = measure(sides, Path(name), arguments)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", other], cwd=ROOT, check=True)
    return 1 if any(row.verdict == "MISSED" for row in rows) else 0


def measure(sides: tuple[Side, Side], folder: Path, arguments: argparse.Namespace) -> list[Row]:
    """Return a row for each measurement, and print it."""
    rows, names = [], arguments.names or NAMES

    def compare(name: str, unit: str, measurement: Callable[[Side], float], repeats: int = arguments.repeats) -> None:
        results = alternate(repeats, {who: partial(measurement, side) for who, side in zip("ab", sides, strict=True)})
        here, there = Samples("here", results["a"], unit), Samples(arguments.ref, results["b"], unit)
        rows.append(Row(name, here, there, at_least=LEAST))
        print(f"{name}: {here}, {arguments.ref} {there}: {rows[-1].judged:.3f} {rows[-1].verdict}", flush=True)

    data, files, source = str(folder / "data"), str(folder / "files"), str(arguments.data_dir.absolute())
    call("benchmarks.sounds:write_dataset", data_dir=source, folder=data, n_rows=ROWS)
    paths = call("benchmarks.sounds:write_files", data_dir=source, folder=files, n_files=FILES)
    if "startup" in names:
        for side in sides:
            side.startup()  # writes .pyc files
        compare("startup", "starts/s", Side.startup, max(STARTS, arguments.repeats))
    if "decode" in names:
        compare("decode", "clips/s", lambda side: side.decode(data))
    for model in EPOCHS if "train" in names else ():
        compare(f"train {model}", "clips/s", lambda side, model=model: side.train(data, model))
    if {"predict", "collection"} & set(names):
        for side in sides:
            side.write_tagger()
    if "predict" in names:
        compare("predict", "clips/s", lambda side: side.predict(paths))
    if "collection" in names:
        compare("collection", "clips/s", lambda side: side.collection(files))
    return rows


if __name__ == "__main__":
    sys.exit(main())
