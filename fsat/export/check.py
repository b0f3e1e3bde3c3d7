"""Does an exported model score clips as the tagger does that it was made from?

Both are given the same samples, mono at the exported model's rate, so that what is compared is the model and not how a
file was read. The original computes in float32 as the export does.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fsat.config import Config
from fsat.data.audio import SUFFIXES, decode
from fsat.data.synth import SYNTHESISERS, synthesise
from fsat.errors import AudioError, DataError, printable
from fsat.tagging import Tagger
from fsat.tagging.inputs import walk

if TYPE_CHECKING:
    from fsat.export.formats import Scorer

LIMIT = 1e-3
"""The greatest difference of a score that an export may have."""

FILES_AT_MOST = 200
"""Of a folder, evenly spaced ones if it has more."""

LONGEST_MADE = 30.0
"""Seconds of the longest clip that is made."""


@dataclass(frozen=True)
class Difference:
    """How far an export's scores are from the original's.

    Attributes:
        greatest, mean: absolute difference of a score.
        clip: name of the clip with the greatest one.
        same_best: share of the clips whose best label is the same.
        as_tagged_here: greatest difference of the tagger as it computes on this machine, perhaps in bfloat16, from the
            original in float32.
        n_clips: how many were compared.
    """

    greatest: float
    mean: float
    clip: str
    same_best: float
    as_tagged_here: float
    n_clips: int


def made_clips(configs: Sequence[Config], rate: int) -> Iterator[tuple[str, np.ndarray]]:
    """Silence, noise, tones and sounds, of lengths about those of the members' crops.

    Args:
        configs: of the members.
        rate: in Hz.

    Yields:
        name, and float32 (n_samples,).
    """
    most = round(LONGEST_MADE * rate)
    lengths = {1, rate // 2 + 1, min(12 * rate + 7, most)}
    for seconds in {max(config.audio_duration, config.eval_duration) for config in configs} | {
        config.audio_duration for config in configs
    }:
        crop = round(seconds * rate)
        lengths |= {crop // 3, crop - 1, crop, crop + 1, 2 * crop + 1, round(3.7 * crop)}
    rng = np.random.default_rng(1001)
    kinds = cycle(["noise", "tone", *(SYNTHESISERS if rate >= 8000 else ())])
    for n, kind in zip(sorted(min(max(n, 1), most) for n in lengths), kinds, strict=False):
        if kind == "noise" or n < rate // 10 + 1:
            kind, clip = "noise", rng.uniform(-0.5, 0.5, n)
        elif kind == "tone":
            clip = 0.5 * np.sin(2 * np.pi * 440 * np.arange(n) / rate)
        else:
            clip = synthesise(kind, n / rate, rate, rng)
        yield f"{kind}, {n} samples", clip.astype(np.float32)
    yield "silence", np.zeros(rate, np.float32)


def clips_of(path: Path, rate: int) -> Iterator[tuple[str, np.ndarray]]:
    """The clips of a file or folder, decoded; those that cannot be used are left out.

    Raises:
        DataError: there is no such file or folder, or there is nothing usable in it.
    """
    reasons: list[str] = []
    usable = 0
    for name in files_of(path):
        try:
            clip = decode(name, rate)
        except AudioError as error:
            reasons.append(f"{printable(name.name)}: {error}")
            continue
        usable += 1
        yield printable(name.name), clip
    if not usable:
        raise DataError(f"check={printable(path)}: no clip in it can be used, first {reasons[0]}")


def files_of(path: Path) -> list[Path]:
    """A file, or the audio files of a folder and below it, `FILES_AT_MOST` at most."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"check={printable(path)}: no such file or folder")
    found = sorted(path / name for name in walk(path))
    if not found:
        raise DataError(f"check={printable(path)}: no {', '.join(SUFFIXES)} files in it")
    return list(islice(found, 0, None, -(-len(found) // FILES_AT_MOST)))


def compare(
    score: Scorer, original: Tagger, here: Tagger, clips: Iterable[tuple[str, np.ndarray]], rate: int
) -> Difference:
    """Score clips, one after the other, by an exported model and by the tagger.

    Args:
        score: the exported model.
        original: the tagger in float32.
        here: the tagger as it computes on this machine.
        clips: names, and float32 (n_samples,).
        rate: of the clips, in Hz.
    """
    names, greatest, means, same, apart = [], [], [], [], []
    for name, clip in clips:
        file = _wav(clip, rate)
        expected = _scores(original, file)
        found = score(clip)
        off = np.abs(found.astype(np.float64) - expected)
        names.append(name)
        greatest.append(np.inf if np.isnan(off).any() else off.max())
        means.append(off.mean())
        same.append(found.argmax() == expected.argmax())
        apart.append(np.abs(_scores(here, file) - expected).max())
    worst = int(np.argmax(greatest))
    return Difference(
        float(greatest[worst]), float(np.mean(means)), names[worst], float(np.mean(same)), float(max(apart)), len(names)
    )


def _scores(tagger: Tagger, file: bytes) -> np.ndarray:
    scores, errors = tagger.scores([file])
    if errors[0]:
        raise ValueError(f"a clip that was decoded cannot be used: {errors[0]}")
    return scores[0]


def _wav(clip: np.ndarray, rate: int) -> bytes:
    """A WAV file with these very samples."""
    import soundfile as sf

    file = io.BytesIO()
    sf.write(file, clip, rate, format="WAV", subtype="FLOAT")
    return file.getvalue()
