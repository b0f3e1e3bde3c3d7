"""Runs the commands of the documentation, page by page, in a fresh clone with a small dataset.

``python -m docs.run_commands [PAGE ...]`` says of each command what came of it, and ends with how many failed. What a
page calls DIR, PATH, S1 and so on is filled in, and folds are trained for one epoch. What is not run here is listed
with the reason in `ELSEWHERE`: most of it is run by a test.
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
from pathlib import Path

from docs.pages import PAGES, ROOT, Command, commands, fsat_arguments

TESTED_PAGES = {
    "tracking-server.md": "tests/test_server.py",
    "serving.md": "tests/test_serving.py",
    "export.md": "tests/test_export.py",
}
"""Pages whose blocks a test runs one after the other."""

ELSEWHERE = {
    r"git clone ": "this script clones",
    r"source \.venv/": "this script's PATH has it",
    r"make test$": "it is the tests",
    r"mkdir DIR|mv SOUNDS ": "tests/test_docs.py",
    r".*--env-manager uv": "tests/test_project.py",
    r"ray start ": "tests/test_ray.py",
    r"export MLFLOW_TRACKING_URI=http://SERVER": "tests/test_server.py",
    r".*ray_address=HOST": "tests/test_ray.py",
    r"python -m fsat download ": "tests/test_download.py, as the real ones need a network",
    r"python -m docs\.make_": "they make what is in this folder",
}
"""What is not run here, by the pattern that it begins with, and where it is run, or why not."""

BACKGROUND = {
    "mlflow ui": "http://127.0.0.1:5000/health",
    "mlflow models serve -m models:/fsat@champion --env-manager local": "http://127.0.0.1:5000/ping",
    "mlflow models serve -m models:/fsat@champion --env-manager local --port 5001 &": "http://127.0.0.1:5001/ping",
    "python -m fsat app": "http://127.0.0.1:7860/",
    "python -m fsat app --host 0.0.0.0": "http://127.0.0.1:7860/",
}
"""Servers, and where they answer; they are ended with their page, or when another one wants the port."""

SHORT = {"max_epochs": "1"}
TRAINING = ("main", "train_fold", "cross_validate")
LIMIT = 900
"""Seconds that a command may take."""


class Place:
    """A clone with a dataset, in which commands are run."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.clone = folder, folder / "fsat"
        subprocess.run(["git", "clone", "-q", ROOT, self.clone], check=True)
        (self.clone / ".venv").symlink_to(ROOT / ".venv")
        os.utime(self.clone / "requirements.lock", (0, 0))  # what is in it is installed
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "FSAT_"))}
        path = f"{ROOT / '.venv/bin'}{os.pathsep}{os.environ['PATH']}"
        self.environment = {**kept, "PATH": path, "FSAT_CACHE_DIR": str(folder / "cache"), "RAY_AUTH_MODE": "disabled"}
        self.servers: dict[str, subprocess.Popen] = {}
        self._number = 0
        self._make_data()

    def run(self, command: Command) -> str:
        """Run a command; what is wrong with its end, or an empty string."""
        text = self._filled(command.text)
        if url := BACKGROUND.get(command.text):
            return self._serve(text.removesuffix("&"), url)
        own = {"MLFLOW_TRACKING_URI": f"sqlite:///{self.folder}/{self._next()}.db"} if command.fails else {}
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", text], cwd=self.clone, env={**self.environment, **own},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT,
        )  # fmt: skip
        expected = 1 if command.fails else 0
        if done.returncode == expected and ("fsat: error" in done.stderr) == command.fails:
            return ""
        return f"exit {done.returncode}, expected {expected}: {done.stdout[-300:]} {done.stderr[-600:]}"

    def end_servers(self) -> None:
        """End what was started in the background."""
        for server in self.servers.values():
            with suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGTERM)
                try:
                    server.wait(20)
                except subprocess.TimeoutExpired:
                    os.killpg(server.pid, signal.SIGKILL)
        self.servers.clear()

    def _serve(self, text: str, url: str) -> str:
        self.end_servers()
        with open(self.folder / "server.log", "w") as log:
            self.servers[url] = server = subprocess.Popen(
                ["bash", "-c", f"exec {text}"], cwd=self.clone, env=self.environment, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline and server.poll() is None:
            try:
                with urllib.request.urlopen(url, timeout=5):
                    return ""
            except OSError:
                time.sleep(0.5)
        return f"{url} does not answer: {(self.folder / 'server.log').read_text()[-600:]}"

    def _make_data(self) -> None:
        for name in ("DIR", "clips"):
            self._python("-m", "fsat", "sample", str(self.folder / name), "--clips_per_class", "10")
        broken = self.folder / "clips" / "train.csv"
        header, first, *rest = broken.read_text().splitlines()
        broken.write_text("\n".join([header, first.replace(first.split(",")[0], "gone.wav"), *rest]) + "\n")
        clips = sorted((self.folder / "DIR" / "audio_test").glob("*.wav"))
        sounds = self.clone / "my_sounds"
        sounds.mkdir()
        for clip in clips[:3]:
            shutil.copy(clip, sounds / clip.name.replace(".wav", "_left.wav"))
        shutil.copy(clips[0], self.clone / "04c6fea7.wav")
        self._python("-c", "import sys, soundfile as s; x, r = s.read(sys.argv[1]); s.write('day.wav', x, r)",
                     str(clips[1]))  # fmt: skip
        archive = self.folder / "archive"
        archive.mkdir()
        self._python("-c", "import sys, soundfile as s; x, r = s.read(sys.argv[1]); s.write(sys.argv[2], x, r)",
                     str(clips[2]), str(archive / "one.flac"))  # fmt: skip
        (self.clone / "last_week").touch()
        os.utime(self.clone / "last_week", (0, 0))
        shutil.copy(clips[0], archive / "two.wav")

    def _python(self, *arguments: str) -> None:
        python = ROOT / ".venv" / "bin" / "python"
        subprocess.run([python, *arguments], cwd=self.clone, env=self.environment, check=True, capture_output=True)

    def _filled(self, text: str) -> str:
        """The command with what the documentation leaves open, as short as can be."""
        for name, value in self._values(text).items():
            text = re.sub(rf"(?<![\w/.-]){name}(?![\w.])", value, text)
        arguments = fsat_arguments(text)
        if arguments and arguments[0] in TRAINING:
            given = {word.lstrip("-") for word in arguments}
            for name, value in SHORT.items():
                if name not in given:
                    text += f" -P {name}={value}" if text.startswith("mlflow") else f" --{name} {value}"
        if text.startswith("mlflow run") and "--env-manager" not in text:
            text += " --env-manager local"
        if text == "make demo":
            text = 'make demo DEMO="-P n_folds=2 -P sampling_rate=8000 -P audio_duration=1 -P max_epochs=2"'
        return text

    def _values(self, text: str) -> Mapping[str, str]:
        data = self.folder / "DIR"
        values = {
            "DIR": str(data), "NEW_DIR": str(self.folder / f"new-{self._next()}"), "PATH": "my_sounds",
            "SUBMISSION": f"{data}/sample_submission.csv", "TRUTH": f"{data}/test_post_competition.csv",
            "ESC10/test_truth.csv": f"{data}/test_post_competition.csv", "clips": str(self.folder / "clips"),
            "/archive": str(self.folder / "archive"), r"\.\.\.": "",
        }  # fmt: skip
        if re.search(r"\b(S\d?|[ABCR]|RUN_ID)\b|[0-9a-f]{10}", text):
            values |= self._found(text)
        return values

    def _found(self, text: str) -> dict[str, str]:
        """Studies and runs of the store that can stand for those in the text."""
        code = (
            "import json, mlflow\n"
            "runs = mlflow.MlflowClient().search_runs(['0'], order_by=['attributes.end_time DESC'], max_results=500)\n"
            "print(json.dumps([[r.info.run_id, r.info.status, r.data.params, r.data.tags] for r in runs]))"
        )
        done = subprocess.run([ROOT / ".venv/bin/python", "-c", code], cwd=self.clone, env=self.environment, check=True,
                              capture_output=True, text=True)  # fmt: skip
        studies: dict[tuple[str, str], list[tuple[str, str]]] = {}
        newest: dict[str, str] = {}
        for run_id, status, params, tags in json.loads(done.stdout):
            stage = tags.get("fsat.stage", "")
            if status != "FINISHED":
                continue
            newest.setdefault(stage, run_id)
            if stage == "train_fold" and params.get("labels_run_id", "none") == "none":
                key = (tags["fsat.dataset"], tags["fsat.study"])
                studies.setdefault(key, []).append((run_id, params["n_folds"]))
        whole = {key: folds for key, folds in studies.items() if len(folds) == int(folds[0][1])}
        dataset = next(iter(whole), ("", ""))[0]
        names = [study for data, study in whole if data == dataset]
        runs = [run_id for (data, study), folds in whole.items() if study == names[0] for run_id, _ in folds]
        names += names  # where there is only one study on the newest dataset
        values = {
            "S": names[0], "S1": names[0], "S2": names[1], "S3": names[2 % len(names)],
            "R": newest.get("verify", ""), "RUN_ID": newest["eda"], **dict(zip("ABC", runs + runs, strict=False)),
        }  # fmt: skip
        for number, study in enumerate(dict.fromkeys(re.findall(r"\b[0-9a-f]{10}\b", text))):
            values[study] = names[number]
        for run_id in re.findall(r"\b[0-9a-f]{32}\b", text):
            values[run_id] = newest.get("ensemble", "")
        return values

    def _next(self) -> int:
        self._number += 1
        return self._number


def elsewhere(command: Command) -> str:
    """Where a command is run if not here, or why it is not; an empty string for those that are."""
    if command.page in TESTED_PAGES:
        return TESTED_PAGES[command.page]
    return next((why for pattern, why in ELSEWHERE.items() if re.match(pattern, command.text)), "")


def main(*names: str) -> int:
    """Run the commands of the named pages, or of all; the number that failed."""
    failed = 0
    with tempfile.TemporaryDirectory(prefix="fsat-docs-") as folder:
        place = Place(Path(folder))
        if wrong := place.run(Command("README.md", "make demo")):  # the pages take its tagger for granted
            sys.exit(f"make demo: {wrong}")
        for page in PAGES:
            for command in commands(page):
                if names and page.name not in names:
                    continue
                if why := elsewhere(command):
                    print(f"{page.name}: elsewhere ({why}): {command.text}", flush=True)
                    continue
                began = time.monotonic()
                wrong = place.run(command)
                failed += bool(wrong)
                print(f"{page.name}: {'FAILED' if wrong else 'ok'} {time.monotonic() - began:.0f} s: {command.text}"
                      f"{chr(10) + wrong if wrong else ''}", flush=True)  # fmt: skip
            place.end_servers()
    print(f"{failed} failed")
    return failed


if __name__ == "__main__":
    sys.exit(bool(main(*sys.argv[1:])))
