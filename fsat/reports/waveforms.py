"""Waveforms of a few clips: the outline of the whole clip, and its first samples one by one.

A clip is read block by block, so an hour of sound takes no more memory than a second. Amplitudes are from -1 to 1, as
in the file; channels are averaged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.layout_engine import ConstrainedLayoutEngine

from fsat.data.audio import blocks
from fsat.data.clip_names import stored_name
from fsat.data.manifest import Manifest
from fsat.errors import AudioError, printable
from fsat.reports.eda_text import duration, listed
from fsat.reports.plots import BLUE, DARK_GREY, ORANGE, PAGE_WIDTH, figure_text, plt, save

FIRST_SAMPLES = 500
OUTLINE_POINTS = 1000


@dataclass(frozen=True)
class Waveform:
    """A clip to show, in the `role` of ``the shortest``, for example; without samples if there is a `reason`.

    Attributes:
        low, high: float32 (n,), lowest and highest sample of each of n <= `OUTLINE_POINTS` parts.
        first: float32, the first `FIRST_SAMPLES` samples.
    """

    role: str
    fname: str
    label: str
    row: int
    frames: int
    samplerate: int
    low: np.ndarray
    high: np.ndarray
    first: np.ndarray
    reason: str = ""

    @property
    def peak(self) -> float:
        """Greatest absolute sample."""
        return float(max(-self.low.min(), self.high.max()))


def read_waveforms(manifest: Manifest) -> list[Waveform]:
    """Read the training clip of median length (a verified one, if there are any), the shortest and the longest.

    They are of different classes if possible; a dataset of fewer than three clips has fewer waveforms.
    """
    train = manifest.train.assign(seconds=manifest.train["frames"] / manifest.train["samplerate"])
    train = train.sort_values(["seconds", "fname"])
    verified = train[train["manually_verified"] == 1]
    candidates = verified if len(verified) else train
    median = candidates.iloc[len(candidates) // 2]
    chosen = [("of median length", median)]
    for role, clips in (("the shortest", train), ("the longest", train.iloc[::-1])):
        others = clips[~clips["fname"].isin({clip["fname"] for _, clip in chosen})]
        if others.empty:
            continue
        extreme = others[others["seconds"] == others["seconds"].iloc[0]]
        new = extreme[~extreme["label"].isin({clip["label"] for _, clip in chosen})]
        clip = (new if len(new) else extreme).iloc[0]
        chosen.append((role if clip["seconds"] != median["seconds"] else "just as long", clip))
    folder = manifest.train_folder
    return [_read(role, clip, folder / stored_name(folder, clip["fname"])) for role, clip in chosen]


def describe_waveforms(waveforms: Sequence[Waveform]) -> str:
    """Describe how long `FIRST_SAMPLES` last, how loud the clips are, and which begin in silence."""
    readable = [wave for wave in waveforms if not wave.reason]
    if not readable:
        return ""
    rates = sorted({wave.samplerate for wave in readable}, reverse=True)
    text = f"{FIRST_SAMPLES} samples are {' or '.join(duration(FIRST_SAMPLES / rate) for rate in rates)} of sound."
    peaks = sorted(wave.peak for wave in readable)
    low, high = f"{peaks[0]:.2g}", f"{peaks[-1]:.2g}"
    if len(readable) > 1 and peaks[-1] > 2 * peaks[0]:
        text += f" Clips are not equally loud: the peaks of these range from {low} to {high} of 1."
    elif len(readable) > 1:
        text += f" These clips are about equally loud, with peaks of {low if low == high else f'{low} to {high}'} of 1."
    if quiet := [wave.fname for wave in readable if np.abs(wave.first).max() < 0.02 * wave.peak]:
        text += f" {listed(quiet)} {'begins' if len(quiet) == 1 else 'begin'} with near silence."
    if silent := [wave.fname for wave in readable if wave.peak == 0]:
        text += f" {listed(silent)} {'is' if len(silent) == 1 else 'are'} silent throughout."
    return text


def plot_waveforms(waveforms: Sequence[Waveform], path: Path) -> None:
    """Plot each clip in a row: the whole clip on the left, its first samples on the right."""
    n_rows, size = len(waveforms), (PAGE_WIDTH, 2.2 * len(waveforms))
    layout = ConstrainedLayoutEngine(h_pad=0.1)
    figure, rows = plt.subplots(n_rows, 2, figsize=size, width_ratios=(3, 2), squeeze=False, layout=layout)
    for (whole, start), waveform in zip(rows, waveforms, strict=True):
        whole.set_title(f"{figure_text(printable(waveform.label))}, {waveform.role}", loc="left", fontsize=11)
        start.set_title(figure_text(printable(waveform.fname)), loc="right", fontsize=10, color=DARK_GREY)
        if waveform.reason:
            whole.text(0.5, 0.5, "cannot be read", ha="center", va="center", transform=whole.transAxes)
            continue
        seconds = np.linspace(0, waveform.frames / waveform.samplerate, len(waveform.low), endpoint=False)
        whole.fill_between(seconds, waveform.low, waveform.high, color=BLUE, linewidth=0.6)
        whole.axvspan(0, len(waveform.first) / waveform.samplerate, color=ORANGE, alpha=0.5, linewidth=0)
        start.plot(waveform.first, color=BLUE, linewidth=0.8, marker=".", markersize=3)
        start.set_facecolor("#fdf3ec")  # the orange stripe on the left
        for axes in (whole, start):
            axes.margins(x=0.01)
            bound = max(1e-6, *(abs(limit) for limit in axes.get_ylim()))
            axes.set_ylim(-bound, bound)
    rows[-1][0].set_xlabel("seconds")
    rows[-1][1].set_xlabel(f"sample (the first {FIRST_SAMPLES})")
    save(figure, path)


def outline(path: Path, frames: int, rate: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the lowest and highest sample of up to `OUTLINE_POINTS` equal parts of a clip, and its first samples."""
    size = -(-frames // OUTLINE_POINTS)
    n = -(-frames // size)
    low, high = np.full(n, np.inf, np.float32), np.full(n, -np.inf, np.float32)
    first, position = [], 0
    for block in blocks(path, [rate]):
        mono = block.mono[: frames - position]  # an MP3 may have a few more samples than its header says
        if not len(mono):
            break
        if position < FIRST_SAMPLES:
            first.append(mono[: FIRST_SAMPLES - position].copy())  # a view would keep the block in memory
        starts = np.unique([0, *range(-position % size, len(mono), size)])  # of the parts within the block
        parts = (position + starts) // size
        low[parts] = np.minimum(low[parts], np.minimum.reduceat(mono, starts))
        high[parts] = np.maximum(high[parts], np.maximum.reduceat(mono, starts))
        position += len(mono)
    read = np.isfinite(low)
    return low[read], high[read], np.concatenate(first)


def _read(role: str, clip: pd.Series, path: Path) -> Waveform:
    frames, rate = int(clip["frames"]), int(clip["samplerate"])
    facts = role, clip["fname"], clip["label"] or "no label", int(clip["row"]), frames, rate
    try:
        return Waveform(*facts, *outline(path, frames, rate))
    except AudioError as error:
        empty = np.zeros(0, np.float32)
        return Waveform(*facts, empty, empty, empty, str(error))
