"""Makes the documentation's pictures of eda.html and report.html.

After ``make demo``, ``python -m docs.make_page_screenshots [FOLDER]``; FOLDER has the demo's ``mlflow.db``. Needs
Playwright, Pillow and Chromium.
"""

import sys
import tempfile
from pathlib import Path

import mlflow

from docs.shots import chromium, save

WINDOW = {"width": 900, "height": 640}
SHOTS = {
    "eda_classes": ("eda", "eda.html", "classes"),
    "eda_listen": ("eda", "eda.html", "listen"),
    "report_scores": ("ensemble", "report.html", "scores"),
    "report_suspects": ("ensemble", "report.html", "suspects"),
}
"""By picture: the stage of the run, its page, and the section at the top of the window."""


def main(folder: str = ".") -> None:
    """Make all pictures of the store in a folder."""
    client = mlflow.MlflowClient(f"sqlite:///{Path(folder).absolute() / 'mlflow.db'}")
    with chromium() as browser, tempfile.TemporaryDirectory() as kept:
        for name, (stage, artifact, section) in SHOTS.items():
            run, *_ = client.search_runs(["0"], f"tags.`fsat.stage` = '{stage}' and attributes.status = 'FINISHED'")
            page = browser.new_page(viewport=WINDOW)
            page.goto(Path(client.download_artifacts(run.info.run_id, artifact, kept)).as_uri())
            page.locator(f"[data-section={section}]").evaluate("part => part.scrollIntoView()")
            save(page.screenshot(), name)
            page.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
