"""The page: its answers and its server in this process, then `python -m fsat app` in a real browser."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from audio_bytes import by_libsndfile, make, noise
from browser import Visit, chromium
from fsat_process import FsatProcess
from helpers import CLASSES, error_line, read_csv, tone, wait_for, write_wav
from servers import START_SECONDS, needs
from taggers import PLATT, SEVERAL, THRESHOLDS, register_tagger, write_tagger

from fsat.app.handlers import Limits, Sound, TagHandler, clock, render, render_tags
from fsat.app.pictures import Picture, picture
from fsat.app.server import Gate, serve
from fsat.commands.predict import predict
from fsat.errors import ConfigError, FsatError
from fsat.tagging import Tagger
from fsat.tagging.recordings import Segment, segments
from fsat.tagging.tables import Tags
from fsat.tracking.registry import open_tagger

URI = "models:/fsat@champion"
RATE = 8000
MAX_MB, MAX_SECONDS = 2, 10
HOSTILE_NAME = "<img src=x onerror=alert(1)> & 'co'.wav"


@pytest.fixture(scope="module")
def tagger(store) -> Tagger:
    """The champion, which tells three tones apart."""
    needs(find_spec("gradio"), "Gradio", "pip install '.[app]'")
    register_tagger(write_tagger(store / "tagger", n_folds=1))
    return open_tagger(URI)


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """Three tones, one with an unusual name, three files that cannot be used; and beside them longer sounds."""
    folder = tmp_path_factory.mktemp("clips") / "short"
    for frequency, name in ((300, "low.wav"), (450, "middle 01 – größe.wav"), (700, "high.wav")):
        write_wav(folder / name, tone(frequency, 0.4, RATE), RATE)
    (folder / HOSTILE_NAME).write_bytes(b"not a sound")
    (folder / "empty.wav").write_bytes(b"")
    write_wav(folder / "endless.flac", np.zeros(11 * 100, np.float32), 100)
    long = np.concatenate([tone(frequency, 1.5, RATE) for frequency in (300, 450, 700)])
    write_wav(folder.parent / "three.wav", long, RATE)
    write_wav(folder.parent / "large.wav", np.zeros(150 * RATE, np.float32), RATE)
    return folder


def expected(tagger: Tagger, path: Path) -> list[tuple[str, str]]:
    (row,), errors = tagger.scores([path])
    assert errors == [""]
    return [(tagger.labels[j], f"{row[j]:.6f}") for j in np.argsort(-row, kind="stable")]


def test_texts_from_outside_are_escaped() -> None:
    clip, failed = Tags("<b>\n\x00'>.wav", ["<i>L", "M"], [0.75, 0.25]), Tags("<u>", [], [], "<s>")
    drawn = Picture(b"1", b"2")
    for html in (render_tags([clip], 2, 1.0, drawn, [Segment(0, 1, "<i>L", 0.5)]), render_tags([failed], 2),
                 render_tags([clip, failed], 2), render("answer.html", message="<s>")):  # fmt: skip
        assert not [text for text in ("<b>", "<i>", "<s>", "<u>", "\x00", "'>.wav") if text in html]


def test_the_link_contains_the_table() -> None:
    html = render_tags([Tags('a,"b".wav', ["X", "Y, Z"], [0.5, 0.25]), Tags("c", [], [], "no samples in it")], 2)
    text = base64.b64decode(re.search(r'base64,([^"]+)"', html)[1]).decode()
    assert text == (
        "fname,label,score,label_2,score_2,error,note\n"
        '"a,""b"".wav",X,0.500000,"Y, Z",0.250000,,\n'
        "c,,,,,no samples in it,\n"
    )


def test_clock() -> None:
    times = {0: "0.0 s", 9.26: "9.3 s", 59.94: "59.9 s", 59.96: "1:00.0", 605.04: "10:05.0"}
    assert {seconds: clock(seconds) for seconds in times} == times


@pytest.mark.parametrize(("n_samples", "rate", "level"), [
    (1, 8000, 1.0), (3, 100, 1e-4), (800, 100, 1.0), (16000, 16000, 0.0), (32000 * 40, 32000, 1.0),
])  # fmt: skip
def test_any_sound_can_be_drawn(n_samples, rate, level) -> None:
    samples = (level * np.sin(np.arange(n_samples))).astype(np.float32)
    edges = np.linspace(0, n_samples / rate, 13)
    labels = [r"$\frac$", "a$b", "_hidden", "犬 の声", "हिन्दी", "x" * 300, *(f"label_{i}" for i in range(6, 12))]
    spans = [Segment(edges[i], edges[i + 1], label, 0.5) for i, label in enumerate(labels)]
    for png in picture(samples, rate, spans if n_samples > rate or n_samples == 1 else None):
        assert png.startswith(b"\x89PNG")
        assert len(png) < 300_000


def test_a_sound_gets_the_scores_of_the_tagger(tagger, clips) -> None:
    best = []
    for name in ("low.wav", "middle 01 – größe.wav", "high.wav"):
        html = TagHandler(tagger, Limits(), 3).answer([Sound(str(clips / name), name)])
        shown = re.findall(
            r'<tr><th scope="row" title="\w+"><bdi>(\w+)</bdi></th>.*?<data value="([0-9.]+)">', html, re.DOTALL
        )
        assert shown == expected(tagger, clips / name)
        assert f"<bdi>{name}</bdi>, 0.4 s" in html
        assert f'alt="Waveform and log-mel spectrogram of {name}"' in html
        assert "Tags over time" not in html
        best.append(shown[0][0])
    assert best == list(CLASSES)


def test_a_longer_sound_gets_tags_over_time(tagger, clips) -> None:
    path = clips.parent / "three.wav"
    html = TagHandler(tagger, Limits(), 3).answer([Sound(str(path), "three.wav")])
    rows = re.findall(r"<tr><td>(.*?)</td><td>(.*?)</td><td><bdi>(.*?)</bdi></td>\n<td><data .*?>(.*?)</data>", html)
    spans = list(segments(tagger.over_time(path, 0.25, 0.125), tagger.labels))
    assert rows == [(clock(s.start), clock(s.end), s.label, f"{s.score:.3f}") for s in spans]
    assert (spans[0].start, spans[-1].end) == (0, pytest.approx(4.5))
    assert {span.label for span in spans} == set(CLASSES)


def test_odd_sounds_are_shown_with_a_word(tagger, tmp_path) -> None:
    ogg = by_libsndfile("OGG", samples=noise(12))
    (tmp_path / "cut.ogg").write_bytes(ogg[: len(ogg) // 2])
    (tmp_path / "phone.m4a").write_bytes(make("m4a"))
    half = write_wav(tmp_path / "half silent.wav", np.concatenate([tone(300, 2, RATE), np.zeros(2 * RATE)]), RATE)
    silent = write_wav(tmp_path / "silent.wav", np.zeros(2 * RATE), RATE)
    handler = TagHandler(tagger, Limits(), 3)
    html = handler.answer([Sound(str(tmp_path / "cut.ogg"), "cut.ogg")])
    assert "cut off after " in html
    assert 'class="fsat-bars"' in html
    html = handler.answer([Sound(str(silent), "silent.wav")])
    assert '<span class="fsat-problem">silent</span>' in html
    assert 'class="fsat-bars"' not in html
    html = handler.answer([Sound(str(half), "half silent.wav")])
    assert "<td>silent</td>\n<td></td></tr>" in html
    html = handler.answer([Sound(str(path), path.name) for path in sorted(tmp_path.iterdir())])
    assert "4 sounds tagged." in html
    assert (html.count("fsat-pair"), html.count("fsat-problem")) == (3 * 3, 2)


def test_a_long_list_is_tagged_in_batches(tagger, clips) -> None:
    calls, sound = [], Sound(str(clips / "low.wav"), "low.wav")
    html = TagHandler(tagger, Limits(), 2).answer([sound] * 17, lambda done, total: calls.append((done, total)))
    assert calls == [(0, 17), (8, 17), (16, 17)]
    assert (html.count("<tr>"), html.count("fsat-pair")) == (18, 2 * 17)


def test_a_deleted_sound_and_none_are_reported(tagger, tmp_path) -> None:
    handler = TagHandler(tagger, Limits(), 3)
    assert "choose it again" in handler.answer([Sound(str(tmp_path / "gone.wav"), "gone.wav")])
    assert "No sound yet" in handler.answer([])


@pytest.fixture(scope="module")
def several(store) -> Tagger:
    """A tagger with thresholds; see `THRESHOLDS`."""
    return Tagger(write_tagger(store / "several", [SEVERAL], scaling=PLATT, thresholds=THRESHOLDS))


def test_a_sound_has_the_labels_above_the_thresholds_or_none(several, tmp_path) -> None:
    paths = [write_wav(tmp_path / f"{hz}.wav", tone(hz, 0.4, RATE), RATE) for hz in (300, 350, 900)]
    write_wav(tmp_path / "silent.wav", np.zeros(RATE), RATE)
    handler, sounds = TagHandler(several, Limits(), 1), [Sound(str(path), path.name) for path in paths]
    bar = (
        r'<tr( class="fsat-below")?><th scope="row" title="(\w+)">.*?<data value="([0-9.]+)">.*?</td><td>([0-9.]+)</td>'
    )
    for sound, labels in zip(sounds, (["Bell"], ["Bell", "Cello"], []), strict=True):
        html, ((scores,), _) = handler.answer([sound]), several.scores([sound.path])
        shown = re.findall(bar, html, re.DOTALL)
        assert [label for below, label, *_ in shown if not below] == labels
        for _, label, score, least in shown:
            j = CLASSES.index(label)
            assert (score, least) == (f"{scores[j]:.6f}", f"{THRESHOLDS[j]:.3f}")
        assert len(shown) == max(1, len(labels))  # the best of those below, if there is none
        assert ("no label</span>" in html) == ("it has none" in html) == (not labels)
    html = handler.answer([*sounds, Sound(str(tmp_path / "silent.wav"), "silent.wav")])
    assert "4 sounds tagged, 1 without a label." in html
    assert (html.count("fsat-pair"), html.count("no label</span>"), html.count("fsat-problem")) == (3, 1, 1)
    table = base64.b64decode(re.search(r'base64,([^"]+)"', html)[1]).decode().splitlines()
    assert table[0] == "fname,label,score,label_2,score_2,error,note"
    assert table[3:] == ["900.wav,,,,,,no label", "silent.wav,,,,,,silent"]


def test_labels_over_time_overlap(several, tmp_path) -> None:
    samples = np.concatenate([tone(hz, 2, RATE) for hz in (300, 350, 900)])
    path = write_wav(tmp_path / "long.wav", samples, RATE)
    html = TagHandler(several, Limits(), 1).answer([Sound(str(path), "long.wav")])
    rows = re.findall(r"<tr><td>(.*?) s</td><td>(.*?) s</td><td><bdi>(.*?)</bdi></td>", html)
    windows = several.over_time(path, 0.25, 0.125)
    spans = sorted(segments(windows, CLASSES, 3, np.float32(THRESHOLDS)), key=lambda span: span.start)
    assert rows == [(f"{span.start:.1f}", f"{span.end:.1f}", span.label) for span in spans]
    at_3_seconds = {span.label for span in spans if span.start < 3 < span.end}
    assert at_3_seconds == {"Bell", "Cello"}
    path = write_wav(tmp_path / "none.wav", tone(900, 2, RATE), RATE)
    assert '<td colspan="4">none</td>' in TagHandler(several, Limits(), 1).answer([Sound(str(path), "none.wav")])


def test_limits_are_checked() -> None:
    for text in ("max_mb=0: more than 0", "max_mb=inf: a number", "max_seconds=nan: a number",
                 "max_seconds=3601: at most 3600"):  # fmt: skip
        option, value, expected = re.split("=|: ", text)
        line = error_line(ConfigError, Limits, **{option: float(value)})
        assert re.match(f"{option}={value}.*: expected {expected}", line)


@pytest.fixture(scope="module")
def client(tagger, tmp_path_factory) -> Iterator:
    from starlette.testclient import TestClient

    from fsat.app.page import build, mount

    folder = os.path.realpath(tmp_path_factory.mktemp("uploads"))
    limits = Limits(MAX_MB, MAX_SECONDS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", folder)
        app, close_streams = mount(build(TagHandler(tagger, limits, 3), URI), MAX_MB)
        with TestClient(Gate(app, folder)) as client:
            yield client
            close_streams()


def ask(client, *paths: str) -> dict:
    """Have files tagged as Gradio's script does; return its last message."""
    files = [{"path": path, "orig_name": Path(path).name, "meta": {"_type": "gradio.FileData"}} for path in paths]
    body = {"data": [files], "fn_index": 0, "session_hash": f"session{abs(hash(paths))}"}
    assert client.post("/gradio_api/queue/join", json=body).status_code == 200
    stream = client.get("/gradio_api/queue/data", params={"session_hash": body["session_hash"]}).text
    (done,) = [line for line in stream.splitlines() if "process_completed" in line]
    return json.loads(done.removeprefix("data: "))


def test_an_upload_is_tagged(client, tagger, clips) -> None:
    """Fails if Gradio's private interfaces change."""
    sent = client.post("/gradio_api/upload", files={"files": ("low.wav", (clips / "low.wav").read_bytes())})
    done = ask(client, sent.json()[0])
    assert expected(tagger, clips / "low.wav")[0][1] in done["output"]["data"][0]
    assert client.post("/gradio_api/upload", files={"files": ("large.wav", bytes(2_100_000))}).status_code == 413


@pytest.mark.parametrize("target", ["/etc/passwd", "clip", "http://127.0.0.1:9/low.wav"])
def test_only_uploads_are_read(target, client, clips, capfd) -> None:
    folder = Path(os.environ["GRADIO_TEMP_DIR"])
    before = set(folder.rglob("*"))
    done = ask(client, str(clips / "low.wav") if target == "clip" else target)
    assert (done["success"], done["output"]) == (False, {"error": None})
    assert "uploaded" in capfd.readouterr().err  # Gradio refuses local files, fsat all others
    assert set(folder.rglob("*")) == before


@pytest.mark.parametrize("path", [
    "gradio_api/file=/etc/passwd", "gradio_api/info", "gradio_api/openapi.json", "openapi.json", "docs", "monitoring",
    "gradio_api/proxy=http://127.0.0.1/", "gradio_api/vibe-code/", "gradio_api/runs", "gradio_api/call/tag",
    "gradio_api/component_server", "file=/etc/passwd", "gradio_api/file=../../../../etc/passwd",
])  # fmt: skip
def test_gradio_s_other_paths_are_closed(path, client) -> None:
    assert client.get(f"/{path}").status_code == 404


def test_the_browser_may_load_nothing_from_other_hosts(client) -> None:
    page = client.get("/")
    policy = page.headers["Content-Security-Policy"]
    assert (page.status_code, "default-src 'self'" in policy, "http" in policy) == (200, True, False)


@pytest.mark.parametrize(("model", "host", "message"), [
    (URI, "no.such.host.invalid", r"host=no\.such\.host\.invalid, port=0: cannot be listened on \("),
    ("other@champion", "127.0.0.1", r"models:/other@champion: cannot be loaded.*mlflow run \. -e ensemble"),
])  # fmt: skip
def test_a_mistake_is_one_line(tagger, model, host, message) -> None:
    assert re.search(message, error_line(FsatError, serve, model, host, 0, Limits(), 3))


def test_without_gradio_it_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    line = error_line(ConfigError, serve, URI, "127.0.0.1", 0, Limits(), 3)
    assert line == "app: Gradio is not installed here; install it with `pip install '.[app]'` in the clone"


# --- a real browser --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def app(tagger, store) -> Iterator[FsatProcess]:
    """`python -m fsat app` on a free port; its address is the only output."""
    (store / "temporary").mkdir()
    environment = {"TMPDIR": str(store / "temporary"), "MLFLOW_TRACKING_URI": f"sqlite:///{store}/mlflow.db"}
    options = ["--port", 0, "--max_mb", MAX_MB, "--max_seconds", MAX_SECONDS]
    process = FsatProcess(["app", *options], cwd=store, env=environment)
    wait_for(lambda: process.stdout.endswith("\n") or process.returncode is not None, START_SECONDS)
    assert process.stdout.startswith("http://127.0.0.1:"), process.stderr
    yield process
    process.kill()


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator:
    with chromium(write_wav(tmp_path_factory.mktemp("heard") / "tone.wav", tone(300, 5, 48000), 48000)) as browser:
        yield browser


@pytest.fixture
def visit(app, browser) -> Iterator:
    """Opens windows on the page; at the end no console has a message and no request has left this machine."""
    opened, n_logged, address = [], len(app.stderr), app.stdout.strip()

    def visit(**window) -> Visit:
        opened.append(Visit(browser, address, **window))
        opened[-1].page.locator("#fsat-files input[type=file]").wait_for(state="attached")
        return opened[-1]

    yield visit
    for window in opened:
        language = window.page.locator("html").get_attribute("lang")
        assert (window.page.title(), language) == ("fsat: tags of sounds", "en")
        window.page.close()
        assert (window.complaints, window.hosts) == ([], {address.removeprefix("http://").rstrip("/")})
    assert "Traceback" not in app.stderr[n_logged:]


def choose(page, *paths: Path) -> None:
    page.set_input_files("#fsat-files input[type=file]", paths)


def answer(page):
    section = page.locator(".fsat-answer")
    section.wait_for(timeout=60_000)
    return section


def bars(page) -> list[tuple[str, str]]:
    rows = answer(page).locator(".fsat-bars tr")
    return [(row.locator("th").inner_text(), row.locator("data").get_attribute("value")) for row in rows.all()]


@pytest.mark.browser
def test_several_files_get_the_table_that_predict_writes(visit, clips, tmp_path) -> None:
    page = visit().page
    names = sorted(path.name for path in clips.iterdir())
    choose(page, *(clips / name for name in names))
    assert "3 sounds tagged, 3 could not be." in answer(page).inner_text()
    assert answer(page).locator("img").count() == 0  # a name is text, not markup
    with page.expect_download() as started:
        page.click("text=Download as CSV")
    started.value.save_as(tmp_path / "page.csv")
    assert started.value.suggested_filename == "tags.csv"
    predict(str(clips), tmp_path / "predict.csv", URI, workers="1")
    ours, theirs = ({row["fname"]: row for row in read_csv(tmp_path / f"{name}.csv")} for name in ("page", "predict"))
    assert sorted(ours) == names
    assert ours.pop("endless.flac")["error"] == f"longer than max_seconds={MAX_SECONDS}: 11 s"
    assert theirs.pop("endless.flac")
    assert ours == theirs
    problem = page.locator("td .fsat-problem").first
    for theme, colour in {"remove": "rgb(179, 38, 30)", "add": "rgb(255, 157, 148)"}.items():
        page.evaluate(f"document.body.classList.{theme}('dark')")
        assert problem.evaluate("element => getComputedStyle(element).color") == colour


@pytest.mark.browser
def test_nothing_is_wider_than_a_phone(visit, clips) -> None:
    fits, width = "document.documentElement.scrollWidth <= window.innerWidth", "image => image.naturalWidth"
    for paths in ([*clips.iterdir()], [clips.parent / "three.wav"]):
        page = visit(viewport={"width": 360, "height": 740}).page
        assert page.evaluate(fits)
        choose(page, *paths)
        answer(page)
        assert page.evaluate(fits)
    assert page.locator("img").evaluate(width) == 666  # the picture for a phone


@pytest.mark.browser
def test_the_page_by_keyboard(visit, clips, tagger) -> None:
    page = visit().page

    def tab_to(selector: str) -> None:
        focused = "selector => document.activeElement.matches(selector)"
        tabs = (page.keyboard.press("Tab") or page.evaluate(focused, selector) for _ in range(20))
        assert any(tabs), f"Tab does not lead to {selector}"
        page.wait_for_function("parseInt(getComputedStyle(document.activeElement).outlineWidth) >= 2")
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"

    page.locator("#fsat-record button").first.wait_for()
    nameless = """() => [...document.querySelectorAll('button, input, select, a')].filter(
        e => !(e.getAttribute('aria-label') || e.innerText || e.title || e.labels?.length)).map(e => e.outerHTML)"""
    assert page.evaluate(nameless) == []
    assert "common." not in page.locator(".gradio-container").inner_html()  # a text that Gradio lacks
    tab_to("#fsat-files [aria-label='Click to upload or drop files']")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(clips / "low.wav")
    assert bars(page) == expected(tagger, clips / "low.wav")
    assert answer(page).locator("img").evaluate("image => image.complete && image.naturalWidth") > 800
    tab_to("#fsat-tag")
    with page.expect_response("**/queue/join*") as asked:
        page.keyboard.press("Enter")
    assert asked.value.ok
    tab_to(".fsat-answer")
    tab_to(".fsat-download")


@pytest.mark.browser
def test_visitors_get_their_own_answers_of_files_and_recordings(visit, clips, tagger) -> None:
    names = ["low.wav", "high.wav"]
    *pages, recorder, large = [visit().page for _ in range(4)]
    with large.expect_response("**/upload_progress*"):  # Gradio asks for it, although the file is not sent
        choose(large, clips.parent / "large.wav")
    for page, name in zip(pages, names, strict=True):
        choose(page, clips / name)
    recorder.click("#fsat-record button:has-text('Record')")
    recorder.wait_for_timeout(1000)
    recorder.click("#fsat-record button:has-text('Stop')")
    for page, name in zip(pages, names, strict=True):
        assert bars(page) == expected(tagger, clips / name)
    assert len(bars(recorder)) == 3
    assert "recording.wav" in answer(recorder).inner_text()
    large.get_by_text("exceed the maximum allowed size").wait_for()
    assert "large.wav" in large.inner_text("body")
    assert large.locator(".fsat-answer").count() == 0


@pytest.mark.browser
def test_a_taken_port_and_ctrl_c(app, visit, store, clips) -> None:
    """Ctrl-C ends the server in order, although a visitor's stream is open. Must be the last test of the module."""
    port = int(app.stdout.strip().rstrip("/").rpartition(":")[2])
    cause = "cannot be listened on (Address already in use); choose another port, or 0 for any free one"
    line = error_line(FsatError, serve, URI, "127.0.0.1", port, Limits(), 3)
    assert line == f"host=127.0.0.1, port={port}: {cause}"

    page = visit().page
    choose(page, clips / "low.wav")
    answer(page)
    assert list((store / "temporary").glob("fsat-app-*/*/low.wav"))
    page.context.set_offline(True)  # no complaints about what follows
    app.send_signal(signal.SIGINT)
    assert (app.wait(timeout=START_SECONDS), app.stderr.splitlines()[-1]) == (0, "app: stopped by SIGINT")
    assert not list((store / "temporary").glob("fsat-app-*"))
