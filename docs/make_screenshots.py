"""Makes the pictures of docs/app.md.

After ``make demo``, start ``python -m fsat app``, and beside it ``python -m docs.make_screenshots [ADDRESS]``. The
sound that is tagged is generated, as the demo's are. Needs Playwright, Pillow and Chromium.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile as sf
from playwright.sync_api import Page

from docs.shots import chromium, save
from fsat.data.synth import RATE, synthesise

WINDOWS = {
    "app": {"viewport": {"width": 900, "height": 600}},
    "app_phone": {"viewport": {"width": 360, "height": 740}, "device_scale_factor": 1.5},
}
MICROPHONE = ("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream")

LABELS, SECONDS = ("Telephone", "Cello", "Applause", "Flute", "Tearing"), 4.0
"""What sounds one after the other, and how long each."""


def make_sound(path: Path) -> None:
    """Write the sound to be tagged."""
    rng = np.random.default_rng(7)
    sf.write(path, np.concatenate([synthesise(label, SECONDS, RATE, rng) for label in LABELS]), RATE)


def shoot(page: Page, address: str, sound: Path, name: str) -> None:
    """Have a sound tagged, and save what the page shows then."""
    page.goto(address)
    page.set_input_files("#fsat-files input[type=file]", sound)
    page.locator(".fsat-answer").wait_for()
    page.wait_for_load_state("networkidle")
    save(page.screenshot(full_page=True), name)


def main(address: str = "http://127.0.0.1:7860/") -> None:
    """Make all pictures."""
    with tempfile.TemporaryDirectory() as folder, chromium(MICROPHONE) as browser:
        sound = Path(folder) / "twenty seconds.flac"
        make_sound(sound)
        for name, window in WINDOWS.items():
            shoot(browser.new_page(**window), address, sound, name)


if __name__ == "__main__":
    main(*sys.argv[1:])
