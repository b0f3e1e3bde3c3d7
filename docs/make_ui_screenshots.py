"""Makes the README's pictures of MLflow's page.

After ``make demo``, ``python -m docs.make_ui_screenshots [FOLDER]``; FOLDER has the demo's ``mlflow.db``. It starts
an MLflow server of its own and ends it. Another picture is another line of `SHOTS`. Needs Playwright, Pillow, Chromium.
"""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import mlflow
from playwright.sync_api import Page

from docs.shots import chromium, save
from fsat.tracking.descriptions import view_link

WIDTH = 1280
QUIET = {"mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": True, "mlflow.workflowType_v1": "machine_learning"}
"""What MLflow's page keeps in a browser of somebody who trains models and has put its assistant aside."""


@dataclass(frozen=True)
class Shot:
    """A picture.

    Attributes:
        path: from the page's address on; of a run where it has ``{run}``.
        ready: selector of what must be there.
        height: of the window, in pixels.
        run: filter of the newest run that is meant.
    """

    path: str
    ready: str
    height: int
    run: str = ""


CONV = "tags.`fsat.stage` = 'train_fold' and tags.`fsat.model` = 'conv1d' and attributes.status = 'FINISHED'"
SHOTS = {
    "mlflow_runs": Shot("{table}", ".ag-row >> nth=1", 560),
    "mlflow_compare": Shot("{view}", ".js-plotly-plot .barlayer .point >> nth=1", 740),
    "mlflow_run": Shot("#/experiments/{experiment}/runs/{run}", "text=Look at", 560, CONV),
}


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """MLflow's server on the store in a folder; its address."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1",
               "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]  # fmt: skip
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    address = f"http://127.0.0.1:{port}"
    try:
        while not answers(address):
            if process.poll() is not None:
                sys.exit(f"{folder}: mlflow server does not start; run it there to see why")
            time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait()


def answers(address: str) -> bool:
    """Whether the server is there."""
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=2):
            return True
    except (urllib.error.URLError, OSError):
        return False


def shoot(page: Page, address: str, shot: Shot, name: str, experiment: str) -> None:
    """Save what the page shows when it is ready."""
    view = view_link(experiment)
    names = {"experiment": experiment, "view": view, "table": view.replace("CHART", "TABLE")}
    if shot.run:
        found = mlflow.MlflowClient(address).search_runs([experiment], shot.run, max_results=1)
        names["run"] = found[0].info.run_id
    page.goto(f"{address}/{shot.path.format(**names)}")
    page.locator(shot.ready).first.wait_for(timeout=60_000)
    if (banner := page.get_by_text("viewing a shared view")).count():
        banner.locator("xpath=ancestor::div[.//button][1]").get_by_role("button").last.click()
    page.wait_for_timeout(4000)  # charts that move into place
    save(page.screenshot(), name)


def main(folder: str = ".", experiment: str = "0") -> None:
    """Make all pictures of the store in a folder."""
    kept = "".join(f"localStorage.setItem({key!r}, {json.dumps(value)!r});" for key, value in QUIET.items())
    with server(Path(folder).absolute()) as address, chromium() as browser:
        for name, shot in SHOTS.items():
            page = browser.new_page(viewport={"width": WIDTH, "height": shot.height})
            page.add_init_script(kept)
            shoot(page, address, shot, name, experiment)
            page.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
