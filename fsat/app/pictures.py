"""Waveform, log-mel spectrogram and tags over time as one picture, for a wide window and for a phone's.

Conventions: times in seconds, frequencies in kHz on a mel scale, levels in dB below the loudest of the sound. The
colours of labels are Okabe and Ito's (2008), which people tell apart however they see colours.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fsat.app.views import Picture
from fsat.data.logmel import FLOOR_DB, band_centres, logmel
from fsat.metrics.segments import Segment
from fsat.presets import LOGMEL_HOP
from fsat.reports.plots import BLUE, GREY, ignore_missing_glyphs

N_MELS = 96
COLUMNS = 1000
"""Columns of a picture at most: of a longer sound, each shows the loudest of several frames."""

COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#f0e442")
TICKS_KHZ = (0.1, 0.5, 1, 2, 4, 8, 16)


@dataclass(frozen=True)
class _Shape:
    width: float  # in
    height: float  # in
    track: float  # in, more where there are tags over time
    dpi: int


_WIDE, _NARROW = _Shape(8.4, 3.9, 0.9, 110), _Shape(3.7, 3.7, 1.1, 180)


def picture(samples: np.ndarray, sampling_rate: int, spans: Sequence[Segment] | None) -> Picture:
    """Draw a sound.

    Args:
        samples: float32 (n_samples,), in about [-1, 1].
        sampling_rate: in Hz.
        spans: tags over time; None for no track of them.
    """
    hop = max(1, round(LOGMEL_HOP * sampling_rate))
    levels = _loudest(logmel(samples, sampling_rate, N_MELS, hop))
    levels = levels - (float(levels.max()) or -FLOOR_DB)  # silence is as dark as can be
    return Picture(*(_draw(samples, sampling_rate, levels, spans, shape) for shape in (_WIDE, _NARROW)))


def _draw(
    samples: np.ndarray, sampling_rate: int, levels: np.ndarray, spans: Sequence[Segment] | None, shape: _Shape
) -> bytes:
    seconds = len(samples) / sampling_rate
    height, ratios = shape.height, [1, 2]
    if spans is not None:
        height, ratios = shape.height + shape.track, [1, 2, 0.3]
    figure = Figure(figsize=(shape.width, height), dpi=shape.dpi, layout="constrained")
    grid = figure.subplots(len(ratios), 2, width_ratios=[1, 0.025], height_ratios=ratios, squeeze=False)
    for axes in grid[:, 1]:
        axes.set_axis_off()
    wave, mel = grid[0, 0], grid[1, 0]
    _waveform(wave, samples, seconds)
    image = _spectrogram(mel, levels, sampling_rate, seconds)
    grid[1, 1].set_axis_on()
    figure.colorbar(image, cax=grid[1, 1])
    grid[1, 1].set_title("dB", fontsize="medium")
    for axes in grid[:-1, 0]:
        axes.tick_params(labelbottom=False)
    grid[-1, 0].set_xlabel("time in s")
    for axes in grid[:, 0]:
        axes.set_xlim(0, seconds)
    if spans is not None:
        _track(grid[2, 0], spans)
    figure.align_ylabels(grid[:, 0])
    stream = io.BytesIO()
    with ignore_missing_glyphs():
        figure.savefig(stream, format="png")
    return stream.getvalue()


def _waveform(axes: Axes, samples: np.ndarray, seconds: float) -> None:
    """The lowest and highest sample of each column."""
    edges = np.linspace(0, len(samples), min(COLUMNS, len(samples)) + 1).astype(int)
    low, high = np.minimum.reduceat(samples, edges[:-1]), np.maximum.reduceat(samples, edges[:-1])
    times = (edges[:-1] + edges[1:]) / 2 / len(samples) * seconds
    axes.fill_between(times, low, high, color=BLUE, linewidth=0.6, edgecolor=BLUE)
    most = max(1e-3, float(np.abs(samples).max()))
    axes.set_ylim(-1.05 * most, 1.05 * most)
    axes.set_ylabel("amplitude")


def _spectrogram(axes: Axes, levels: np.ndarray, sampling_rate: int, seconds: float) -> object:
    image = axes.imshow(
        levels.T, origin="lower", aspect="auto", cmap="magma", interpolation="nearest", vmin=FLOOR_DB, vmax=0,
        extent=(0, seconds, -0.5, N_MELS - 0.5),
    )  # fmt: skip
    centres = band_centres(sampling_rate, N_MELS)
    shown = [khz for khz in TICKS_KHZ if centres[0] < 1000 * khz < centres[-1]]
    axes.set_yticks(np.interp([1000 * khz for khz in shown], centres, np.arange(N_MELS)), [f"{khz:g}" for khz in shown])
    axes.set_ylabel("frequency in kHz")
    axes.grid(False)
    return image


def _track(axes: Axes, spans: Sequence[Segment]) -> None:
    """A bar of colours, one for each label; what comes least often shares grey."""
    lasts: dict[str, float] = {}
    for span in spans:
        lasts[span.label] = lasts.get(span.label, 0.0) + span.end - span.start
    by_time = sorted(lasts, key=lambda label: -lasts[label])
    colours = dict(zip(by_time, COLOURS, strict=False))
    for span in spans:
        axes.axvspan(span.start, span.end, color=colours.get(span.label, GREY), linewidth=0)
    handles = [axes.axvspan(0, 0, color=colours[label], label=label) for label in lasts if label in colours]
    if len(by_time) > len(COLOURS):
        handles.append(axes.axvspan(0, 0, color=GREY, label="others"))
    axes.set_yticks([])
    axes.set_ylim(0, 1)
    axes.grid(False)
    axes.figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize="small")


def _loudest(frames: np.ndarray) -> np.ndarray:
    """Spectrogram (n, bands) of at most COLUMNS columns."""
    if len(frames) <= COLUMNS:
        return frames
    edges = np.linspace(0, len(frames), COLUMNS + 1).astype(int)
    return np.maximum.reduceat(frames, edges[:-1], axis=0)
