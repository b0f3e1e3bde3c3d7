"""eda.html in a real browser, from the disk and in MLflow's artifact view, of a dataset that is odd in every way."""

import shutil
from html import unescape
from pathlib import Path

import mlflow
import numpy as np
import pytest
from browser import Visit, chromium
from helpers import append_line, make_dataset, read_csv, tone, write_wav
from servers import MlflowServer

from fsat.commands.eda import eda
from fsat.data.manifest import read_manifest
from fsat.data.source import Source
from fsat.reports.eda import write_eda

pytestmark = pytest.mark.browser

SECTIONS = ["classes", "waveforms", "lengths-per-label", "lengths", "repeated", "listen", "problems"]
EVIL = "<img/src=x/onerror=alert(1)>&$x^"
MISSING = 600
PLAY = """async name => {
    const player = document.querySelector(`[data-section=${name}] audio`);
    await player.play();
    while (player.currentTime < 0.05) await new Promise(done => setTimeout(done, 20));
    return player.duration;
}"""


@pytest.fixture(scope="module")
def odd(tmp_path_factory) -> Path:
    """Labels and names in odd scripts and with HTML in them, missing, empty and undecodable files, alike lengths."""
    data = make_dataset(tmp_path_factory.mktemp("data") / "odd", classes=(EVIL, "Größe", "音", "one"),
                        clips_per_class=3, test_clips=4)  # fmt: skip
    write_wav(data / "audio_train" / "<b>größe.wav", tone(440, 0.3, 44100), 44100)
    append_line(data / "train.csv", "<b>größe.wav,Größe,0")
    write_wav(data / "audio_train" / "one_00.wav", np.full(4000, np.nan, np.float32), 8000, "FLOAT")
    for i in (1, 2):
        (data / "audio_train" / f"one_0{i}.wav").write_bytes(b"")
    for i in range(MISSING):
        append_line(data / "train.csv", f"gone_{i:04d}.wav,one,1")
    for i in range(3):
        write_wav(data / "audio_test" / f"test_0{i}.wav", tone(300 + 100 * i, 0.5, 8000))
    (data / "audio_test" / "test_03.wav").write_bytes(b"")
    return data


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with MlflowServer(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def run(server, odd):
    """The run that eda logs on the server."""
    mlflow.set_tracking_uri(server.uri)
    yield mlflow.get_run(eda(Source(odd, on_bad_clip="exclude")))
    mlflow.set_tracking_uri(None)


@pytest.fixture(scope="module")
def page(server, run) -> Path:
    """The page as the server keeps it."""
    (path,) = server.artifacts.glob(f"*/{run.info.run_id}/artifacts/eda.html")
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(write_wav(tmp_path_factory.mktemp("heard") / "silence.wav", np.zeros(8000))) as running:
        yield running


def test_the_page_names_everything_that_is_odd(page):
    text = page.read_text(encoding="utf-8")
    assert "<img/" not in text
    assert "<b>" not in text
    text = unescape(text)
    assert text.count(f"<strong>{EVIL}</strong>") == 1
    assert "not verified · <b>größe.wav · 0.30 s" in text
    assert "one_00.wav · 0.50 s: cannot be played: NaN or infinite samples" in text
    assert "one_00.wav (one) cannot be shown: NaN or infinite samples." in text
    assert (
        f"{MISSING + 2} training rows are left out. 1 test clip of 4 cannot be used. 1 clip could not be read" in text
    )
    assert f"the first 500 of {MISSING + 4} rows; all are in exclusions.csv" in text
    assert f"missing file ({MISSING} times)" in text
    assert "gone_0400.wav" in text
    assert "gone_0599.wav" not in text
    assert len(read_csv(page.with_name("exclusions.csv"))) == MISSING + 3
    assert "The clips have 2 sampling rates: 8,000 Hz (13 clips) and 44,100 Hz (1 clip)." in text
    assert "All test clips are 4000 samples (0.50 s) long, exactly." in text


def test_the_same_dataset_gives_the_same_page(page, odd, tmp_path):
    moved = tmp_path / "elsewhere" / odd.name
    shutil.copytree(odd, moved)
    _, found = write_eda(read_manifest(moved, "exclude"), tmp_path)
    assert [str(problem) for problem in found] == ["train.csv:5: one_00.wav: NaN or infinite samples"]
    assert (tmp_path / "eda.html").read_bytes() == page.read_bytes()


def test_from_the_disk(page, browser):
    visit = Visit(browser, page.as_uri())
    assert sections(visit.page) == SECTIONS
    assert visit.page.evaluate(PLAY, "listen") == pytest.approx(0.35, abs=0.2)
    assert visit.page.evaluate(PLAY, "repeated") == pytest.approx(0.5, abs=0.1)
    assert visit.page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 300)")
    visit.page.get_by_role("link", name="Listen").click()
    assert visit.page.url.endswith("#listen")
    assert visit.page.evaluate("scrollY") > 500
    assert visit.complaints == []
    assert visit.hosts == {""}


def test_on_a_phone(page, browser):
    visit = Visit(browser, page.as_uri(), viewport={"width": 360, "height": 740})
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= 360
    assert sections(visit.page) == SECTIONS


def test_in_mlflows_artifact_view(server, run, browser):
    address = f"{server.uri}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}/artifacts"
    visit = Visit(browser, address, viewport={"width": 1200, "height": 900})
    visit.page.get_by_text("eda.html", exact=True).first.click()
    frame = visit.page.locator("iframe").element_handle().content_frame()
    frame.wait_for_selector("[data-section=problems]", state="attached")
    assert sections(frame) == SECTIONS
    assert frame.evaluate("origin") == "null"  # it is closed in
    frame.get_by_role("link", name="Listen").click()
    frame.wait_for_function("scrollY > 500")
    assert frame.evaluate(PLAY, "listen") == pytest.approx(0.35, abs=0.2)
    # MLflow asks its own server for users, which this one has not; the page asks nobody for anything
    assert [said for said in visit.complaints if "Failed to load resource" not in said] == []
    assert visit.hosts == {server.uri.removeprefix("http://")}


def sections(page) -> list[str]:
    return page.evaluate("[...document.querySelectorAll('[data-section]')].map(one => one.dataset.section)")
