"""Compare log-mel crops from fsat's feature store with log-mel spectrograms computed in the TensorFlow graph."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

from benchmarks.harness import Bench, Row, Samples, Section, alternate, call, samples

BATCHES = 200


def run(bench: Bench) -> Section:
    """Read batches of crops as the training of cnn_logmel does, in both ways."""
    arguments = {"data_dir": str(bench.data_dir), "n_batches": bench.pick(BATCHES, 5)}
    sides = {
        "stored": partial(call, "benchmarks.spectra:stored", **arguments),
        "in the graph": partial(call, "benchmarks.spectra:in_the_graph", **arguments),
    }
    stored_results, graph_results = alternate(bench.repeats, sides).values()
    builds = [
        call(
            "benchmarks.spectra:build",
            environment={"FSAT_CACHE_DIR": str(bench.folder / f"cache{i}")},
            data_dir=str(bench.data_dir),
        )
        for i in range(bench.repeats)
    ]
    rows = [
        Row(
            "crops of 2.56 s as log-mel spectrograms",
            samples("fsat, from the store", stored_results, "rate", "crops/s"),
            samples("TensorFlow, from the waveform in the graph", graph_results, "rate", "crops/s"),
            at_least=1,
        ),
        Row("maximum absolute difference in dB", samples("", graph_results, "difference", "")),
        Row("computing and storing them, once", Samples("fsat", builds, "s")),
    ]
    notes = [
        f"The training clips of DATA_DIR at 32 kHz, decoded before; {arguments['n_batches']} batches of 16 random "
        "crops after five that are not counted. In the graph: `tf.signal.stft`, mel bands and decibels as one compiled "
        "function of waveform crops that are read from the clip store. Computing and storing: into an empty folder "
        "each time, with the clips decoded and librosa imported before."
    ]
    return Section(rows, notes, ["tensorflow", "numpy", "scipy", "librosa"])


def _clips(data_dir: str):
    """Return the decoded training clips and the Config."""
    from fsat.commands.train import prepare_dataset
    from fsat.config import Config
    from fsat.data.dataset import Source

    config = Config.resolve({}, "cnn_logmel")
    return prepare_dataset(Source(Path(data_dir)), config).train, config


def _prepared(data_dir: str):
    """Return the clips, their spectrograms, the Config, and a function for random batches of rows and first frames."""
    import numpy as np

    from fsat.data.logmel import spectra

    clips, config = _clips(data_dir)
    source = spectra(clips, config)
    rng = np.random.default_rng(0)
    usable = np.flatnonzero(source.n_frames >= config.n_frames)

    def batches(count: int):
        for _ in range(count):
            rows = rng.choice(usable, config.batch_size)
            yield rows, rng.integers(source.n_frames[rows] - config.n_frames + 1)

    return clips, source, config, batches


def build(data_dir: str) -> float:
    """Return the seconds to compute and store the spectrograms of all training clips."""
    import librosa

    from fsat.data.logmel import spectra

    clips, config = _clips(data_dir)
    librosa.filters.mel(sr=config.sampling_rate, n_fft=2 * config.hop_length)  # imports lazily
    start = time.perf_counter()
    spectra(clips, config)
    return time.perf_counter() - start


def stored(data_dir: str, n_batches: int) -> dict[str, float]:
    """Read crops of stored spectrograms; return the ``rate`` per second."""
    _, source, config, batches = _prepared(data_dir)
    for rows, starts in batches(5):
        source.crops(rows, starts, config.n_frames)
    start = time.perf_counter()
    for rows, starts in batches(n_batches):
        source.crops(rows, starts, config.n_frames)
    return {"rate": n_batches * config.batch_size / (time.perf_counter() - start)}


def in_the_graph(data_dir: str, n_batches: int) -> dict[str, float]:
    """Compute them with TensorFlow; return the ``rate`` per second and the maximum ``difference`` in dB."""
    import librosa
    import numpy as np

    from fsat.models import import_keras

    import_keras()
    import tensorflow as tf

    from fsat.data.logmel import FLOOR_DB, LOWEST

    clips, source, config, batches = _prepared(data_dir)
    hop, n_frames = config.hop_length, config.n_frames
    mel = librosa.filters.mel(sr=config.sampling_rate, n_fft=2 * hop, n_mels=config.n_mels, fmin=LOWEST)
    bands = tf.constant(mel.T.astype(np.float32))

    @tf.function
    def logmel(crops):
        spectrum = tf.signal.stft(crops, 2 * hop, hop, 2 * hop)  # batch, frames, bins; a periodic Hann window
        power = tf.square(tf.math.real(spectrum)) + tf.square(tf.math.imag(spectrum))
        level = tf.maximum(power @ bands, 10 ** (FLOOR_DB / 10))
        return 10 / np.log(10).astype(np.float32) * tf.math.log(level) - FLOOR_DB

    def crops(rows: np.ndarray, starts: np.ndarray) -> np.ndarray:
        return logmel(clips.crops(rows, (starts - 1) * hop, (n_frames + 1) * hop)).numpy()

    difference = max(np.abs(crops(*batch) - source.crops(*batch, n_frames)).max() for batch in batches(5))
    start = time.perf_counter()
    for batch in batches(n_batches):
        crops(*batch)
    return {"rate": n_batches * config.batch_size / (time.perf_counter() - start), "difference": float(difference)}
