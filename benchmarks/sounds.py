"""Write the clips of a benchmark: those of DATA_DIR, repeated as often as needed.

Each repetition is rolled by another number of samples, so that no two files are equal. The functions of this module run
in processes of their own (`harness.call`).
"""

from __future__ import annotations

import csv
from pathlib import Path

ROLL = 997
"""Samples by which each repetition is rolled."""


def write_files(data_dir: str, folder: str, n_files: int) -> list[str]:
    """Write `n_files` 16-bit mono WAV files at their own rate; return their paths."""
    return [str(path) for path, _ in _write_clips(Path(data_dir), Path(folder), n_files)]


def write_short(data_dir: str, folder: str, n_files: int, seconds: float) -> None:
    """Write `n_files` different excerpts of `seconds` as 16-bit mono WAV files at the rate of their clips."""
    import soundfile as sf

    Path(folder).mkdir(parents=True)
    rows = _rows(Path(data_dir))
    clips = [sf.read(Path(data_dir) / "audio_train" / row["fname"], dtype="int16", always_2d=True) for row in rows]
    for i in range(n_files):
        samples, rate = clips[i % len(clips)]
        length = round(seconds * rate)
        start = ROLL * (i // len(clips)) % max(1, len(samples) - length)
        sf.write(Path(folder) / f"{i:06d}.wav", samples[start : start + length, 0], rate, subtype="PCM_16")


def write_dataset(data_dir: str, folder: str, n_rows: int, n_folds: int = 10) -> dict:
    """Write a dataset of `n_rows` clips in fsat's layout, row i in fold i mod `n_folds`.

    Returns:
        ``rows``; ``clips``: number of different clips; ``classes``; ``samplerate`` in Hz and ``seconds`` of the first.
    """
    import soundfile as sf

    written = _write_clips(Path(data_dir), Path(folder) / "audio_train", n_rows)
    with open(Path(folder) / "train.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["fname", "label", "manually_verified", "fold"])
        writer.writerows([path.name, label, 1, i % n_folds] for i, (path, label) in enumerate(written))
    info = sf.info(written[0][0])
    clips = min(n_rows, len(_rows(Path(data_dir))))
    classes = len({label for _, label in written})
    return {
        "rows": n_rows,
        "clips": clips,
        "classes": classes,
        "samplerate": info.samplerate,
        "seconds": info.duration,
    }


def write_softer(data_dir: str, folder: str, decibels: float) -> str:
    """Write the training clips of DATA_DIR at a lower level, with the same table; return `folder`."""
    import shutil

    import soundfile as sf

    audio = Path(folder) / "audio_train"
    audio.mkdir(parents=True)
    shutil.copy(Path(data_dir) / "train.csv", folder)
    for row in _rows(Path(data_dir)):
        samples, rate = sf.read(Path(data_dir) / "audio_train" / row["fname"], dtype="float32")
        sf.write(audio / row["fname"], samples * 10 ** (-decibels / 20), rate, subtype="FLOAT")
    return folder


def write_noise(folder: str, megabytes: float, seconds: float, samplerate: int, n_folds: int = 10) -> dict:
    """Write a dataset of white noise whose decoded float32 samples take `megabytes` at `samplerate`."""
    import numpy as np
    import soundfile as sf

    audio = Path(folder) / "audio_train"
    audio.mkdir(parents=True)
    length = round(seconds * samplerate)
    n_rows = max(n_folds * 2, round(megabytes * 1e6 / (4 * length)))
    rng = np.random.default_rng(1001)
    with open(Path(folder) / "train.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["fname", "label", "manually_verified", "fold"])
        for i in range(n_rows):
            noise = rng.integers(-(2**15), 2**15, length, dtype=np.int16)
            sf.write(audio / f"{i:06d}.wav", noise, samplerate, subtype="PCM_16")
            writer.writerow([f"{i:06d}.wav", f"class{i // n_folds % 2}", 1, i % n_folds])
    return {"rows": n_rows, "megabytes": n_rows * length * 4 / 1e6}


def write_decoded(data_dir: str, path: str, sampling_rate: int, fold: int) -> int:
    """Decode the clips of all other folds into an .npz file: concatenated samples, lengths, targets.

    Returns:
        the number of classes.
    """
    import librosa
    import numpy as np

    rows = [row for row in _rows(Path(data_dir)) if int(row["fold"]) != fold]
    clips = [librosa.load(Path(data_dir) / "audio_train" / row["fname"], sr=sampling_rate)[0] for row in rows]
    labels = sorted({row["label"] for row in rows})
    np.savez(
        path,
        samples=np.concatenate(clips),
        lengths=[len(clip) for clip in clips],
        targets=[labels.index(row["label"]) for row in rows],
    )
    return len(labels)


def _rows(data_dir: Path) -> list[dict[str, str]]:
    with open(data_dir / "train.csv", newline="") as file:
        return list(csv.DictReader(file))


def _write_clips(data_dir: Path, folder: Path, count: int) -> list[tuple[Path, str]]:
    """Write the repeated clips; return path and label of each."""
    import numpy as np
    import soundfile as sf

    folder.mkdir(parents=True, exist_ok=True)
    rows = _rows(data_dir)
    written = []
    for i in range(count):
        row = rows[i % len(rows)]
        samples, rate = sf.read(data_dir / "audio_train" / row["fname"], dtype="int16", always_2d=True)
        path = folder / f"{i:06d}.wav"
        sf.write(path, np.roll(samples[:, 0], ROLL * (i // len(rows))), rate, subtype="PCM_16")
        written.append((path, row["label"]))
    return written
