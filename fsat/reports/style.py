"""How fsat's figures look, and how they are written."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

DPI = 110
PAGE_WIDTH = 9.0
"""In inches, of figures that are about as wide as a page."""

BLUE, ORANGE, GREY = "#2a6f97", "#e07a2f", "#b8bfc6"

plt.rcParams.update({
    "axes.grid": True, "grid.color": "#e3e6e8", "axes.axisbelow": True, "axes.spines.top": False,
    "axes.spines.right": False, "axes.edgecolor": "#8a9299", "font.size": 10, "axes.titlesize": 12,
})  # fmt: skip


def lettering(text: str, longest: int = 24) -> str:
    """A label as figures show it: a long one is cut, and a dollar is no formula."""
    return (text if len(text) <= longest else text[: longest - 1] + "…").replace("$", r"\$")


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG and let go of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with quiet_glyphs():
        figure.savefig(path, dpi=DPI, bbox_inches="tight")
    plt.close(figure)


@contextmanager
def quiet_glyphs() -> Iterator[None]:
    """Labels in scripts that the font lacks show as boxes, and nothing is said of it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")
        yield
