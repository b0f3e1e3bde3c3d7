"""The page itself, made of Gradio's parts.

Gradio is kept to what the page needs: it takes files in, calls a function, and shows HTML that `fsat.app.views` makes.
Pictures and tables travel inside that HTML, so that nothing has to be kept on the server for them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsat import __version__
from fsat.app.handlers import Desk, Limits, Sound
from fsat.app.theme import CSS, theme
from fsat.errors import ConfigError, FsatError, count

if TYPE_CHECKING:
    import asyncio
    from types import ModuleType

    import gradio
    from fastapi import FastAPI

TITLE = "fsat: tags of sounds"
KEEP_SECONDS = 3600
SWEEP_SECONDS = 300
"""How long an uploaded file is kept at least, and how often those that are older are deleted."""

WAITING = 64
"""Lists of sounds that may wait for their turn; whoever comes after is told to try again."""

RECORDING = "recording.wav"

TEXTS = {
    "common.upload": "Add files",  # which Gradio lacks
    "upload_text.drop_file": "Drop sound files here",
    "upload_text.click_to_upload": "Choose files",
}
"""What Gradio's parts say, by its own names of these texts."""

ANNOUNCE = "element.setAttribute('aria-live', 'polite'); element.setAttribute('aria-busy', 'false')"


def import_gradio() -> ModuleType:
    """Gradio, which then tells nobody that it is used.

    Raises:
        ConfigError: it is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio
    except ModuleNotFoundError as error:
        raise ConfigError(
            "app: Gradio is not installed here; install it with `pip install '.[app]'` in the clone"
        ) from error
    return gradio


def build(desk: Desk, limits: Limits, model: str) -> gradio.Blocks:
    """The page.

    Args:
        desk: answers.
        limits: that it keeps to, to be shown.
        model: URI of the tagger, to be shown.
    """
    gr = import_gradio()

    def tag(sounds: list[Sound], progress: Any = gr.Progress()) -> str:  # noqa: B008  (Gradio's way)
        return desk.answer(sounds, lambda done, total: progress((done, total), unit="sounds"))

    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(SWEEP_SECONDS, KEEP_SECONDS)) as page:
        gr.HTML(_introduction(desk.labels, desk.top_k, limits, model), elem_id="fsat-introduction")
        with gr.Row():
            with gr.Column(min_width=280):
                files = gr.File(label="Sound files", file_count="multiple", height=190, elem_id="fsat-files")
                _only_uploads(files, _sounds)
                button = gr.Button("Tag these files", variant="primary", elem_id="fsat-tag")
            with gr.Column(min_width=280):
                recording = gr.Audio(
                    label="Record a sound", sources=["microphone"], type="filepath", editable=False, buttons=[],
                    elem_id="fsat-record",
                )  # fmt: skip
                _only_uploads(recording, _recorded)
        answer = gr.HTML("", elem_id="fsat-answer", js_on_load=ANNOUNCE, apply_default_css=False)
        gr.HTML(
            f"<p>fsat {__version__}. Sounds are deleted from the server within {_within()}.</p>", elem_id="fsat-end"
        )
        how = {"outputs": [answer], "api_visibility": "private", "show_progress_on": [answer], "concurrency_id": "tag"}
        gr.on([files.upload, button.click], tag, [files], **how)
        recording.stop_recording(tag, [recording], **how)
        gr.on([files.clear, recording.clear], lambda: "", None, [answer], queue=False, api_visibility="private")
    page.queue(default_concurrency_limit=4, max_size=WAITING)
    return page


def mount(page: gradio.Blocks, limits: Limits) -> tuple[FastAPI, asyncio.Event]:
    """The page as an ASGI application, and what ends the streams that its visitors hold open."""
    from fastapi import FastAPI

    gr = import_gradio()
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    gr.mount_gradio_app(
        app, page, "/", max_file_size=limits.max_bytes, show_error=False, footer_links=[], run_history=False,
        enable_monitoring=False, ssr_mode=False, mcp_server=False, pwa=False, css=CSS, theme=theme(gr),
        i18n=gr.I18n(en=TEXTS),
    )  # fmt: skip
    page.has_launched = True  # only then does Gradio ask whether a file that is named to it was uploaded
    return app, app.routes[-1].app.stop_event


def _only_uploads(component: Any, preprocess: Callable[[Any], Any]) -> None:
    """Make an input give what `preprocess` makes of Gradio's payload, and take nothing but what was uploaded here.

    Gradio itself would fetch addresses of the web that a request names.
    """
    from gradio.utils import get_upload_folder

    folder = Path(get_upload_folder()).resolve()

    async def uploaded(path: Any) -> str:
        if not Path(path).resolve().is_relative_to(folder):
            raise FsatError("only sounds that were uploaded to this page can be tagged")
        return str(path)

    component.async_move_resource_to_block_cache = uploaded
    component.preprocess = preprocess  # a class of its own would be looked for among JavaScript components


def _sounds(payload: Any) -> list[Sound]:
    """Files as the browser names them: Gradio's own names lack characters."""
    given: Sequence[Any] = getattr(payload, "root", payload) or []
    named = ((one.path, one.orig_name or os.path.basename(one.path)) for one in given)
    return [Sound(path, name.encode("utf-8", "replace").decode()) for path, name in named]  # half a character is none


def _recorded(payload: Any) -> list[Sound]:
    return [Sound(payload.path, RECORDING)] if payload else []


def _introduction(labels: Sequence[str], top_k: int, limits: Limits, model: str) -> str:
    best = f"the best {top_k} of {count(len(labels), 'label')}" if top_k < len(labels) else count(len(labels), "label")
    return (
        "<h1>Tag sounds</h1><p>Drop or choose sound files (WAV, FLAC, OGG or MP3), or record a sound. Each gets "
        f"{best} from <code>{escape(model)}</code>. A file may be up to {limits.max_mb:g} MB large and "
        f"{limits.max_seconds:g} s long.</p>"
    )


def _within() -> str:
    return f"{round((KEEP_SECONDS + SWEEP_SECONDS) / 60)} minutes"
