"""The page, made of Gradio's components. This is the only module that knows Gradio's private interfaces.

Gradio takes files in, calls a function, and shows the HTML that `fsat.app.handlers` makes. Pictures and tables
travel inside that HTML, so that the server need not store them. Colours come from Gradio's theme where possible, for
its dark mode.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsat import __version__
from fsat.app.handlers import Sound, TagHandler, render
from fsat.errors import ConfigError, FsatError, count

if TYPE_CHECKING:
    from types import ModuleType

    import gradio
    from fastapi import FastAPI

TITLE = "fsat: tags of sounds"
CSS = (Path(__file__).parent / "templates" / "page.css").read_text()
BLUE, DARK_BLUE = "#2a6f97", "#235d7f"

KEEP_SECONDS, SWEEP_SECONDS = 3600, 300
"""Uploaded files older than the first are deleted, in intervals of the second."""

MAX_WAITING = 64
"""Lists of sounds in the queue; further visitors are told to try again."""

TEXTS = {
    "common.upload": "Add files",  # missing in Gradio
    "upload_text.drop_file": "Drop sound files here",
    "upload_text.click_to_upload": "Choose files",
}
"""Texts of Gradio's components, by Gradio's keys."""

ON_LOAD = "element.setAttribute('aria-live', 'polite'); element.setAttribute('aria-busy', 'false')"


def import_gradio() -> ModuleType:
    """Return Gradio with its usage statistics switched off; raise `ConfigError` if it is not installed."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio
    except ModuleNotFoundError as error:
        message = "app: Gradio is not installed here; install it with `pip install '.[app]'` in the clone"
        raise ConfigError(message) from error
    return gradio


def build(handler: TagHandler, model: str) -> gradio.Blocks:
    """Return the page, which shows the handler's limits and the URI of the model."""
    gr = import_gradio()

    def tag(sounds: list[Sound], progress: Any = gr.Progress()) -> str:  # noqa: B008  (Gradio looks for this default)
        return handler.answer(sounds, lambda done, total: progress((done, total), unit="sounds"))

    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(SWEEP_SECONDS, KEEP_SECONDS)) as page:
        labels = count(len(handler.labels), "label")
        best = f"the best {handler.top_k} of {labels}" if handler.top_k < len(handler.labels) else labels
        if handler.may_be_none:
            best = f"those of {labels} that it seems to have, or none,"
        introduction = render("introduction.html", best=best, model=model, **vars(handler.limits))
        gr.HTML(introduction, elem_id="fsat-introduction")
        with gr.Row():
            with gr.Column(min_width=280):
                files = gr.File(label="Sound files", file_count="multiple", height=190, elem_id="fsat-files")
                button = gr.Button("Tag these files", variant="primary", elem_id="fsat-tag")
            with gr.Column(min_width=280):
                fixed = {"sources": ["microphone"], "type": "filepath", "editable": False, "buttons": []}
                recording = gr.Audio(label="Record a sound", elem_id="fsat-record", **fixed)
        answer = gr.HTML("", elem_id="fsat-answer", js_on_load=ON_LOAD, apply_default_css=False)
        minutes = round((KEEP_SECONDS + SWEEP_SECONDS) / 60)
        end = f"<p>fsat {__version__}. Sounds are deleted from the server within {minutes} minutes.</p>"
        gr.HTML(end, elem_id="fsat-end")
        _only_uploads(files, _uploaded_files)
        _only_uploads(recording, lambda payload: [Sound(payload.path, "recording.wav")] if payload else [])
        options = {"api_visibility": "private", "show_progress_on": [answer], "concurrency_id": "tag"}
        gr.on([files.upload, button.click], tag, [files], [answer], **options)
        recording.stop_recording(tag, [recording], [answer], **options)
        gr.on([files.clear, recording.clear], lambda: "", None, [answer], queue=False, api_visibility="private")
    page.queue(default_concurrency_limit=4, max_size=MAX_WAITING)
    return page


def mount(page: gradio.Blocks, max_mb: float) -> tuple[FastAPI, Callable[[], None]]:
    """Return the page as an ASGI application, and a function that closes the streams of its visitors."""
    from fastapi import FastAPI

    gr = import_gradio()
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    gr.mount_gradio_app(
        app, page, "/", max_file_size=int(1e6 * max_mb), show_error=False, footer_links=[], run_history=False,
        enable_monitoring=False, ssr_mode=False, mcp_server=False, pwa=False, css=CSS, theme=_theme(gr),
        i18n=gr.I18n(en=TEXTS),
    )  # fmt: skip
    page.has_launched = True  # else Gradio accepts paths of files that were not uploaded
    stop_event = app.routes[-1].app.stop_event

    def close_streams() -> None:
        page.is_running = False
        stop_event.set()

    return app, close_streams


def _only_uploads(component: Any, preprocess: Callable[[Any], list[Sound]]) -> None:
    """Make an input component accept uploaded files only, and return what `preprocess` makes of its payload.

    Gradio itself would download web addresses that a request names. A subclass is no alternative: Gradio would look for
    its JavaScript component.
    """
    from gradio.utils import get_upload_folder

    folder = Path(get_upload_folder()).resolve()

    async def check_upload(path: Any) -> str:
        if not Path(path).resolve().is_relative_to(folder):
            raise FsatError("only sounds that were uploaded to this page can be tagged")
        return str(path)

    component.async_move_resource_to_block_cache = check_upload
    component.preprocess = preprocess


def _uploaded_files(payload: Any) -> list[Sound]:
    """Return the files with their names in the browser, of which Gradio's own names lack characters."""
    named = [(file.path, file.orig_name or Path(file.path).name) for file in getattr(payload, "root", payload) or []]
    return [Sound(path, name.encode("utf-8", "replace").decode()) for path, name in named]  # no lone surrogates


def _theme(gr: ModuleType) -> Any:
    """Return Gradio's default theme in fsat's blue, with fonts that come with Gradio and have all letters."""
    sans, mono = (
        [gr.themes.LocalFont(f"IBM Plex {kind}", weights=(400, 700)), gr.themes.Font(fallback)]
        for kind, fallback in (("Sans", "sans-serif"), ("Mono", "monospace"))
    )
    button = "button_primary_background_fill"
    colours = {button: BLUE, f"{button}_dark": BLUE, f"{button}_hover": DARK_BLUE, f"{button}_hover_dark": DARK_BLUE}
    return gr.themes.Default(primary_hue="blue", font=sans, font_mono=mono).set(**colours)
