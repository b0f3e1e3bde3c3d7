"""Waveform, log-mel spectrogram and tags over time in one picture, for a wide window and for a phone.

Conventions: times in seconds, frequencies in kHz on a mel scale, levels in dB below the loudest point. Labels have
the colours of Okabe and Ito (2008), distinguishable with any colour vision.
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from fsat.data.logmel import FLOOR_DB, band_centres, logmel
from fsat.model_presets import LOGMEL_HOP
from fsat.reports.plots import BLUE, GREY, figure_text, ignore_missing_glyphs
from fsat.tagging.recordings import Segment

N_MELS = 96
MAX_COLUMNS = 1000
"""Columns of a picture; for a longer sound, each column shows the loudest of several frames."""

COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#f0e442")
TICKS_KHZ = (0.1, 0.5, 1, 2, 4, 8, 16)


class Picture(NamedTuple):
    """A picture as PNG, for a wide window and for a phone; the browser shows the one that fits."""

    wide: bytes
    narrow: bytes


class _Shape(NamedTuple):
    """Width, height without and with tags over time, in inches; resolution in dots per inch."""

    width: float
    height: float
    height_with_tags: float
    dpi: int


WIDE, NARROW = _Shape(8.4, 3.9, 4.8, 110), _Shape(3.7, 3.7, 4.8, 180)


def picture(samples: np.ndarray, sampling_rate: int, spans: Sequence[Segment] | None) -> Picture:
    """Draw float32 (n_samples,) in about [-1, 1] at a rate in Hz, with tags over time unless `spans` is None."""
    hop = max(1, round(LOGMEL_HOP * sampling_rate))
    levels = logmel(samples, sampling_rate, N_MELS, hop)
    if len(levels) > MAX_COLUMNS:
        levels = np.maximum.reduceat(levels, _edges(len(levels))[:-1], axis=0)
    levels = levels - (float(levels.max()) or -FLOOR_DB)  # silence is at the floor
    return Picture(*(_draw(samples, sampling_rate, levels, spans, shape) for shape in (WIDE, NARROW)))


def _draw(
    samples: np.ndarray, sampling_rate: int, levels: np.ndarray, spans: Sequence[Segment] | None, shape: _Shape
) -> bytes:
    height, ratios = (shape.height, [1, 2]) if spans is None else (shape.height_with_tags, [1, 2, 0.3])
    figure = Figure(figsize=(shape.width, height), dpi=shape.dpi, layout="constrained")
    grid = figure.subplots(len(ratios), 2, width_ratios=[1, 0.025], height_ratios=ratios, squeeze=False)
    seconds = len(samples) / sampling_rate
    _draw_waveform(grid[0, 0], samples, seconds)
    figure.colorbar(_draw_spectrogram(grid[1, 0], levels, sampling_rate, seconds), cax=grid[1, 1])
    grid[1, 1].set_title("dB", fontsize="medium")
    for axes in np.delete(grid[:, 1], 1):
        axes.set_axis_off()
    if spans is not None:
        _draw_tags(grid[2, 0], spans)
    for axes in grid[:, 0]:
        axes.set_xlim(0, seconds)
        axes.tick_params(labelbottom=axes is grid[-1, 0])
    grid[-1, 0].set_xlabel("time in s")
    figure.align_ylabels(grid[:, 0])
    stream = io.BytesIO()
    with ignore_missing_glyphs():
        figure.savefig(stream, format="png")
    return stream.getvalue()


def _draw_waveform(axes: Axes, samples: np.ndarray, seconds: float) -> None:
    """Draw the lowest and the highest sample of each column."""
    edges = _edges(len(samples))
    low, high = np.minimum.reduceat(samples, edges[:-1]), np.maximum.reduceat(samples, edges[:-1])
    times = (edges[:-1] + edges[1:]) / 2 / len(samples) * seconds
    axes.fill_between(times, low, high, color=BLUE, linewidth=0.6, edgecolor=BLUE)
    peak = max(1e-3, float(np.abs(samples).max()))
    axes.set_ylim(-1.05 * peak, 1.05 * peak)
    axes.set_ylabel("amplitude")


def _draw_spectrogram(axes: Axes, levels: np.ndarray, sampling_rate: int, seconds: float) -> AxesImage:
    options: dict[str, Any] = {"aspect": "auto", "interpolation": "nearest", "vmin": FLOOR_DB, "vmax": 0}
    image = axes.imshow(levels.T, "magma", origin="lower", extent=(0, seconds, -0.5, N_MELS - 0.5), **options)
    centres = band_centres(sampling_rate, N_MELS)
    ticks = [khz for khz in TICKS_KHZ if centres[0] < 1000 * khz < centres[-1]]
    axes.set_yticks(np.interp([1000 * khz for khz in ticks], centres, np.arange(N_MELS)), [f"{khz:g}" for khz in ticks])
    axes.set_ylabel("frequency in kHz")
    axes.grid(False)
    return image


def _draw_tags(axes: Axes, spans: Sequence[Segment]) -> None:
    """Draw a bar with a colour for each label, none for silence; the labels that last shortest share grey.

    Where labels overlap in time, each colour has a row of its own.
    """
    spans = [span for span in spans if span.label]
    durations: defaultdict[str, float] = defaultdict(float)
    for span in spans:
        durations[span.label] += span.end - span.start
    labels = sorted(durations, key=lambda label: -durations[label])
    colours = dict(zip(labels, COLOURS, strict=False))
    by_start = sorted(spans, key=lambda span: (span.start, span.end))
    overlap = any(after.start < before.end for before, after in pairwise(by_start))
    n_rows = min(len(labels), len(COLOURS) + 1) if overlap else 1
    rows = {label: min(i, n_rows - 1) for i, label in enumerate(labels)}
    for span in spans:
        top = 1 - rows[span.label] / n_rows
        axes.axvspan(span.start, span.end, top - 1 / n_rows, top, color=colours.get(span.label, GREY), linewidth=0)
    entries = [(figure_text(label), colours[label]) for label in durations if label in colours]
    if len(labels) > len(COLOURS):
        entries.append(("others", GREY))
    axes.set_yticks([])
    axes.set_ylim(0, 1)
    axes.grid(False)
    if entries:
        handles, names = [axes.axvspan(0, 0, color=colour) for _, colour in entries], [name for name, _ in entries]
        axes.figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False, fontsize="small")


def _edges(n_samples: int) -> np.ndarray:
    """Return the first sample of each column, and the end of the last one."""
    return np.linspace(0, n_samples, min(MAX_COLUMNS, n_samples) + 1).astype(int)
