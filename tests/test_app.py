"""The page in a real browser: what `predict` says of a file, the page says too."""

import base64
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from browser import Visit, chromium
from conftest import ROOT
from helpers import CLASSES, make_dataset, one_line, read_csv, tone, write_wav
from servers import OPENER, START_SECONDS, needs

from fsat.app import views
from fsat.app.handlers import Desk, Limits, Sound
from fsat.app.middleware import OPEN
from fsat.app.pictures import picture
from fsat.app.server import serve
from fsat.commands.predict import predict
from fsat.config import Config
from fsat.errors import ConfigError, FsatError, RunError
from fsat.metrics.segments import Segment, segments
from fsat.tagging.tables import Tags
from fsat.tracking.registry import open_tagger

pytestmark = pytest.mark.browser

URI = "models:/fsat@champion"
RATE = 8000
TINY = {"model": "conv2d_mfcc", "sampling_rate": RATE, "audio_duration": 1, "n_folds": 2, "max_epochs": 6,
        "batch_size": 8, "patience": 6}  # fmt: skip
MAX_MB, MAX_SECONDS = 0.2, 10
EVIL = "<img src=x onerror=alert(1)> & 'co'.wav"
PHONE = {"viewport": {"width": 360, "height": 740}}


@pytest.fixture(scope="module")
def tagger(store, tmp_path_factory):
    """A registered tagger of three tones."""
    needs(find_spec("gradio"), "Gradio", "pip install '.[app]'")
    from fsat.commands.ensemble import ensemble
    from fsat.commands.train import train_fold
    from fsat.data.source import Source

    data = make_dataset(tmp_path_factory.mktemp("data") / "tones", clips_per_class=8, test_clips=0)
    run_id = train_fold(Source(data), Config.resolve(TINY), 0)
    ensemble([run_id], [], "fsat", "auto", allow_incomplete=True)
    return open_tagger(URI)


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """Sounds to tag: three tones, one of which has an unusual name, three that cannot be used, and a longer one."""
    folder = tmp_path_factory.mktemp("clips")
    frequencies = np.geomspace(300, 0.4 * RATE, len(CLASSES))
    for frequency, name in zip(frequencies, ("low.wav", "middle 01 – größe.wav", "high.wav"), strict=True):
        write_wav(folder / name, tone(frequency, 0.4, RATE), RATE)
    (folder / EVIL).write_bytes(b"not a sound")
    (folder / "empty.wav").write_bytes(b"")
    write_wav(folder / "endless.flac", np.zeros(11 * 100, np.float32), 100)
    apart = folder.parent / "apart"
    long = np.concatenate([tone(frequency, 1.5, RATE) for frequency in frequencies])
    write_wav(apart / "three.wav", long, RATE)
    write_wav(apart / "large.wav", np.zeros(15 * RATE, np.float32), RATE)
    return folder


class App:
    """`python -m fsat app` as a user runs it, on a port of its own."""

    def __init__(self, folder: Path, temporary: Path) -> None:
        temporary.mkdir(exist_ok=True)
        self._log = temporary / "log"
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary),
                       "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}  # fmt: skip
        command = [sys.executable, "-m", "fsat", "app", "--port", "0", "--max_mb", str(MAX_MB), "--max_seconds",
                   str(MAX_SECONDS)]  # fmt: skip
        with open(self._log, "w") as log:
            self.process = subprocess.Popen(
                command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log,
                text=True, start_new_session=True,
            )  # fmt: skip
        self.address = self.process.stdout.readline().strip()  # nothing but this is written there
        assert self.address.startswith("http://127.0.0.1:"), self.log

    @property
    def log(self) -> str:
        return self._log.read_text()


@pytest.fixture(scope="module")
def app(tagger, store):
    running = App(store, store / "temporary")
    try:
        yield running
        running.process.terminate()
        assert running.process.wait(timeout=START_SECONDS) == 0
        assert running.log.splitlines()[-1] == "app: stopped by SIGTERM"
    finally:
        running.process.kill()


@pytest.fixture(scope="module")
def browser(clips, tmp_path_factory):
    heard = write_wav(tmp_path_factory.mktemp("heard") / "tone.wav", tone(300, 5, 48000), 48000)
    with chromium(heard) as found:
        yield found


@pytest.fixture
def visit(app, browser):
    """Opens windows on the page; at the end nobody may have complained, and nothing may have left this machine."""
    opened, said = [], len(app.log)

    def visit(**window) -> Visit:
        opened.append(Visit(browser, app.address, **window))
        opened[-1].page.locator("#fsat-files input[type=file]").wait_for(state="attached")
        return opened[-1]

    yield visit
    for one in opened:
        assert one.page.title() == "fsat: tags of sounds"
        assert one.page.locator("html").get_attribute("lang") == "en"
        one.page.close()
        assert one.complaints == []
        assert one.hosts == {app.address.removeprefix("http://").rstrip("/")}
    assert "Traceback" not in app.log[said:]


def choose(page, *paths: Path) -> None:
    page.set_input_files("#fsat-files input[type=file]", paths)


def answer(page):
    found = page.locator(".fsat-answer")
    found.wait_for(timeout=60_000)
    return found


def bars(page) -> list[tuple[str, str]]:
    """Labels and scores that are shown for one sound."""
    rows = answer(page).locator(".fsat-bars tr")
    return [(row.locator("th").inner_text(), row.locator("data").get_attribute("value")) for row in rows.all()]


def expected(tagger, path: Path, top: int = 3) -> list[tuple[str, str]]:
    scores, errors = tagger.scores([path])
    assert errors == [""]
    return [(tagger.labels[j], f"{scores[0][j]:.6f}") for j in np.argsort(-scores[0], kind="stable")[:top]]


def test_a_file_gets_the_tags_that_the_tagger_gives(visit, tagger, clips):
    best = []
    for name in ("low.wav", "high.wav"):
        page = visit().page
        choose(page, clips / name)
        shown = bars(page)
        assert shown == expected(tagger, clips / name)
        assert f"{name}, 0.4 s" in answer(page).inner_text()
        image = answer(page).locator("img")
        assert image.get_attribute("alt") == f"Waveform and log-mel spectrogram of {name}"
        assert image.evaluate("image => image.complete && image.naturalWidth") > 800
        best.append(shown[0][0])
    assert best == [CLASSES[0], CLASSES[2]]  # which the tagger does know


def test_a_bad_file_gets_a_message_with_its_name(visit, clips, app):
    page = visit().page
    choose(page, clips / EVIL)
    text = answer(page).inner_text()
    assert f"{EVIL}: unreadable audio" in text
    assert "Traceback" not in text
    assert str(app.process.pid) not in text
    assert "/" not in text
    assert answer(page).locator("img").count() == 0  # the name is text and not markup


def test_several_files_get_the_table_that_predict_writes(visit, clips, tagger, tmp_path):
    page = visit().page
    names = sorted(path.name for path in clips.iterdir())
    choose(page, *(clips / name for name in names))
    assert "3 sounds tagged, 3 could not be." in answer(page).inner_text()
    assert answer(page).locator("img").count() == 0
    with page.expect_download() as started:
        page.click("text=Download as CSV")
    started.value.save_as(tmp_path / "page.csv")
    assert started.value.suggested_filename == "tags.csv"

    predict(str(clips), tmp_path / "predict.csv", URI, workers="1")
    ours = sorted(read_csv(tmp_path / "page.csv"), key=lambda row: row["fname"])
    theirs = sorted(read_csv(tmp_path / "predict.csv"), key=lambda row: row["fname"])
    assert [row["fname"] for row in ours] == names
    too_long = next(row for row in ours if row["fname"] == "endless.flac")
    assert too_long["error"] == f"longer than max_seconds={MAX_SECONDS}: 11 s"
    assert [row for row in ours if row is not too_long] == [row for row in theirs if row["fname"] != "endless.flac"]
    cells = [row.inner_text().split("\t") for row in answer(page).locator("tbody tr").all()]
    for row, (name, told) in zip(ours, cells, strict=True):
        assert name == row["fname"]
        pairs = zip(row["label"].split(), row["scores"].split(), strict=True)
        assert told.split() == (row["error"].split() or [x for a, b in pairs for x in (a, f"{float(b):.3f}")])


def test_a_longer_sound_gets_tags_over_time(visit, clips, tagger):
    page = visit().page
    path = clips.parent / "apart" / "three.wav"
    choose(page, path)
    assert bars(page) == expected(tagger, path)
    rows = [row.locator("td").all_inner_texts() for row in answer(page).locator(".fsat-times tbody tr").all()]
    found = list(segments(tagger.over_time(path, 1.0, 0.5), tagger.labels))
    assert rows == [[views.clock(s.start), views.clock(s.end), s.label, f"{s.score:.3f}"] for s in found]
    assert found[0].start == 0
    assert found[-1].end == pytest.approx(4.5)
    assert {s.label for s in found} == set(CLASSES)


@pytest.mark.parametrize("many", [False, True], ids=["one", "several"])
def test_nothing_is_wider_than_a_phone(many, visit, clips):
    page = visit(**PHONE).page
    fits = "document.documentElement.scrollWidth <= window.innerWidth"
    assert page.evaluate(fits)
    choose(page, *(clips.iterdir() if many else [clips.parent / "apart" / "three.wav"]))
    answer(page)
    assert page.evaluate(fits)
    if not many:  # the picture that is made for it
        assert page.locator("img").evaluate("image => image.naturalWidth") == 666


def test_all_of_it_by_keyboard(visit, clips, tagger):
    page = visit().page

    def tab_to(selector: str) -> None:
        for _ in range(20):
            page.keyboard.press("Tab")
            if page.evaluate("wanted => document.activeElement.matches(wanted)", selector):
                break
        else:
            raise AssertionError(f"Tab does not lead to {selector}")
        page.wait_for_function("parseInt(getComputedStyle(document.activeElement).outlineWidth) >= 2")
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"

    tab_to("#fsat-files [aria-label='Click to upload or drop files']")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(clips / "low.wav")
    assert bars(page) == expected(tagger, clips / "low.wav")
    tab_to("#fsat-tag")
    with page.expect_response("**/queue/join*") as asked:
        page.keyboard.press("Enter")
    assert asked.value.ok
    tab_to(".fsat-answer")
    tab_to(".fsat-download")


def test_every_input_has_a_name(visit):
    page = visit().page
    page.locator("#fsat-record button").first.wait_for()
    nameless = """() => [...document.querySelectorAll('button, input, select, a')].filter(
        e => !(e.getAttribute('aria-label') || e.innerText || e.title || e.labels?.length)).map(e => e.outerHTML)"""
    assert page.evaluate(nameless) == []
    assert "common." not in page.locator(".gradio-container").inner_html()  # a text that Gradio did not find


def test_a_recording_is_tagged(visit):
    page = visit().page
    page.click("#fsat-record button:has-text('Record')")
    page.wait_for_timeout(1500)
    page.click("#fsat-record button:has-text('Stop')")
    assert len(bars(page)) == 3
    assert "recording.wav" in answer(page).inner_text()
    assert answer(page).locator("img").count() == 1


def test_a_large_file_is_refused_before_it_is_sent(visit, clips):
    page = visit().page
    choose(page, clips.parent / "apart" / "large.wav")
    page.get_by_text("exceed the maximum allowed size").wait_for()
    assert "large.wav" in page.inner_text("body")
    page.wait_for_timeout(4000)  # for as long, Gradio's script asks how far it has come
    assert page.locator(".fsat-answer").count() == 0


def test_visitors_get_their_own_answers(visit, clips, tagger):
    names = ["low.wav", "high.wav", "low.wav"]
    pages = [visit().page for _ in names]
    for page, name in zip(pages, names, strict=True):
        choose(page, clips / name)
    for page, name in zip(pages, names, strict=True):
        assert bars(page) == expected(tagger, clips / name)


@pytest.mark.parametrize(
    "path",
    ["gradio_api/file=/etc/passwd", "gradio_api/info", "gradio_api/openapi.json", "openapi.json", "docs", "monitoring",
     "gradio_api/proxy=http://127.0.0.1/", "gradio_api/vibe-code/", "gradio_api/runs", "gradio_api/call/tag",
     "gradio_api/component_server", "file=/etc/passwd", "gradio_api/file=../../../../etc/passwd"],
)  # fmt: skip
def test_gradios_other_addresses_are_closed(path, app):
    assert not OPEN.fullmatch(f"/{path}")
    with pytest.raises(urllib.error.HTTPError) as refused:
        OPENER.open(app.address + path, timeout=30)
    assert refused.value.code == 404


@pytest.mark.parametrize("target", ["passwd", "clip", "web"])
def test_only_what_was_uploaded_is_read(target, app, clips, store):
    path = {"passwd": "/etc/passwd", "clip": str(clips / "low.wav"), "web": "http://127.0.0.1:9/low.wav"}[target]
    before = set((store / "temporary").rglob("*"))
    files = [{"path": path, "orig_name": "low.wav", "meta": {"_type": "gradio.FileData"}}]
    body = {"data": [files], "fn_index": 0, "session_hash": f"asked{target}"}
    asked = urllib.request.Request(
        f"{app.address}gradio_api/queue/join", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    OPENER.open(asked, timeout=30).close()
    done = None
    with OPENER.open(f"{app.address}gradio_api/queue/data?session_hash=asked{target}", timeout=30) as said:
        for line in said:
            if b"process_completed" in line:
                done = json.loads(line.removeprefix(b"data: "))
            if b"close_stream" in line:
                break
    assert done["success"] is False
    assert done["output"] == {"error": None}
    assert "uploaded" in app.log  # Gradio says it of local files, fsat of all others
    assert set((store / "temporary").rglob("*")) == before


def test_the_browser_is_told_to_load_nothing_from_elsewhere(app):
    with OPENER.open(app.address, timeout=30) as page:
        policy = page.headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "http" not in policy


def test_ctrl_c_ends_it_in_order(tagger, store, browser, clips, tmp_path):
    running = App(store, tmp_path / "temporary")
    try:
        visit = Visit(browser, running.address)  # whose stream stays open
        choose(visit.page, clips / "low.wav")
        answer(visit.page)
        assert list((tmp_path / "temporary").glob("fsat-app-*/*/low.wav"))
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(timeout=START_SECONDS) == 0
        visit.page.close()
    finally:
        running.process.kill()
    assert running.log == "app: stopped by SIGINT\n"
    assert not list((tmp_path / "temporary").glob("fsat-app-*"))


def test_a_taken_port_is_one_line(app):
    port = app.address.rstrip("/").rpartition(":")[2]
    with pytest.raises(FsatError) as refused:
        serve(URI, "127.0.0.1", int(port), Limits(), 3)
    cause = "cannot be listened on (Address already in use); choose another port, or 0 for any that is free"
    assert one_line(refused.value) == f"host=127.0.0.1, port={port}: {cause}"


def test_a_host_that_is_elsewhere_is_one_line():
    with pytest.raises(FsatError) as refused:
        serve(URI, "no.such.host.invalid", 0, Limits(), 3)
    assert one_line(refused.value).startswith("host=no.such.host.invalid, port=0: cannot be listened on (")


def test_without_a_model_it_says_how_to_make_one(tagger):
    with pytest.raises(RunError) as refused:
        serve("other@champion", "127.0.0.1", 0, Limits(), 3)
    line = one_line(refused.value)
    assert "model=models:/other@champion: cannot be loaded" in line
    assert "mlflow run . -e ensemble" in line


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [("max_mb", "0", "expected a number of MB, more than 0"), ("max_mb", "inf", "expected a number of MB, more than 0"),
     ("max_seconds", "nan", "expected more than 0 s, at most 3600"),
     ("max_seconds", "3601", "expected more than 0 s, at most 3600")],
)  # fmt: skip
def test_limits_are_checked(option, value, expected):
    with pytest.raises(ConfigError, match=f"{option}={value}: {expected}"):
        Limits(**{option: float(value)})


def test_without_gradio_it_says_what_to_install(tmp_path):
    without = "import sys; sys.modules['gradio'] = None; from fsat.cli import main; main(['app'])"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", without], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stdout == ""
    line = "app: Gradio is not installed here; install it with `pip install '.[app]'` in the clone"
    assert done.stderr == f"fsat: error: {line}\n"


def test_what_comes_from_outside_is_escaped():
    bad, worse = Tags("<b>\n\x00.wav", ["<i>L", "M"], [0.75, 0.25]), Tags("<u>", [], [], "<s>")
    shown = views.Picture(b"1", b"2").html("'><b>")
    made = [views.one(bad, 1.0, None, [Segment(0, 1, "<i>L", 0.5)]), views.one(worse, 0, None, None),
            views.several([bad, worse]), views.notice("<s>"), shown]  # fmt: skip
    for html in made:
        assert not [tag for tag in ("<b>", "<i>", "<s>", "<u>", "\x00") if tag in html]
    assert "alt='&#x27;&gt;&lt;b&gt;'>" in shown


def test_a_table_that_holds_itself():
    sounds = [Tags('a,"b".wav', ["X", "Y"], [0.5, 0.25]), Tags("c", [], [], "no samples in it")]
    link = views.download(sounds)
    text = base64.b64decode(link.partition("base64,")[2].partition("'")[0]).decode()
    assert text == 'fname,label,scores,error\n"a,""b"".wav",X Y,0.500000 0.250000,\nc,,,no samples in it\n'


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0.0 s"), (9.26, "9.3 s"), (59.94, "59.9 s"), (59.96, "1:00.0"), (605.04, "10:05.0")]
)
def test_clock(seconds, text):
    assert views.clock(seconds) == text


@pytest.mark.parametrize(("n_samples", "rate"), [(1, 8000), (3, 100), (800, 100), (16000, 16000), (32000 * 40, 32000)])
@pytest.mark.parametrize("level", [0.0, 1e-4, 1.0])
def test_any_sound_can_be_drawn(n_samples, rate, level):
    samples = (level * np.sin(np.arange(n_samples))).astype(np.float32)
    labels = [f"label_{i}" for i in range(12)]
    spans = [Segment(i / 12 * n_samples / rate, (i + 1) / 12 * n_samples / rate, label, 0.5)
             for i, label in enumerate(labels)]  # fmt: skip
    for one in (spans, None):
        drawn = picture(samples, rate, one)
        for png in (drawn.wide, drawn.narrow):
            assert png.startswith(b"\x89PNG")
            assert len(png) < 300_000


def test_a_sound_that_was_deleted_is_said_to_be_gone(tagger, tmp_path):
    desk = Desk(tagger, Limits(), 3)
    assert "choose it again" in desk.answer([Sound(str(tmp_path / "gone.wav"), "gone.wav")])
    assert "No sound yet" in desk.answer([])


def test_progress_is_told_and_parts_are_small(tagger, clips):
    told = []
    sound = Sound(str(clips / "low.wav"), "low.wav")
    html = Desk(tagger, Limits(), 2).answer([sound] * 17, lambda done, total: told.append((done, total)))
    assert told == [(0, 17), (8, 17), (16, 17)]
    assert html.count("<tr>") == 18
    assert html.count("fsat-pair") == 2 * 17
