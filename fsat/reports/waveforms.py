"""Waveforms of a few clips: the whole clip as an outline, and its first samples one by one.

A clip is read block by block, so an hour of sound takes no more memory than a second. Amplitudes are from -1 to 1, as
in the file; channels are averaged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from fsat.data.audio import blocks
from fsat.data.manifest import Manifest
from fsat.errors import AudioError, printable
from fsat.reports.eda_text import duration, listed
from fsat.reports.examples import middle
from fsat.reports.style import BLUE, ORANGE, PAGE_WIDTH, lettering, plt, save

FIRST_SAMPLES = 500
COLUMNS = 1000
"""Points of an outline."""


@dataclass(frozen=True)
class Waveform:
    """A clip to look at.

    Attributes:
        which: why it is shown, such as ``the shortest clip``.
        fname, label: as in the table.
        row: its line there.
        frames, samplerate: length in samples, and Hz.
        low, high: float32 (n,), least and greatest sample of each of n <= `COLUMNS` parts.
        first: float32, the first `FIRST_SAMPLES` samples.
        reason: why it cannot be shown; then there are no samples.
    """

    which: str
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
        """The greatest absolute sample."""
        return float(max(-self.low.min(), self.high.max()))


def telling(manifest: Manifest) -> list[Waveform]:
    """The training clip of median length (a verified one, if there are any), the shortest and the longest.

    Each is of another class as far as there are so many; fewer clips than three are all shown.
    """
    train = manifest.train.assign(seconds=manifest.train["frames"] / manifest.train["samplerate"])
    train = train.sort_values(["seconds", "fname"])
    verified = train[train["manually_verified"] == 1]
    median = middle(verified if len(verified) else train)
    chosen = [("of median length", median)]
    for which, clips in (("the shortest", train), ("the longest", train.iloc[::-1])):
        others = clips[~clips["fname"].isin({clip["fname"] for _, clip in chosen})]
        if others.empty:
            continue
        extreme = others[others["seconds"] == others["seconds"].iloc[0]]
        new = extreme[~extreme["label"].isin({clip["label"] for _, clip in chosen})]
        clip = (new if len(new) else extreme).iloc[0]
        chosen.append((which if clip["seconds"] != median["seconds"] else "just as long", clip))
    return [_read(which, clip, manifest.train_folder / clip["fname"]) for which, clip in chosen]


def finding(waveforms: Sequence[Waveform]) -> str:
    """What the waveforms show: how long `FIRST_SAMPLES` are, how loud the clips, which begin in silence."""
    seen = [one for one in waveforms if not one.reason]
    if not seen:
        return ""
    rates = sorted({one.samplerate for one in seen}, reverse=True)
    says = f"{FIRST_SAMPLES} samples are {' or '.join(duration(FIRST_SAMPLES / rate) for rate in rates)} of sound."
    peaks = sorted(one.peak for one in seen)
    low, high = f"{peaks[0]:.2g}", f"{peaks[-1]:.2g}"
    if len(seen) > 1 and peaks[-1] > 2 * peaks[0]:
        says += f" Clips are not equally loud: the peaks of these go from {low} to {high} of 1."
    elif len(seen) > 1:
        says += f" These clips are about equally loud, with peaks of {low if low == high else f'{low} to {high}'} of 1."
    if quiet := [one.fname for one in seen if one.peak > 0 and np.abs(one.first).max() < 0.02 * one.peak]:
        says += f" {listed(quiet)} {'begins' if len(quiet) == 1 else 'begin'} with near silence."
    if silent := [one.fname for one in seen if one.peak == 0]:
        says += f" {listed(silent)} {'is' if len(silent) == 1 else 'are'} silent throughout."
    return says


def plot_waveforms(waveforms: Sequence[Waveform], path: Path) -> None:
    """A row a clip: all of it on the left, its first samples on the right."""
    figure, rows = plt.subplots(
        len(waveforms),
        2,
        figsize=(PAGE_WIDTH, 2.2 * len(waveforms)),
        width_ratios=(3, 2),
        squeeze=False,
        layout="constrained",
    )
    figure.get_layout_engine().set(h_pad=0.1)
    for (whole, start), one in zip(rows, waveforms, strict=True):
        whole.set_title(f"{lettering(printable(one.label))}, {one.which}", loc="left", fontsize=11)
        start.set_title(lettering(printable(one.fname)), loc="right", fontsize=10, color="#55606a")
        if one.reason:
            whole.text(0.5, 0.5, "cannot be read", ha="center", va="center", transform=whole.transAxes)
            continue
        seconds = np.linspace(0, one.frames / one.samplerate, len(one.low), endpoint=False)
        whole.fill_between(seconds, one.low, one.high, color=BLUE, linewidth=0.6)
        whole.axvspan(0, len(one.first) / one.samplerate, color=ORANGE, alpha=0.5, linewidth=0)
        whole.margins(x=0.01)
        start.plot(one.first, color=BLUE, linewidth=0.8, marker=".", markersize=3)
        start.set_facecolor("#fdf3ec")  # the orange stripe on the left
        start.margins(x=0.01)
        for axes in (whole, start):
            bound = max(1e-6, *(abs(limit) for limit in axes.get_ylim()))
            axes.set_ylim(-bound, bound)
    rows[-1][0].set_xlabel("seconds")
    rows[-1][1].set_xlabel(f"sample (the first {FIRST_SAMPLES})")
    save(figure, path)


def _read(which: str, clip: pd.Series, path: Path) -> Waveform:
    facts = which, clip["fname"], clip["label"], int(clip["row"]), int(clip["frames"]), int(clip["samplerate"])
    try:
        return Waveform(*facts, *outline(path, facts[4], facts[5]))
    except AudioError as error:
        nothing = np.zeros(0, np.float32)
        return Waveform(*facts, nothing, nothing, nothing, str(error))


def outline(path: Path, frames: int, rate: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Least and greatest sample of each of up to `COLUMNS` equal parts of a clip, and its first samples.

    Raises:
        AudioError: the file cannot be used as a clip.
    """
    size = -(-frames // COLUMNS)
    n = -(-frames // size)
    low, high = np.full(n, np.inf, np.float32), np.full(n, -np.inf, np.float32)
    first, seen = [], 0
    for block in blocks(path, [rate]):
        mono = block.mono[: frames - seen]  # an MP3 may have a few more than its header says
        if not len(mono):
            break
        if seen < FIRST_SAMPLES:
            first.append(mono[: FIRST_SAMPLES - seen].copy())  # a view would keep the block
        starts = np.unique([0, *range(-seen % size, len(mono), size)])  # where a part begins or goes on
        parts = (seen + starts) // size
        low[parts] = np.minimum(low[parts], np.minimum.reduceat(mono, starts))
        high[parts] = np.maximum(high[parts], np.maximum.reduceat(mono, starts))
        seen += len(mono)
    there = np.isfinite(low)
    return low[there], high[there], np.concatenate(first)
