"""Makes the pictures of docs/app.md.

After ``make demo``, start ``python -m fsat app``, and beside it ``python -m docs.make_screenshots [ADDRESS]``. The
sound that is tagged is generated, as the demo's are. Needs Playwright, Pillow and Chromium.
"""

import io
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile as sf
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from fsat.data.synth import RATE, synthesise

IMAGES = Path(__file__).parent / "images"
WINDOWS = {
    "app": {"viewport": {"width": 900, "height": 600}},
    "app_phone": {"viewport": {"width": 360, "height": 740}, "device_scale_factor": 1.5},
}
COLOURS = 192
"""Of the PNG, so that it is small."""

LABELS, SECONDS = ("Telephone", "Cello", "Applause", "Flute", "Tearing"), 4.0
"""What sounds one after the other, and how long each."""


def make_sound(path: Path) -> None:
    """Write the sound to be tagged."""
    rng = np.random.default_rng(7)
    sf.write(path, np.concatenate([synthesise(label, SECONDS, RATE, rng) for label in LABELS]), RATE)


def shoot(page: Page, address: str, sound: Path, image: Path) -> None:
    """Have a sound tagged, and save what the page shows then."""
    page.goto(address)
    page.set_input_files("#fsat-files input[type=file]", sound)
    page.locator(".fsat-answer").wait_for()
    page.wait_for_load_state("networkidle")
    whole = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
    whole.quantize(COLOURS, dither=Image.Dither.NONE).save(image, optimize=True)
    print(f"{image}: {whole.width}x{whole.height}, {image.stat().st_size / 1000:.0f} kB")


def main(address: str = "http://127.0.0.1:7860/") -> None:
    """Make all pictures."""
    IMAGES.mkdir(exist_ok=True)
    microphone = ["--no-sandbox", "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        sound = Path(folder) / "twenty seconds.flac"
        make_sound(sound)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=microphone)
        for name, window in WINDOWS.items():
            shoot(browser.new_page(**window), address, sound, IMAGES / f"{name}.png")
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
