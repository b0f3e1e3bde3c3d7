"""eda.html of a dataset that is unusual in every way: parsed as HTML, and in a browser from a disk and from MLflow."""

import shutil
from pathlib import Path

import mlflow
import numpy as np
import pytest
from browser import Visit, chromium
from helpers import append_line, make_dataset, read_csv, tone, write_wav
from html_page import Page
from servers import MlflowServer

from fsat.commands.eda import eda
from fsat.data.dataset import Source, inspect_dataset
from fsat.reports.eda_page import write_eda

pytestmark = pytest.mark.slow
SECTIONS = "classes waveforms lengths-per-label lengths repeated levels near-duplicates listen problems".split()
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
    """HTML and many scripts in labels and names; missing, empty and undecodable files; test clips of one length."""
    data = tmp_path_factory.mktemp("data") / "odd"
    make_dataset(data, classes=(EVIL, "Größe", "音", "one"), clips_per_class=3, test_clips=4)
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
def path(store, odd) -> Path:
    """The page as the run of `eda` keeps it."""
    run_id = eda(Source(odd, on_bad_clip="exclude"))
    return Path(mlflow.artifacts.download_artifacts(run_id=run_id)) / "eda.html"


def test_the_page_names_everything_that_is_unusual(path):
    page = Page(path)
    assert list(page.sections) == page.links == SECTIONS
    assert all(page.sections[name].tags["img"] == 1 for name in SECTIONS[:5])
    assert "b" not in {tag for section in page.sections.values() for tag in section.tags}
    clips = {clip[0]: clip[1] for clip in page.sections["listen"].clips}
    assert list(clips) == sorted([EVIL, "Größe", "音"])
    assert ["Größe", "not verified · <b>größe.wav · 0.30 s"] in page.sections["listen"].clips
    text = page.sections["waveforms"].text
    assert "The clips have 2 sampling rates: 8,000 Hz (12 clips) and 44,100 Hz (1 clip)." in text
    assert "All test clips are 4000 samples (0.50 s) long, exactly." in page.sections["repeated"].text
    text, rows = page.sections["problems"].text, page.sections["problems"].tables[0]
    summary = f"{MISSING + 3} training rows are excluded. 1 test clip of 4 cannot be used."
    assert summary in text
    assert f"the first 500 of {MISSING + 4} rows; all are in exclusions.csv" in text
    assert f"missing file ({MISSING} times)" in text
    assert len(rows) == 500
    names = {row[0] for row in rows}
    assert "gone_0400.wav" in names
    assert "gone_0599.wav" not in names
    assert len(read_csv(path.with_name("exclusions.csv"))) == MISSING + 4


def test_the_same_dataset_gives_the_same_page(path, odd, tmp_path):
    copy = shutil.copytree(odd, tmp_path / "elsewhere" / odd.name)
    _, unreadable = write_eda(inspect_dataset(copy, "exclude"), tmp_path)
    assert unreadable == []
    assert (tmp_path / "eda.html").read_bytes() == path.read_bytes()


@pytest.mark.browser
@pytest.mark.server
def test_in_a_browser_from_a_disk_and_from_mlflow(path, store, tmp_path):
    heard = write_wav(tmp_path / "silence.wav", np.zeros(8000))
    with chromium(heard) as browser, MlflowServer(tmp_path, f"sqlite:///{store}/mlflow.db") as server:
        visit = Visit(browser, path.as_uri())
        assert visit.page.evaluate(PLAY, "listen") == pytest.approx(0.35, abs=0.2)
        assert visit.page.evaluate(PLAY, "repeated") == pytest.approx(0.5, abs=0.1)
        assert visit.page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 300)")
        visit.page.get_by_role("link", name="Listen").click()
        assert visit.page.url.endswith("#listen")
        assert visit.page.evaluate("scrollY") > 500
        visit.page.set_viewport_size({"width": 360, "height": 740})  # a phone
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= 360
        assert visit.complaints == []
        assert visit.hosts == {""}

        (run,) = mlflow.search_runs(output_format="list")
        address = f"{server.uri}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}/artifacts"
        visit = Visit(browser, address, viewport={"width": 1200, "height": 900})
        visit.page.get_by_text("eda.html", exact=True).first.click()
        frame = visit.page.locator("iframe").element_handle().content_frame()
        frame.wait_for_selector("[data-section=problems]", state="attached")
        assert frame.evaluate("origin") == "null"  # MLflow sandboxes the page
        frame.get_by_role("link", name="Listen").click()
        frame.wait_for_function("scrollY > 500")
        assert frame.evaluate(PLAY, "listen") == pytest.approx(0.35, abs=0.2)
        # MLflow asks its own server for users, which this one does not have; the page sends no request at all
        assert [text for text in visit.complaints if "Failed to load resource" not in text] == []
        assert visit.hosts == {server.uri.removeprefix("http://")}
