"""Embeddings of windows by any backbone, on all cores.

A network gets one window at a time, or a batch of the size that is fixed in its file: a window's embedding does not
depend on the other windows of a call, not even in the last bits. Windows are computed in parallel, each by one thread
(ONNX, TensorFlow Lite) or by TensorFlow's.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np

from fsat.backbones.descriptor import Backbone, check_sha256, content_sha256
from fsat.backbones.network import ModelFile, Network, open_network, read_checked
from fsat.errors import FsatError, WindowError, printable
from fsat.parallel.executor import cores

ROUNDING = 1e-9
"""Deviation from the mean, relative to the greatest sample, that a constant window has by rounding."""

EXPECTED = "expected (size,), (batch, size) or (batch, frames, size)"


class Runtime:
    """An open backbone.

    Attributes:
        backbone: its descriptor.
        size: number of values of an embedding.
    """

    def __init__(self, backbone: Backbone, network: Network, workers: int | None = None) -> None:
        self.backbone, self._network, self._workers = backbone, network, workers or len(cores())
        self.size = backbone.size or 0
        noise = np.random.default_rng(0).uniform(-0.5, 0.5, (1, backbone.n_samples or backbone.sampling_rate))
        self._padded_answer(noise.astype(np.float32))  # sets the size

    def embed(self, windows: np.ndarray) -> np.ndarray:
        """Return the embeddings of windows, float32 (n, n_samples) -> (n, `size`); several threads may call this.

        Raises `WindowError` if an embedding is NaN or infinite, `FsatError` if the windows have another length than the
        backbone's.
        """
        n_samples = self.backbone.n_samples
        if windows.ndim != 2 or not windows.shape[1] or n_samples not in (None, windows.shape[1]):
            expected = f"(n, {n_samples or 'samples'})"
            raise FsatError(f"{self.backbone}: received windows of shape {windows.shape}; expected {expected}")
        n = self._network.batch or 1
        batches = [windows[i : i + n] for i in range(0, len(windows), n)]
        if not batches:
            return np.zeros((0, self.size), np.float32)
        if len(batches) == 1 or self._workers == 1:
            return np.concatenate([self._padded_answer(batch) for batch in batches])
        pool = _threads(self._workers, os.getpid())
        futures = [pool.submit(self._padded_answer, batch) for batch in batches]
        try:
            return np.concatenate([future.result() for future in futures])
        finally:
            for future in futures:  # after an error the others need not be computed
                future.cancel()

    def embed_together(self, windows: np.ndarray) -> np.ndarray:
        """Return the embeddings of windows, (n, n_samples), computed in one call if the network takes any batch."""
        if self._network.rank == 1 or self._network.batch is not None:
            return self.embed(windows)
        return self._answer(windows)

    def _padded_answer(self, windows: np.ndarray) -> np.ndarray:
        """Return the embeddings of at most as many windows as the network takes at once."""
        n_missing = max(0, (self._network.batch or 1) - len(windows))
        return self._answer(np.concatenate([windows, np.repeat(windows[-1:], n_missing, axis=0)]))[: len(windows)]

    def _answer(self, windows: np.ndarray) -> np.ndarray:
        """Return the embeddings of windows that are given to the network in one call."""
        samples = scaled(windows, self.backbone.input.peak)
        answer = self._network.call(samples[0] if self._network.rank == 1 else samples)
        embeddings = per_window(np.asarray(answer), len(windows), str(self.backbone))
        self.size = self.size or embeddings.shape[1]
        if embeddings.shape[1] != self.size:
            fault = f"an embedding of {windows.shape[1]} samples has {embeddings.shape[1]} values, expected {self.size}"
            raise WindowError(
                f"{self.backbone}: {fault}; correct or remove size, set a window, or choose another output"
            )
        if not np.isfinite(embeddings).all():
            fault = "an embedding has NaN or infinite values"
            raise WindowError(f"{self.backbone}: {fault}; leave the clip out, or choose another output or scaling")
        return embeddings


@cache
def _threads(n_workers: int, process: int) -> ThreadPoolExecutor:
    """Return the threads of all calls in a process: no more windows at once than workers. A fork has none of them."""
    return ThreadPoolExecutor(n_workers, "embed")


def open_backbone(backbone: Backbone, workers: int | None = None) -> Runtime:
    """Load a network whose SHA-256 is that of its descriptor; raise `ConfigError` or `FsatError` in one line.

    Args:
        workers: number of windows that are computed in parallel, by default the number of cores.
    """
    if backbone.path.is_dir():
        check_sha256(backbone, content_sha256(backbone.path))
        file = read_model(backbone.format, str(backbone), backbone.path)
    else:
        file = read_model(backbone.format, str(backbone), read_checked(backbone))
    return Runtime(backbone, open_network(file, backbone), workers)


def read_model(format: str, name: str, content: bytes | Path) -> ModelFile:
    """Return a model file of one of the formats; it is refused if it contains code.

    Args:
        name: of the file, in errors.
        content: bytes of the file, or folder of a SavedModel.
    """
    return _reader(format)(printable(name), content)


def _reader(format: str) -> Callable[..., ModelFile]:
    if format == "tflite":
        from fsat.backbones.tflite import TfliteFile

        return TfliteFile
    if format == "onnx":
        from fsat.backbones.onnx_file import OnnxFile

        return OnnxFile
    if format == "keras":
        from fsat.backbones.keras_file import KerasFile

        return KerasFile
    from fsat.backbones.saved_model import SavedModelFolder

    return SavedModelFolder


def scaled(windows: np.ndarray, peak: float | None) -> np.ndarray:
    """Return windows, float32 (n, n_samples), without their means and with a greatest absolute value of `peak`."""
    windows = np.ascontiguousarray(windows, dtype=np.float32)
    if peak is None:
        return windows
    centred = windows - windows.mean(axis=1, keepdims=True, dtype=np.float64)
    greatest = np.abs(centred).max(axis=1, keepdims=True)
    is_silent = greatest <= ROUNDING * np.abs(windows).max(axis=1, keepdims=True)
    return np.where(is_silent, 0, centred * (peak / np.where(is_silent, 1, greatest))).astype(np.float32)


def per_window(answer: np.ndarray, n: int, name: str) -> np.ndarray:
    """Return a network's answer for `n` windows as float32 (n, size): the mean over frames, without axes of length 1.

    Raises `FsatError` if it has another shape, or is not made of floats.
    """
    shape = answer.shape
    if not np.issubdtype(answer.dtype, np.floating):
        raise FsatError(f"{name}: the output is {answer.dtype}; expected floating-point numbers, {EXPECTED}")
    if n == 1 and (answer.ndim == 1 or (answer.ndim == 2 and answer.shape[1] == 1)):
        answer = answer.reshape(1, -1)
    if answer.ndim > 2:
        inner = [length for length in answer.shape[1:] if length != 1]
        answer = answer.reshape(answer.shape[0], *(inner or [1]))
    is_rows = answer.ndim == 2 and len(answer) % n == 0  # all frames of a window before those of the next
    if answer.size == 0 or not (is_rows or (answer.ndim == 3 and len(answer) == n)):
        raise FsatError(f"{name}: the output for {n} of its inputs has shape {shape}; {EXPECTED}")
    frames = answer.reshape(n, -1, answer.shape[-1])
    return frames.mean(axis=1, dtype=np.float64).astype(np.float32)
