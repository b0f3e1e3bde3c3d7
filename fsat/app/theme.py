"""Colours, fonts and layout of the page. Colours come from Gradio's theme where possible, for its dark mode."""

from __future__ import annotations

from types import ModuleType
from typing import Any

BLUE, DARK_BLUE = "#2a6f97", "#235d7f"

CSS = """
footer, .api-docs { display: none !important; }
.gradio-container { max-width: 960px !important; margin: 0 auto !important; }
#fsat-introduction h1 { font-size: 1.6rem; margin: 0.2rem 0; }
#fsat-introduction p, #fsat-end p { color: var(--body-text-color); }
#fsat-end p { font-size: 0.85rem; }
:is(#fsat-files, #fsat-record, #fsat-tag, .fsat-answer, .fsat-download, .fsat-scroll):focus-visible,
:is(#fsat-files, #fsat-record) :focus-visible { outline: 3px solid #2a6f97 !important; outline-offset: 2px; }
.fsat-answer { padding: 0.25rem; }
.fsat-answer h2 { font-size: 1.25rem; font-weight: 700; margin: 0.5rem 0; }
.fsat-answer p { margin: 0.4rem 0; overflow-wrap: anywhere; }
.fsat-answer table { width: 100%; border-collapse: collapse; margin: 0.6rem 0; }
.fsat-answer caption { text-align: left; font-size: 0.9rem; padding: 0.2rem 0; }
.fsat-answer :is(th, td) { text-align: left; padding: 0.3rem 0.5rem 0.3rem 0; vertical-align: top; }
.fsat-answer :is(th, td) { overflow-wrap: anywhere; }
.fsat-answer th[scope="row"] { font-weight: 600; }
.fsat-table :is(th, td) { border-bottom: 1px solid var(--border-color-primary); }
.fsat-bars th { width: 1%; white-space: nowrap; max-width: 45vw; overflow: hidden; text-overflow: ellipsis; }
.fsat-bars td:last-child { width: 3.5rem; text-align: right; font-variant-numeric: tabular-nums; }
.fsat-bar { vertical-align: middle !important; }
.fsat-bar span { display: block; min-width: 2px; height: 1rem; border-radius: 2px; background: #2a6f97; }
.fsat-pair { display: inline-block; margin-right: 1rem; font-variant-numeric: tabular-nums; }
.fsat-picture img { display: block; width: 100%; height: auto; border-radius: 4px; background: white; }
.fsat-scroll { max-height: 26rem; overflow: auto; }
.fsat-problem { color: #b3261e; }
.dark .fsat-problem { color: #ff9d94; }
a.fsat-download {
  display: inline-block; padding: 0.4rem 0.9rem; border-radius: 6px; background: #2a6f97; color: white !important;
  text-decoration: none;
}
"""


def theme(gr: ModuleType) -> Any:
    """Return Gradio's default theme in fsat's blue, with fonts that come with Gradio and have all letters."""
    sans, mono = (
        [gr.themes.LocalFont(f"IBM Plex {kind}", weights=(400, 700)), gr.themes.Font(fallback)]
        for kind, fallback in (("Sans", "sans-serif"), ("Mono", "monospace"))
    )
    button = "button_primary_background_fill"
    colours = {button: BLUE, f"{button}_dark": BLUE, f"{button}_hover": DARK_BLUE, f"{button}_hover_dark": DARK_BLUE}
    return gr.themes.Default(primary_hue="blue", font=sans, font_mono=mono).set(**colours)
