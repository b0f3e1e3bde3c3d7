"""Run the commands of the documentation in a fresh clone with a small dataset.

``python -m docs.run_commands [PAGE ...]`` prints the result of each command and the number of failures. Placeholders
such as DIR, PATH and S1 are filled in, and folds are trained for one epoch. `NOT_RUN` lists the commands that this
script skips, with the reason; most of them run in a test.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from itertools import count, cycle
from pathlib import Path
from typing import Any

from docs.pages import PAGES, ROOT, Command, commands, fsat_arguments

TESTED_PAGES = {
    "tracking-server.md": "tests/test_server.py",
    "serving.md": "tests/test_serving.py",
    "export.md": "tests/test_export.py",
}
"""Pages whose blocks a test runs in order."""

NOT_RUN = {
    r"git clone ": "this script clones",
    r"source \.venv/": "this script sets PATH",
    r"make test$": "runs all tests",
    r"head ": "shows the result of the command before it",
    r".*--env-manager uv": "tests/test_project.py",
    r"ray start ": "tests/test_ray.py",
    r"export MLFLOW_TRACKING_URI=http://SERVER": "tests/test_server.py",
    r".*ray_address=HOST": "tests/test_ray.py",
    r"python -m fsat download ": "tests/test_download.py, without a network",
    r".*(-e|fsat) embed |.*fsat similar |.*--backbone birdnet": "tests/test_embed_commands.py, with a tiny network",
    r".*(-e|fsat) evaluate |.*min_score=auto": "tests/test_evaluate.py, with a recording that it makes",
    r"python -m fsat backbone inspect ": "tests/test_inspect_backbone.py, with tiny networks",
    r".*annotations=OTHER_DIR": "tests/test_annotated_clips.py, with recordings that it makes",
    r".*background=": "tests/test_several_labels.py, with clips that it makes",
    r".*backbone=birdnet": "tests/test_embedding_study.py, with a tiny network",
}
"""Commands that do not run here, by a pattern for their beginning, and where they run instead, or why not."""

SERVERS = {
    "mlflow ui": "http://127.0.0.1:5000/health",
    "mlflow models serve -m models:/fsat@champion --env-manager local": "http://127.0.0.1:5000/ping",
    "mlflow models serve -m models:/fsat@champion --env-manager local --port 5001 &": "http://127.0.0.1:5001/ping",
    "python -m fsat app": "http://127.0.0.1:7860/",
    "python -m fsat app --host 0.0.0.0": "http://127.0.0.1:7860/",
}
"""Commands that run until they are stopped, and the URL at which each answers."""

TRAINING = ("main", "train_fold", "cross_validate")
SHORT_DEMO = 'make demo DEMO="-P n_folds=2 -P sampling_rate=8000 -P audio_duration=1 -P max_epochs=2"'
TIMEOUT = 900
"""Seconds."""

LIST_RUNS = """
import json, mlflow
runs = mlflow.MlflowClient().search_runs(["0"], "attributes.status = 'FINISHED'", order_by=["attributes.end_time DESC"])
print(json.dumps([{"id": run.info.run_id, **run.data.params, **run.data.tags} for run in runs]))
"""
CONVERT = (
    "import sys, soundfile; samples, rate = soundfile.read(sys.argv[1]); soundfile.write(sys.argv[2], samples, rate)"
)


class Clone:
    """A clone of the repository with a small dataset, in which commands are run."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / "fsat"
        self.numbers = count()
        self.servers: dict[str, subprocess.Popen[bytes]] = {}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "FSAT_"))}
        self.environment = inherited | {
            "PATH": f"{ROOT / '.venv/bin'}{os.pathsep}{os.environ['PATH']}",
            "FSAT_CACHE_DIR": str(folder / "cache"),
            "RAY_AUTH_MODE": "disabled",
        }
        subprocess.run(["git", "clone", "-q", ROOT, self.path], check=True)
        (self.path / ".venv").symlink_to(ROOT / ".venv")
        os.utime(self.path / "requirements.lock", (0, 0))  # `make setup` finds everything installed
        self._make_data()

    def run(self, command: Command) -> str:
        """Run a command; return a description of the failure, or an empty string."""
        text = self.fill(command.text)
        if new := re.search(r" manifest .* -o (\S+)", text):  # it does not overwrite that of another page
            (self.path / new[1]).unlink(missing_ok=True)
        if url := SERVERS.get(command.text):
            return self.start_server(text.removesuffix("&"), url)
        environment = dict(self.environment)
        if command.fails:  # on an empty store, as in the documentation
            environment["MLFLOW_TRACKING_URI"] = f"sqlite:///{self.folder}/{next(self.numbers)}.db"
        bash = ["bash", "-o", "pipefail", "-c", text]
        done = subprocess.run(
            bash,
            cwd=self.path,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
        expected = 1 if command.fails else 0
        if done.returncode == expected and ("fsat: error" in done.stderr) == command.fails:
            return ""
        return f"exit {done.returncode}, expected {expected}: {done.stdout[-300:]} {done.stderr[-600:]}"

    def start_server(self, text: str, url: str) -> str:
        """Start a server in the background, after stopping the others; return a failure or an empty string."""
        self.stop_servers()
        log = self.folder / "server.log"
        with open(log, "w") as output:
            self.servers[url] = server = subprocess.Popen(
                ["bash", "-c", f"exec {text}"],
                cwd=self.path,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline and server.poll() is None:
            with suppress(OSError), urllib.request.urlopen(url, timeout=5):
                return ""
            time.sleep(0.5)
        return f"{url} does not answer: {log.read_text()[-600:]}"

    def stop_servers(self) -> None:
        """Stop the servers started by `start_server`."""
        for server in self.servers.values():
            with suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGTERM)
                try:
                    server.wait(20)
                except subprocess.TimeoutExpired:
                    os.killpg(server.pid, signal.SIGKILL)
        self.servers.clear()

    def fill(self, text: str) -> str:
        """Return a command with its placeholders filled in, and settings that keep it short."""
        if text == "make demo":
            return SHORT_DEMO
        for name, value in self._placeholders(text).items():
            text = re.sub(rf"(?<![\w/.-]){name}(?![\w.])", value, text)
        arguments = fsat_arguments(text)
        if arguments and arguments[0] in TRAINING and "--max_epochs" not in arguments:
            text += " -P max_epochs=1" if text.startswith("mlflow") else " --max_epochs 1"
        if text.startswith("mlflow run") and "--env-manager" not in text:
            text += " --env-manager local"
        return text

    def _placeholders(self, text: str) -> Mapping[str, str]:
        data = self.folder / "DIR"
        values = {
            "DIR": str(data),
            "NEW_DIR": str(self.folder / f"new-{next(self.numbers)}"),
            "PATH": "my_sounds",
            "SUBMISSION": f"{data}/sample_submission.csv",
            "TRUTH": f"{data}/test_post_competition.csv",
            "ESC10/test_truth.csv": f"{data}/test_post_competition.csv",
            "clips": str(self.folder / "clips"),
            "/archive": str(self.folder / "archive"),
            r"\.\.\.": "",
        }
        if re.search(r"\b(S\d?|[ABCR]|RUN_ID)\b|[0-9a-f]{10}", text):
            values |= self._recorded_ids(text)
        return values

    def _recorded_ids(self, text: str) -> dict[str, str]:
        """Return studies and runs of the store for the placeholders and the ids in `text`."""
        runs = json.loads(self._python("-c", LIST_RUNS))
        folds = [run for run in runs if run.get("fsat.stage") == "train_fold" and run["labels_run_id"] == "none"]
        studies: dict[str, list[dict[str, Any]]] = {}
        for run in folds:
            if run["fsat.dataset"] == folds[0]["fsat.dataset"]:
                studies.setdefault(run["fsat.study"], []).append(run)
        complete = {study: runs for study, runs in studies.items() if len(runs) == int(runs[0]["n_folds"])}
        run_ids = [run["id"] for run in next(iter(complete.values()))]
        newest = {run["fsat.stage"]: run["id"] for run in reversed(runs) if "fsat.stage" in run}
        values = {"S": next(iter(complete)), "R": newest.get("verify", ""), "RUN_ID": newest["eda"]}
        values |= dict(zip(("S1", "S2", "S3"), cycle(complete), strict=False))
        values |= dict(zip("ABC", cycle(run_ids), strict=False))
        values |= dict(zip(dict.fromkeys(re.findall(r"\b[0-9a-f]{10}\b", text)), cycle(complete), strict=False))
        return values | dict.fromkeys(re.findall(r"\b[0-9a-f]{32}\b", text), newest.get("ensemble", ""))

    def _make_data(self) -> None:
        """Make the datasets DIR and clips, which has a missing file, and the sounds that the pages name."""
        for name in ("DIR", "clips"):
            self._python("-m", "fsat", "sample", self.folder / name, "--clips_per_class", "10")
        table = self.folder / "clips" / "train.csv"
        header, first, *rest = table.read_text().splitlines()
        table.write_text("\n".join([header, first.replace(first.split(",")[0], "missing.wav"), *rest]) + "\n")
        clips = sorted((self.folder / "DIR" / "audio_test").glob("*.wav"))
        sounds, archive = self.path / "my_sounds", self.folder / "archive"
        sounds.mkdir()
        archive.mkdir()
        for clip in clips[:3]:
            shutil.copy(clip, sounds / clip.name.replace(".wav", "_left.wav"))
        shutil.copy(clips[0], self.path / "04c6fea7.wav")
        shutil.copy(clips[0], archive / "two.wav")
        self._python("-c", CONVERT, clips[1], self.path / "day.wav")
        self._python("-c", CONVERT, clips[2], archive / "one.flac")
        for i, clip in enumerate(sorted((self.folder / "DIR" / "audio_train").glob("*.wav"))[:18]):
            label = ("Dog bark", "Rain", "Rooster")[i % 3]
            (self.path / "sounds" / label).mkdir(parents=True, exist_ok=True)
            shutil.copy(clip, self.path / "sounds" / label)
        shutil.copytree(sounds, self.path / "new_clips")
        (self.path / "last_week").touch()
        os.utime(self.path / "last_week", (0, 0))

    def _python(self, *arguments: str | Path) -> str:
        command = [ROOT / ".venv/bin/python", *arguments]
        return subprocess.run(
            command, cwd=self.path, env=self.environment, check=True, stdout=subprocess.PIPE, text=True
        ).stdout


def why_not_run(command: Command) -> str:
    """Return where a command runs instead of here, or why it does not run; an empty string if it runs here."""
    if command.page in TESTED_PAGES:
        return TESTED_PAGES[command.page]
    return next((reason for pattern, reason in NOT_RUN.items() if re.match(pattern, command.text)), "")


def main(*names: str) -> int:
    """Run the commands of the given pages, or of all pages; return the number of failures."""
    failures = 0
    with tempfile.TemporaryDirectory(prefix="fsat-docs-") as folder:
        clone = Clone(Path(folder))
        if problem := clone.run(Command("README.md", "make demo")):  # other commands use its tagger
            sys.exit(f"make demo: {problem}")
        for page in PAGES:
            if names and page.name not in names:
                continue
            for command in commands(page):
                if reason := why_not_run(command):
                    print(f"{page.name}: not run ({reason}): {command.text}", flush=True)
                    continue
                start = time.monotonic()
                problem = clone.run(command)
                failures += bool(problem)
                status = f"FAILED {problem}" if problem else "ok"
                print(f"{page.name}: {command.text}: {time.monotonic() - start:.0f} s {status}", flush=True)
            clone.stop_servers()
    print(f"{failures} failed")
    return failures


if __name__ == "__main__":
    sys.exit(bool(main(*sys.argv[1:])))
