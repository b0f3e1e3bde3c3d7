"""A real browser for tests: Debian's Chromium without a window, driven by Playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from servers import needs

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream",
)  # fmt: skip
HARMLESS = ("Method not implemented.",)
"""Warnings of Gradio's own script."""


@contextmanager
def chromium(heard: Path) -> Iterator[Browser]:
    """A browser whose microphone hears a WAV file."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    needs(program, "Chromium", "apt-get install chromium")
    needs(find_spec("playwright"), "Playwright", "pip install playwright")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        arguments = [*QUIET, f"--use-file-for-fake-audio-capture={heard}"]
        with playwright.chromium.launch(executable_path=program, args=arguments) as browser:
            yield browser


class Visit:
    """One visitor's window on a page: Playwright's `page`, the `hosts` of requests, and `complaints`, which are errors
    and warnings in the console, and exceptions of scripts.
    """

    def __init__(self, browser: Browser, address: str, **window: Any) -> None:
        self.page: Page = browser.new_page(**window)
        self.complaints: list[str] = []
        self.hosts: set[str] = set()
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", self._request)
        self.page.on("filechooser", lambda _: None)  # from now on Chromium tells of it, and shows none
        self.page.goto(address)

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning") and message.text not in HARMLESS:
            self.complaints.append(f"{message.type}: {message.text}")

    def _request(self, request: Any) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob"):
            self.hosts.add(parts.netloc)
