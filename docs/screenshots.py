"""Make the screenshots of the documentation.

After ``make demo``, ``python -m docs.screenshots pages|ui|app [FOLDER]`` makes those of eda.html and report.html, of
the MLflow UI, or of the tagging page, from the ``mlflow.db`` in FOLDER. Needs Playwright, Pillow and Chromium.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import soundfile as sf
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from fsat.data.synth import RATE, synthesise
from fsat.tracking.mlflow_ui import view_link

IMAGES = Path(__file__).parent / "images"
COLOURS = 192
"""Colours of a PNG; few colours make it small."""
EXPERIMENT = "0"

PAGES = {
    "eda_classes": ("eda", "eda.html", "classes"),
    "eda_listen": ("eda", "eda.html", "listen"),
    "report_scores": ("ensemble", "report.html", "scores"),
    "report_suspects": ("ensemble", "report.html", "suspects"),
}
"""By image: stage of the run, page, and section at the top of the window."""


@dataclass(frozen=True)
class View:
    """A view of the MLflow UI.

    Attributes:
        path: relative to the server's address, with ``{view}``, ``{table}``, ``{experiment}`` and ``{run}`` filled in.
        ready: selector of the last element to appear.
        height: of the window in pixels.
        run: filter that selects ``{run}``, the newest matching run.
    """

    path: str
    ready: str
    height: int
    run: str = ""


CONV1D_FOLDS = "tags.`fsat.stage` = 'train_fold' and tags.`fsat.model` = 'conv1d' and attributes.status = 'FINISHED'"
VIEWS = {
    "mlflow_runs": View("{table}", ".ag-row >> nth=1", 560),
    "mlflow_compare": View("{view}", ".js-plotly-plot .barlayer .point >> nth=1", 740),
    "mlflow_run": View("#/experiments/{experiment}/runs/{run}", "text=Look at", 560, CONV1D_FOLDS),
}
BROWSER_STORAGE = {"mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": True, "mlflow.workflowType_v1": "machine_learning"}
"""Settings of the MLflow UI in the browser: machine-learning workflow, assistant closed."""

WINDOWS: dict[str, dict[str, Any]] = {
    "app": {"viewport": {"width": 900, "height": 600}},
    "app_phone": {"viewport": {"width": 360, "height": 740}, "device_scale_factor": 1.5},
}
MICROPHONE = ("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream")
LABELS, SECONDS = ("Telephone", "Cello", "Applause", "Flute", "Tearing"), 4.0
"""Consecutive labels of the tagged sound, and the duration of each."""


def main(kind: str, folder: str = ".") -> None:
    """Make the screenshots of one kind."""
    path = Path(folder).absolute()
    if kind == "pages":
        shoot_pages(path)
    elif kind == "ui":
        shoot_ui(path)
    elif kind == "app":
        shoot_app(path)
    else:
        sys.exit(f"{kind}: expected pages, ui or app")


def shoot_pages(folder: Path) -> None:
    """Make the screenshots of eda.html and report.html."""
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    with chromium() as browser, tempfile.TemporaryDirectory() as download:
        for name, (stage, artifact, section) in PAGES.items():
            query = f"tags.`fsat.stage` = '{stage}' and attributes.status = 'FINISHED'"
            run, *_ = client.search_runs([EXPERIMENT], query)
            page = browser.new_page(viewport={"width": 900, "height": 640})
            page.goto(Path(client.download_artifacts(run.info.run_id, artifact, download)).as_uri())
            page.locator(f"[data-section={section}]").evaluate("part => part.scrollIntoView()")
            save(page.screenshot(), name)


def shoot_ui(folder: Path) -> None:
    """Make the screenshots of the MLflow UI."""
    store = f"sqlite:///{folder / 'mlflow.db'}"
    command = ["mlflow", "server", "--workers", "1", "--backend-store-uri", store]
    storage = "".join(
        f"localStorage.setItem({key!r}, {json.dumps(value)!r});" for key, value in BROWSER_STORAGE.items()
    )
    with server(command, folder, "health") as address, chromium() as browser:
        names = {"experiment": EXPERIMENT, "view": view_link(EXPERIMENT)}
        names["table"] = names["view"].replace("CHART", "TABLE")
        for name, view in VIEWS.items():
            if view.run:
                run, *_ = mlflow.MlflowClient(address).search_runs([EXPERIMENT], view.run, max_results=1)
                names["run"] = run.info.run_id
            page = browser.new_page(viewport={"width": 1280, "height": view.height})
            page.add_init_script(storage)
            page.goto(f"{address}/{view.path.format(**names)}")
            page.locator(view.ready).first.wait_for(timeout=60_000)
            if (banner := page.get_by_text("viewing a shared view")).count():
                banner.locator("xpath=ancestor::div[.//button][1]").get_by_role("button").last.click()
            page.wait_for_timeout(4000)  # until the charts have moved into place
            save(page.screenshot(), name)


def shoot_app(folder: Path) -> None:
    """Make the screenshots of the tagging page, with a generated sound."""
    rng = np.random.default_rng(7)
    samples = np.concatenate([synthesise(label, SECONDS, RATE, rng) for label in LABELS])
    command = ["fsat", "app"]
    with (
        tempfile.TemporaryDirectory() as work,
        server(command, folder) as address,
        chromium(MICROPHONE) as browser,
    ):
        sound = Path(work) / "twenty seconds.flac"
        sf.write(sound, samples, RATE)
        for name, window in WINDOWS.items():
            page = browser.new_page(**window)
            page.goto(address)
            page.set_input_files("#fsat-files input[type=file]", sound)
            page.locator(".fsat-answer").wait_for()
            page.wait_for_load_state("networkidle")
            save(page.screenshot(full_page=True), name)


@contextmanager
def server(command: Sequence[str], folder: Path, health: str = "") -> Iterator[str]:
    """Run ``python -m command --port PORT`` in a folder and yield its address once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    root = Path(__file__).resolve().parent.parent
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONPATH": str(root)}
    environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    arguments = [sys.executable, "-m", *command, "--port", str(port)]
    process = subprocess.Popen(arguments, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        while not answers(f"{address}/{health}"):
            if process.poll() is not None:
                sys.exit(f"{' '.join(command)} in {folder}: exited with {process.returncode}; run it there to see why")
            time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait()


def answers(url: str) -> bool:
    """Return whether a server answers at `url`."""
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except OSError:
        return False


@contextmanager
def chromium(options: Sequence[str] = ()) -> Iterator[Browser]:
    """Start Chromium without a window."""
    with sync_playwright() as playwright:
        program = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", *options])
        yield browser
        browser.close()


def save(screenshot: bytes, name: str) -> None:
    """Write a screenshot to `IMAGES` with few colours."""
    IMAGES.mkdir(exist_ok=True)
    path, image = IMAGES / f"{name}.png", Image.open(io.BytesIO(screenshot)).convert("RGB")
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path}: {image.width}x{image.height}, {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(*sys.argv[1:])
