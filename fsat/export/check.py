"""Compare the scores of an exported model with those of its tagger.

Both score the same samples, mono at the exported model's rate: file decoding is not part of the comparison. The
original computes in float32, as the export does.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
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

LIMIT, MAX_FILES, MAX_SECONDS = 1e-3, 200, 30.0
"""Maximum difference of a score; number of files of a folder, evenly spaced in larger ones; length of a clip."""

Clip = tuple[str, np.ndarray]
"""A clip's name and its samples, float32 (n_samples,)."""


@dataclass(frozen=True)
class Difference:
    """Differences between the scores of an export and of its tagger.

    Attributes:
        greatest, mean, clip: absolute difference of a score, and name of the clip with the greatest one.
        same_best: share of clips with the same top label.
        as_tagged_here: greatest difference between the tagger on this machine, possibly in bfloat16, and in float32.
    """

    greatest: float
    mean: float
    clip: str
    same_best: float
    as_tagged_here: float
    n_clips: int


def generate_clips(configs: Sequence[Config], rate: int) -> Iterator[Clip]:
    """Generate noise, tones, sounds and silence, of lengths around those of the members' crops, at `rate` Hz."""
    longest = round(MAX_SECONDS * rate)
    lengths = {1, rate // 2 + 1, min(12 * rate + 7, longest)}
    for crop in {round(s * rate) for c in configs for s in (c.audio_duration, max(c.audio_duration, c.eval_duration))}:
        lengths |= {crop // 3, crop - 1, crop, crop + 1, 2 * crop + 1, round(3.7 * crop)}
    rng = np.random.default_rng(1001)
    kinds = cycle(["noise", "tone", *(SYNTHESISERS if rate >= 8000 else ())])
    for n, kind in zip(sorted(min(max(n, 1), longest) for n in lengths), kinds, strict=False):
        clip: np.ndarray
        if kind == "noise" or n <= rate // 10:
            kind, clip = "noise", rng.uniform(-0.5, 0.5, n)
        elif kind == "tone":
            clip = 0.5 * np.sin(2 * np.pi * 440 * np.arange(n) / rate)
        else:
            clip = synthesise(kind, n / rate, rate, rng)
        yield f"{kind}, {n} samples", clip.astype(np.float32)
    yield "silence", np.zeros(rate, np.float32)


def find_files(path: Path) -> list[Path]:
    """Return a file, or at most `MAX_FILES` audio files of a folder and its subfolders; raise `DataError` if none."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"check={printable(path)}: no such file or folder")
    files = sorted(path / name for name in walk(path))
    if not files:
        raise DataError(f"check={printable(path)}: no {', '.join(SUFFIXES)} files in it")
    return files[:: -(-len(files) // MAX_FILES)]


def read_clips(path: Path, rate: int) -> Iterator[Clip]:
    """Decode the clips of `find_files` at `rate` Hz, without unusable ones; raise `DataError` if none is usable."""
    errors, files = list[str](), find_files(path)
    for file in files:
        try:
            yield printable(file.name), decode(file, rate)
        except AudioError as error:
            errors.append(f"{printable(file.name)}: {error}")
    if len(errors) == len(files):
        raise DataError(f"check={printable(path)}: no usable clips, first error: {errors[0]}")


def compare(score: Scorer, exact: Tagger, tagger: Tagger, clips: Iterable[Clip], rate: int) -> Difference:
    """Compare the scores of an exported model with those of the tagger in float32 (`exact`) and on this machine.

    `clips` has at least one clip; their rate is in Hz.
    """
    import soundfile as sf

    rows, names = [], []
    for name, clip in clips:
        wav = io.BytesIO()
        sf.write(wav, clip, rate, format="WAV", subtype="FLOAT")
        expected, here = _score(exact, wav.getvalue()), _score(tagger, wav.getvalue())
        received = score(clip)
        errors = np.abs(received.astype(np.float64) - expected)
        greatest = np.inf if np.isnan(errors).any() else errors.max()
        same_best = received.argmax() == expected.argmax()
        rows.append((greatest, errors.mean(), same_best, np.abs(here - expected).max()))
        names.append(name)
    greatest, means, best, heres = np.array(rows, dtype=np.float64).T
    worst = int(greatest.argmax())
    facts = float(means.mean()), names[worst], float(best.mean()), float(heres.max()), len(rows)
    return Difference(float(greatest[worst]), *facts)


def _score(tagger: Tagger, wav: bytes) -> np.ndarray:
    (scores,), (error,) = tagger.scores([wav])
    if error:
        raise ValueError(f"the tagger cannot score a decoded clip: {error}")
    return scores
