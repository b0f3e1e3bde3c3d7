"""Compare fsat's clip store with librosa, file by file, and fsat's MFCC with librosa's."""

from __future__ import annotations

import shutil
import time
from functools import partial
from pathlib import Path

from benchmarks.harness import Bench, Row, Samples, Section, alternate, call, samples

NEEDS = ("resampy",)
FILES, RATE = 640, 16000
CROPS, CROP_RATE, N_MFCC = 64, 44100, 40


def run(bench: Bench) -> Section:
    """Compare decoding, then MFCC."""
    n_files = bench.pick(FILES, 20)
    folder = str(bench.folder / "data")
    facts = call("benchmarks.sounds:write_dataset", data_dir=str(bench.data_dir), folder=folder, n_rows=n_files)
    sides = {
        "store": partial(_build_store, bench, folder),
        "librosa": partial(call, "benchmarks.decode:librosa_loads", folder=folder),
    }
    results = alternate(bench.repeats, sides)
    librosa = _rates("librosa.load, kaiser_fast", results["librosa"], n_files, "seconds")
    store = _rates("fsat's store", results["store"], n_files, "store")
    with_checks = _rates("fsat", results["store"], n_files, "check", "store")
    rows = [
        Row(f"decoding to {RATE} Hz", store, librosa, at_least=25),
        Row("the same with checks and hashes of the files", with_checks, librosa),
    ]

    crops = str(bench.folder / "crops.npy")
    difference = call("benchmarks.decode:write_crops", folder=folder, path=crops)
    passes = bench.pick(10, 2)
    mfcc_sides = {
        "mfcc: fsat": partial(call, "benchmarks.decode:fsat_mfcc", path=crops, passes=passes),
        "mfcc: librosa": partial(call, "benchmarks.decode:librosa_mfcc", path=crops, passes=passes),
    }
    fsat_results, librosa_results = alternate(bench.repeats, mfcc_sides).values()
    fsat = samples("fsat", fsat_results, "rate", "crops/s")
    one_by_one = samples("librosa, crop by crop", librosa_results, "rate", "crops/s")
    rows += [
        Row(f"{N_MFCC} MFCC of {CROPS} crops of 2 s at {CROP_RATE} Hz", fsat, one_by_one, at_least=5),
        Row("maximum absolute difference", Samples("", [difference], ""), at_most=1e-3),
    ]
    notes = [
        f"{n_files} WAV files of {facts['seconds']:g} s at {facts['samplerate']} Hz, 16 bits, mono: {facts['clips']} "
        "real clips, repeated, no two equal; read from the page cache on both sides. fsat: `open_clips` into an empty "
        "cache folder, flushed to disk, on all cores. librosa: `load(path, sr=16000, "
        'res_type="kaiser_fast")` file by file, after its compilation by numba.',
        f"MFCC: mean of {passes} passes over the same crops after one that is not counted.",
    ]
    return Section(rows, notes, ["librosa", "resampy", "soxr", "soundfile", "numpy", "scipy"])


def _rates(who: str, results: list[dict[str, float]], n_files: int, *parts: str) -> Samples:
    return Samples(who, [n_files / sum(result[part] for part in parts) for result in results], "clips/s")


def _build_store(bench: Bench, folder: str) -> dict[str, float]:
    cache = bench.folder / "empty-cache"
    try:
        return call("benchmarks.decode:fsat_store", environment={"FSAT_CACHE_DIR": str(cache)}, folder=folder)
    finally:
        shutil.rmtree(cache, ignore_errors=True)


def _fnames(folder: str) -> list[str]:
    return sorted(path.name for path in (Path(folder) / "audio_train").iterdir())


def fsat_store(folder: str) -> dict[str, float]:
    """Return the seconds to ``check`` and hash the files and to build the ``store``."""
    import soundfile  # noqa: F401  (not timed)
    import soxr  # noqa: F401

    from fsat.data.clip_checks import check_clips
    from fsat.data.clip_store import ClipFile, open_clips

    fnames, audio = _fnames(folder), Path(folder) / "audio_train"
    start = time.perf_counter()
    facts = check_clips(audio, fnames, "clips")
    checked = time.perf_counter()
    files = [
        ClipFile(audio / fname, fact.digest, fact.stamp, fact.frames, fact.samplerate)
        for fname, fact in zip(fnames, facts, strict=True)
    ]
    clips = open_clips(files, RATE)
    stored = time.perf_counter()
    if len(clips) != len(fnames) or any(clips.errors):
        raise RuntimeError("not all clips were decoded")
    return {"check": checked - start, "store": stored - checked}


def librosa_loads(folder: str) -> dict[str, float]:
    """Return the seconds to load all files one by one, as the notebook does."""
    import librosa

    paths = [Path(folder) / "audio_train" / fname for fname in _fnames(folder)]
    librosa.load(paths[0], sr=RATE, res_type="kaiser_fast")  # compiles
    start = time.perf_counter()
    for path in paths:
        librosa.load(path, sr=RATE, res_type="kaiser_fast")
    return {"seconds": time.perf_counter() - start}


def write_crops(folder: str, path: str) -> float:
    """Write float32 crops (CROPS, 2 s) of clips; return the maximum difference between fsat's and librosa's MFCC."""
    import librosa
    import numpy as np

    from fsat.data.mfcc import mfcc

    length = 2 * CROP_RATE
    crops = np.zeros((CROPS, length), dtype=np.float32)
    fnames = _fnames(folder)
    for i, crop in enumerate(crops):
        clip, _ = librosa.load(Path(folder) / "audio_train" / fnames[i % len(fnames)], sr=CROP_RATE)
        middle = clip[max(0, (len(clip) - length) // 2) :][:length]
        crop[: len(middle)] = middle
    np.save(path, crops)
    theirs = np.stack([librosa.feature.mfcc(y=crop, sr=CROP_RATE, n_mfcc=N_MFCC) for crop in crops])
    return float(np.abs(mfcc(crops, CROP_RATE, N_MFCC) - theirs).max())


def fsat_mfcc(path: str, passes: int) -> dict[str, float]:
    """Return crops per second, as one batch."""
    import numpy as np

    from fsat.data.mfcc import mfcc

    crops = np.load(path)
    return _rate(lambda: mfcc(crops, CROP_RATE, N_MFCC), passes)


def librosa_mfcc(path: str, passes: int) -> dict[str, float]:
    """Return crops per second, one by one."""
    import librosa
    import numpy as np

    crops = np.load(path)
    return _rate(lambda: [librosa.feature.mfcc(y=crop, sr=CROP_RATE, n_mfcc=N_MFCC) for crop in crops], passes)


def _rate(one_pass, passes: int) -> dict[str, float]:
    one_pass()
    start = time.perf_counter()
    for _ in range(passes):
        one_pass()
    return {"rate": CROPS * passes / (time.perf_counter() - start)}
