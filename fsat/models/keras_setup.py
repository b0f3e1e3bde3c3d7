"""Keras on TensorFlow: how it is imported, its threads, seeds and precision.

bfloat16 has the range of float32 and 8 of its 24 bits of precision: half the memory traffic, and matrix units on
processors that have them. Weights, normalization, dense layers and the optimizer stay float32.
"""

from __future__ import annotations

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
    """Import Keras on TensorFlow with `n_threads`, without TensorFlow's start-up messages.

    If the process has already imported Keras, its thread settings stay.
    """
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "keras" not in sys.modules:
        with quiet_stderr():
            import tensorflow as tf  # before Keras, so that its messages are suppressed
        tf.config.threading.set_intra_op_parallelism_threads(n_threads())
        tf.config.threading.set_inter_op_parallelism_threads(INTER_OP_THREADS)
        tf.get_logger().setLevel("ERROR")  # otherwise a warning for each new batch shape
    import keras

    return keras


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
