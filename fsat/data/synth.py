"""Generated sounds: a small stand-in for FSDKaggle2018, so that every command runs without a download.

Twelve of the dataset's classes, each imitated by a formula of a few lines and in a register of its own, so that a small
network learns them in a minute. A score on them says nothing about real recordings.

Conventions: mono, float64 while computing, float32 at the end; `t` is time in s, `rate` in Hz, frequencies in Hz,
amplitudes linear. Every random draw comes from the generator passed in.

Labels are noisy as in FSDKaggle2018: about 60 % of the training rows are unverified, and a third of those have the
label of the sound they are most easily confused with (`SIBLINGS`). Verified rows are right.

The same seed gives the same bytes, audio and tables, with the same version of numpy and kind of processor; elsewhere a
sample may differ in its last bit, because sin and exp may.
"""

from __future__ import annotations

import csv
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile

from fsat.errors import DataError
from fsat.files import cache_dir, disk_errors, user_path
from fsat.progress import say

SAMPLE = "generated-sounds-1"
"""Folder of the generated sounds in the cache; the number rises when they change."""

RATE = 44100  # Hz, of the files
STRUCK = ("Bass_drum", "Cowbell", "Hi-hat", "Snare_drum")  # classes of short clips
STRUCK_SECONDS, OTHER_SECONDS = (0.3, 1.0), (0.6, 5.0)  # shortest and longest clip
UNVERIFIED = 0.6  # share of the training rows
WRONG = 1 / 3  # share of the unverified rows
PUBLIC = 0.2  # share of the test rows scored on the public leaderboard

# Struck skins, struck metal, blown, rubbed, crackling, ringing. Confusions run both ways, so that noise leaves the
# number of rows of every label as it was.
_PAIRS = "Snare_drum Bass_drum, Hi-hat Cowbell, Flute Clarinet, Cello Squeak, Applause Tearing, Glockenspiel Telephone"
SIBLINGS = {a: b for pair in _PAIRS.split(", ") for a, b in (pair.split(), pair.split()[::-1])}

Wave = npt.NDArray[np.float64]
Synth = Callable[[Wave, int, np.random.Generator], Wave]


def _phase(frequency: Wave | float, t: Wave, rate: int) -> Wave:
    """Phase in radians of an oscillator whose frequency (Hz) may change with time."""
    return 2 * np.pi * np.cumsum(np.broadcast_to(frequency, t.shape)) / rate


def _vibrato(f0: float, t: Wave, depth: float, rng: np.random.Generator) -> Wave:
    """f0 (Hz) swaying by the relative depth 4.5 to 6.5 times a second."""
    return f0 * (1 + depth * np.sin(2 * np.pi * (rng.uniform(4.5, 6.5) * t + rng.random())))


def _harmonics(phase: Wave, rolloff: float, count: int, step: int = 1) -> Wave:
    """Sum over k < count of rolloff**k * sin((1 + k * step) * phase), in closed form (Moorer 1976)."""
    first, ratio = np.exp(1j * phase), rolloff * np.exp(1j * step * phase)
    return np.imag(first * (1 - ratio**count) / (1 - ratio))


def _count(f0: float, rate: int, step: int = 1, most: int = 40) -> int:
    """Number of harmonics of f0 (Hz), every step-th one, below 0.45 * rate; from 1 to `most`."""
    return int(np.clip((0.45 * rate / f0 - 1) // step, 1, most))


def _band(x: Wave, rate: int, low: float, high: float) -> Wave:
    """x filtered to low..high Hz with zero phase (a Butterworth's gain, fourth order)."""
    size = 1 << len(x).bit_length()  # a power of two, which is quick
    f = np.fft.rfftfreq(size, 1 / rate) + 1e-3
    gain = 1 / np.sqrt((1 + (low / f) ** 8) * (1 + (f / high) ** 8))
    return np.fft.irfft(np.fft.rfft(x, size) * gain, size)[: len(x)]


def _noise(t: Wave, rate: int, low: float, high: float, rng: np.random.Generator) -> Wave:
    """Gaussian noise of unit deviation in the band low..high Hz."""
    x = _band(rng.standard_normal(len(t)), rate, low, high)
    return x / float(x.std())


def _convolve(x: Wave, kernel: Wave) -> Wave:
    """The first len(x) samples of x * kernel."""
    size = 1 << (len(x) + len(kernel)).bit_length()
    return np.fft.irfft(np.fft.rfft(x, size) * np.fft.rfft(kernel, size), size)[: len(x)]


def _swell(t: Wave, attack: float, release: float) -> Wave:
    """Envelope of a sustained note: rises in `attack` s, falls in the last `release` s; 0 to 1."""
    return np.asarray(np.clip(np.minimum(t / attack, (t[-1] - t) / release), 0, 1))


# --- one small function a class: (t, rate, rng) -> samples of any scale ----------------------------
# np.tanh clips softly, as a close microphone or tape does.


def _bass_drum(t: Wave, rate: int, rng: np.random.Generator) -> Wave:
    """A sine falling fast to its pitch, and the beater's click (Roland TR-808)."""
    pitch, drop = rng.uniform(45, 75), rng.uniform(0.5, 2)
    body = np.sin(_phase(pitch * (1 + drop * np.exp(-t / 0.03)), t, rate)) * np.exp(-t / rng.uniform(0.12, 0.35))
    click = _noise(t, rate, 200, 1000, rng) * np.exp(-t / 0.005)
    return np.tanh((body + rng.uniform(0.03, 0.1) * click) * rng.uniform(2, 4))


def _snare_drum(t: Wave, rate: int, rng: np.random.Generator) -> Wave:
    """Modes (0,1) and (1,1) of a membrane, ratio 1.59, under the rattle of the snares (Fletcher & Rossing 1998, 18)."""
    pitch, ring = rng.uniform(160, 260), rng.uniform(0.03, 0.08)
    skin = sum((np.sin(2 * np.pi * pitch * r * t) * np.exp(-t * r / ring) for r in (1, 1.59)), np.zeros(len(t)))
    rattle = _noise(t, rate, rng.uniform(700, 1100), 2500, rng) * np.exp(-t / rng.uniform(0.08, 0.2))
    return np.tanh((skin + rng.uniform(0.6, 1.2) * rattle) * rng.uniform(0.5, 1.5))


def _glockenspiel(t: Wave, rate: int, rng: np.random.Generator) -> Wave:
    """Bending modes of a free bar, the high ones dying first (Fletcher & Rossing 1998, 2 and 19)."""
    f0, ring = rng.uniform(2200, 3200), rng.uniform(0.3, 1)
    modes = [(ratio * f0, level) for ratio, level in ((1, 1), (2.756, 0.5), (5.404, 0.25)) if ratio * f0 < 0.45 * rate]
    tones = (level * np.sin(2 * np.pi * f * t) * np.exp(-t * f / f0 / ring) for f, level in modes)
    return sum(tones, np.zeros(len(t)))


def _hi_hat(t: Wave, rate: int, rng: np.random.Generator) -> Wave:
    """Six inharmonic square waves and noise, only what is above 3 kHz or so (Roland TR-808); shut or open."""
    pitches = np.array([205, 304, 370, 523, 540, 800]) * rng.uniform(0.9, 1.3)
    metal = sum((np.sign(np.sin(2 * np.pi * (p * t + rng.random()))) for p in pitches), np.zeros(len(t)))
    decay = float(rng.choice([rng.uniform(0.05, 0.1), rng.uniform(0.2, 0.4)]))
    mix = _band(metal + rng.uniform(1, 3) * rng.standard_normal(len(t)), rate, rng.uniform(2600, 3600), 16000)
    return np.tanh(mix / float(mix.std()) * np.exp(-t / decay) * rng.uniform(0.5, 1.5))


def _cowbell(t: Wave, rate: int, rng: np.random.Generator) -> Wave:
    """Two square waves about a fifth apart in a band, a short knock and a longer ring (Roland TR-808)."""
    pitch, ratio = rng.uniform(480, 720), rng.uniform(1.45, 1.52)
    tone = sum((np.sign(np.sin(2 * np.pi * (pitch * r * t + rng.random()))) for r in (1, ratio)), np.zeros(len(t)))
    ring = 0.6 * np.exp(-t / 0.015) + 0.4 * np.exp(-t / rng.uniform(0.1, 0.35))
    return _band(tone, rate, 400, rng.uniform(1500, 2500)) * ring


def _flute(t: Wave, rate: int, rng: np.random.Generator) -> Wave:
    """Few and weak harmonics, vibrato, breath (Fletcher & Rossing 1998, 16)."""
    f0 = rng.uniform(900, 1500)
    tone = _harmonics(_phase(_vibrato(f0, t, 0.006, rng), t, rate), rng.uniform(0.05, 0.2), _count(f0, rate, most=5))
    breath = rng.uniform(0.02, 0.06) * _noise(t, rate, f0, 4 * f0, rng)
    return (tone + breath) * _swell(t, rng.uniform(0.04, 0.1), 0.08)


def _clarinet(t: Wave, rate: int, rng: np.random.Generator) -> Wave:
    """Odd harmonics of a pipe closed at one end, steady pitch (Fletcher & Rossing 1998, 15)."""
    f0 = rng.uniform(150, 300)
    tone = _harmonics(_phase(f0, t, rate), rng.uniform(0.3, 0.5), _count(f0, rate, step=2), step=2)
    return tone * _swell(t, rng.uniform(0.02, 0.06), 0.06)


def _cello(t: Wave, rate: int, rng: np.random.Generator) -> Wave:
    """A bowed string's sawtooth (Helmholtz motion), vibrato, wooden body (Fletcher & Rossing 1998, 10)."""
    f0 = rng.uniform(65, 200)
    saw = _harmonics(_phase(_vibrato(f0, t, 0.008, rng), t, rate), rng.uniform(0.9, 0.95), _count(f0, rate))
    body = saw + 0.8 * _band(saw, rate, 200, 500)
    bow = rng.uniform(0.03, 0.1) * _noise(t, rate, 800, 5000, rng)
    return (body + bow) * _swell(t, rng.uniform(0.1, 0.25), 0.1)


def _applause(t: Wave, rate: int, rng: np.random.Generator) -> Wave:
    """Many claps, each a few ms of noise, at random instants (a Poisson process)."""
    crowd, per_second = np.zeros(len(t)), rng.uniform(50, 200)
    for _ in range(6):  # hands that differ in size
        clap, size = t[: int(0.03 * rate)], rng.uniform(600, 900)
        hits = (rng.random(len(t)) < per_second / 6 / rate) * rng.uniform(0.5, 1, len(t))
        crowd += _convolve(hits, _noise(clap, rate, size, 1.6 * size, rng) * np.exp(-clap / 0.005))
    crowd += 0.2 * _noise(t, rate, 600, 1500, rng)
    return np.tanh(crowd / float(crowd.std()) * rng.uniform(0.7, 1.5))


def _tearing(t: Wave, rate: int, rng: np.random.Generator) -> Wave:
    """Fibres that snap ever faster: noise cut into grains by a buzz, growing louder."""
    snaps = _phase(rng.uniform(40, 70) * (1 + t / t[-1]), t, rate) + np.cumsum(rng.standard_normal(len(t))) * 0.01
    grains = (0.5 + 0.5 * np.cos(snaps)) ** rng.uniform(2, 5)
    rip = _noise(t, rate, rng.uniform(1400, 1700), 2600, rng) * (0.1 + grains) * (0.4 + 0.6 * t / t[-1])
    return np.asarray(np.tanh(rip * rng.uniform(1, 2)))


def _squeak(t: Wave, rate: int, rng: np.random.Generator) -> Wave:
    """Stick and slip: chirps that rise and fall, rich in harmonics, with a rough edge."""
    f0, chirps = rng.uniform(1400, 2000), rng.uniform(2, 4)  # Hz, a second
    swing = np.sin(np.pi * ((chirps * t) % 1))
    wobble = 1 + 0.03 * np.sin(2 * np.pi * rng.uniform(50, 90) * t)
    pitch = f0 * (0.75 + rng.uniform(0.4, 0.7) * swing) * wobble
    return _harmonics(_phase(pitch, t, rate), rng.uniform(0.4, 0.6), _count(1.5 * f0, rate, most=6)) * swing**0.5


def _telephone(t: Wave, rate: int, rng: np.random.Generator) -> Wave:
    """The warble of an electronic ringer: two tones taking turns 12 to 20 times a second, with pauses."""
    f0, ratio = rng.uniform(400, 500), rng.uniform(1.2, 1.3)
    high = np.sin(2 * np.pi * rng.uniform(12, 20) * t) > 0
    tone = _harmonics(_phase(np.where(high, f0 * ratio, f0), t, rate), 0.25, _count(f0 * ratio, rate, 2, most=6), 2)
    return tone * ((t / rng.uniform(0.5, 1)) % 1 < 0.75)


SYNTHESISERS: dict[str, Synth] = {
    "Applause": _applause,
    "Bass_drum": _bass_drum,
    "Cello": _cello,
    "Clarinet": _clarinet,
    "Cowbell": _cowbell,
    "Flute": _flute,
    "Glockenspiel": _glockenspiel,
    "Hi-hat": _hi_hat,
    "Snare_drum": _snare_drum,
    "Squeak": _squeak,
    "Tearing": _tearing,
    "Telephone": _telephone,
}
CLASSES = list(SYNTHESISERS)


def synthesise(label: str, seconds: float, rate: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Return a clip of one of the `CLASSES`, of at least 0.1 `seconds` at a `rate` of at least 8000 Hz.

    Returns:
        float32 (round(seconds * rate),) in [-1, 1], with a peak between 0.05 and 0.95. Up to 0.3 s, at most a quarter
        of the clip, may be silent at the beginning but for the noise floor.
    """
    if label not in SYNTHESISERS:
        raise ValueError(f"label {label!r} has no synthesiser; choose one of {', '.join(CLASSES)}")
    if seconds < 0.1 or rate < 8000:
        raise ValueError(f"seconds={seconds}, rate={rate}: expected at least 0.1 s and 8000 Hz")
    n = round(seconds * rate)
    lead = int(n * min(0.25, 0.3 / seconds) * rng.random()) if rng.random() < 0.4 else 0
    t = np.arange(n - lead) / rate
    sound = SYNTHESISERS[label](t, rate, rng) * np.clip((t[-1] - t) / 0.005, 0, 1)  # no click at the end
    clip = np.concatenate([np.zeros(lead), sound / np.abs(sound).max()])
    clip += 10 ** rng.uniform(-3.5, -2.2) * rng.standard_normal(n)  # noise floor at -70 to -44 dB
    return np.asarray(clip / np.abs(clip).max() * 0.95 * 10 ** rng.uniform(-1.25, 0), dtype=np.float32)


def data_dir_or_default(data_dir: str | None) -> Path:
    """Return the folder, or ``FSAT_DATA_DIR``, or the generated sounds, which are written at first use."""
    if folder := data_dir or os.environ.get("FSAT_DATA_DIR"):
        return user_path(folder)
    sample = cache_dir() / SAMPLE
    if not sample.is_dir():
        say(f"no data_dir given: generating sounds in {sample}")
        write_sample(sample)
    return sample


def write_sample(folder: Path, **options: int) -> None:
    """Write generated sounds, as `write_dataset`, into a new or empty folder, whole or not at all."""
    folder = folder.absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        fault = "is not empty" if folder.is_dir() else "is a file"
        raise DataError(f"{folder}: {fault}; expected a new or empty folder for the generated sounds")
    with disk_errors(folder, "generated sounds cannot be written"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            write_dataset(unfinished, **options)
            unfinished.chmod(0o755)
            if folder.is_dir():  # it may be the current folder: fill it, the table last
                for path in sorted(unfinished.iterdir(), key=lambda path: path.name == "train.csv"):
                    path.rename(folder / path.name)
            else:
                os.rename(unfinished, folder)
        except OSError:
            if not (folder / "train.csv").exists():  # another process may have been first
                raise
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


def write_dataset(folder: Path, seed: int = 1001, clips_per_class: int = 37, test_clips_per_class: int = 5) -> None:
    """Write ``audio_train/``, ``audio_test/`` and the tables of FSDKaggle2018 into a folder, made if missing.

    Every label, right or wrong, gets `clips_per_class` rows in ``train.csv``; ``train_truth.csv`` and
    ``test_post_competition.csv`` have the true ones. One extra test clip has no samples, as three have there.
    """
    rng = np.random.default_rng(seed)
    train_rows = _draw_train(clips_per_class, rng)
    truths = CLASSES * test_clips_per_class
    ranks = rng.random(len(truths)).argsort().argsort()
    usages = ["Public" if rank < PUBLIC * len(truths) else "Private" for rank in ranks]
    test_rows = [*zip(truths, usages, strict=True), ("None", "Ignored")]
    names = _draw_names(len(train_rows) + len(test_rows), rng)
    train = sorted((name, *row) for name, row in zip(names, train_rows, strict=False))
    test = sorted((name, *row) for name, row in zip(names[len(train) :], test_rows, strict=True))

    _write_clips(folder / "audio_train", [(row[0], row[3]) for row in train], rng)
    _write_clips(folder / "audio_test", [row[:2] for row in test], rng)

    _write_table(folder / "train.csv", "fname,label,manually_verified", (row[:3] for row in train))
    _write_table(folder / "train_truth.csv", "fname,label", ((row[0], row[3]) for row in train))
    _write_table(folder / "sample_submission.csv", "fname,label", ((row[0], " ".join(CLASSES[:3])) for row in test))
    _write_table(folder / "test_post_competition.csv", "fname,label,usage", test)


def _draw_train(clips_per_class: int, rng: np.random.Generator) -> list[tuple[str, int, str]]:
    """Return (given label, manually_verified, true label), `clips_per_class` rows per class."""
    unverified = round(UNVERIFIED * clips_per_class)
    wrong = round(WRONG * unverified)
    each = [(truth, i) for truth in CLASSES for i in range(clips_per_class)]
    rows = [(SIBLINGS[truth] if i < wrong else truth, int(i >= unverified), truth) for truth, i in each]
    return [rows[i] for i in rng.permutation(len(rows))]


def _draw_names(count: int, rng: np.random.Generator) -> list[str]:
    """Return distinct file names like 00044347.wav."""
    names: dict[str, None] = {}
    while len(names) < count:
        names[f"{rng.integers(2**32):08x}.wav"] = None
    return list(names)


def _write_clips(folder: Path, clips: list[tuple[str, str]], rng: np.random.Generator) -> None:
    """Write a WAV file for every (name, label), mostly short; no samples for "None"."""
    folder.mkdir(parents=True, exist_ok=True)
    for (name, label), child in zip(clips, rng.spawn(len(clips)), strict=True):
        shortest, longest = STRUCK_SECONDS if label in STRUCK else OTHER_SECONDS
        samples = np.zeros(0, np.float32)
        if label != "None":
            samples = synthesise(label, shortest + (longest - shortest) * child.random() ** 6, RATE, child)
        soundfile.write(folder / name, samples, RATE, subtype="PCM_16")


def _write_table(path: Path, header: str, rows: Iterable[tuple[Any, ...]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header.split(","))
        writer.writerows(rows)
