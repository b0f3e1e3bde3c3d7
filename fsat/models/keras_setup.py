"""Keras on TensorFlow: how it is imported, its threads, seeds and precision.

bfloat16 has the range of float32 and 8 of its 24 bits of precision: half the memory traffic, and matrix units on
processors that have them. Weights, normalization, dense layers and the optimizer stay float32.

Keras reads defaults from ``keras.json`` and the environment when it is imported. Results depend on `KERAS_CONFIG`:
both are hidden from the import, and a Keras that the process has already imported with other values is an error.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType

from fsat.config import Config
from fsat.errors import ConfigError, printable
from fsat.model_presets import MODELS
from fsat.progress import say

KERAS_CONFIG: dict[str, str | float] = {
    "backend": "tensorflow", "floatx": "float32", "epsilon": 1e-7, "image_data_format": "channels_last",
}  # fmt: skip
"""Functions of ``keras.config``, and the values that results depend on: Keras's own defaults."""

HIDDEN = ("KERAS_", "TF_USE_LEGACY_KERAS")
"""Beginnings of the environment variables that the import of Keras must not see."""

CHANGES_RESULTS = (
    "TF_ENABLE_ONEDNN_OPTS", "TF_DISABLE_MKL", "TF_XLA_FLAGS", "TF_ENABLE_AUTO_MIXED_PRECISION",
    "NVIDIA_TF32_OVERRIDE", "TF_SET_ONEDNN_FPMATH_MODE", "ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE",
    "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA",
)  # fmt: skip
"""Environment variables by which TensorFlow, oneDNN or CUDA compute in another order or precision."""

CPU_FLAGS, GPU_CAPABILITY = {"avx512_bf16", "amx_bf16"}, (8, 0)
"""Flags in ``/proc/cpuinfo``, and lowest CUDA compute capability (Ampere), of processors that multiply in bfloat16."""

INTER_OP_THREADS = 2
"""Operations that run at the same time; it does not affect results."""


def n_threads() -> int:
    """Return the number of threads of one operation: ``FSAT_THREADS``, 4 by default, or raise `ConfigError`.

    It determines the order of sums and so their last bits; it does not depend on the number of cores, nor on how many
    folds share them.
    """
    value = os.environ.get("FSAT_THREADS", "4")
    if not value.isdecimal() or int(value) < 1:
        raise ConfigError(f"FSAT_THREADS={printable(value)}: expected a whole number of at least 1")
    return int(value)


def import_keras() -> ModuleType:
    """Import Keras on TensorFlow with `KERAS_CONFIG` and `n_threads`, without TensorFlow's start-up messages.

    If the process has already imported Keras, its thread settings stay, and `ConfigError` is raised if it has another
    backend or other defaults.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "keras" not in sys.modules:
        threads = n_threads()
        with _hidden_settings(), quiet_stderr():
            import tensorflow as tf  # imports Keras too
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(INTER_OP_THREADS)
        tf.config.experimental.enable_tensor_float_32_execution(False)  # GPUs would round float32 to 10 bits
        tf.get_logger().setLevel("ERROR")  # otherwise a warning for each new batch shape
        _warn_of_variables()
    import keras

    values = {name: getattr(keras.config, name)() for name in KERAS_CONFIG}
    if differing := [name for name, value in KERAS_CONFIG.items() if values[name] != value]:
        found, expected = (
            ", ".join(f"{name}={printable(config[name])}" for name in differing) for config in (values, KERAS_CONFIG)
        )
        advice = "remove that from keras.json and KERAS_BACKEND, or import the tagger before anything imports Keras"
        raise ConfigError(f"this process has imported Keras with {found}: expected {expected}; {advice}")
    return keras


@contextmanager
def _hidden_settings() -> Iterator[None]:
    """Hide ``keras.json`` and the environment variables `HIDDEN` from the import of Keras."""
    hidden = {name: value for name, value in os.environ.items() if name.startswith(HIDDEN)}
    for name in hidden:
        del os.environ[name]
    nowhere = os.path.join(os.devnull, "keras")  # has no keras.json, and Keras cannot write one
    substitutes = {"KERAS_BACKEND": str(KERAS_CONFIG["backend"]), "KERAS_HOME": nowhere}
    os.environ.update(substitutes)
    try:
        yield
    finally:
        for name in substitutes:
            del os.environ[name]
        os.environ.update(hidden)


def _warn_of_variables() -> None:
    """Name the environment variables that change results, in all processes but those that fsat starts."""
    names = [name for name in CHANGES_RESULTS if os.environ.get(name)]
    if names and multiprocessing.parent_process() is None:
        values = ", ".join(f"{name}={printable(os.environ[name])}" for name in names)
        advice = f"unset {'it' if len(names) == 1 else 'them'} for the scores of other machines"
        say(f"warning: {values}: changes scores slightly; {advice}")


def seed_everything(seed: int) -> None:
    """Seed all random generators and make every operation deterministic."""
    keras = import_keras()
    import tensorflow as tf

    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Suppress standard error, C++ code's included; print it if the block raises."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as captured:
        os.dup2(captured.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(stderr, 2)
            captured.seek(0)
            os.write(2, captured.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def settle_precision(config: Config) -> Config:
    """Replace ``precision=auto`` by what suits this machine and the model."""
    if config.precision != "auto":
        return config
    use_bfloat16 = MODELS[config.model].bfloat16 and machine_has_bfloat16()
    return replace(config, precision="mixed_bfloat16" if use_bfloat16 else "float32")


@cache
def machine_has_bfloat16() -> bool:
    """Return whether TensorFlow's device, the first GPU or else the CPU, has bfloat16 multiplication."""
    import_keras()
    import tensorflow as tf

    if gpus := tf.config.list_physical_devices("GPU"):
        capability = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability", (0, 0))
        return bool(capability >= GPU_CAPABILITY)
    return bool(CPU_FLAGS & _cpu_flags())


def _cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> set[str]:
    """Return the flags of the first processor; empty on systems without this file."""
    lines: list[str] = []
    with suppress(OSError):
        lines = cpuinfo.read_text().splitlines()
    return next((set(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), set())
