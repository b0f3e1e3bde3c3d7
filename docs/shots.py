"""What scripts that make the documentation's pictures share: a browser, and small PNG files."""

import io
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

IMAGES = Path(__file__).parent / "images"
COLOURS = 192
"""Of a PNG, so that it is small."""


@contextmanager
def chromium(options: Sequence[str] = ()) -> Iterator[Browser]:
    """Chromium without a window."""
    with sync_playwright() as playwright:
        program = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", *options])
        yield browser
        browser.close()


def save(picture: bytes, name: str) -> None:
    """Write a screenshot among the documentation's pictures, with few colours."""
    IMAGES.mkdir(exist_ok=True)
    path, whole = IMAGES / f"{name}.png", Image.open(io.BytesIO(picture)).convert("RGB")
    whole.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path}: {whole.width}x{whole.height}, {path.stat().st_size / 1000:.0f} kB")
