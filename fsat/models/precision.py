"""Which arithmetic a model's layers use on this machine.

bfloat16 has the range of float32 and 8 bits of its 24: half the memory traffic, and matrix units where a processor has
them. Weights, normalisation, dense layers and the optimizer stay float32.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

from fsat.config import MODELS, Config

CPU_FLAGS = {"avx512_bf16", "amx_bf16"}
"""Names in ``/proc/cpuinfo`` of instructions that multiply bfloat16."""

GPU_CAPABILITY = (8, 0)
"""The least CUDA compute capability with bfloat16 (Ampere)."""


def settle_precision(config: Config) -> Config:
    """The Config with ``precision=auto`` replaced by what suits this machine and the model."""
    if config.precision != "auto":
        return config
    gains = MODELS[config.model].bfloat16 and machine_has_bfloat16()
    return replace(config, precision="mixed_bfloat16" if gains else "float32")


@cache
def machine_has_bfloat16() -> bool:
    """Whether what TensorFlow computes on, the first GPU or else the processor, multiplies bfloat16."""
    from fsat.models import import_keras

    import_keras()
    import tensorflow as tf

    if gpus := tf.config.list_physical_devices("GPU"):
        capability = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability", (0, 0))
        return capability >= GPU_CAPABILITY
    return bool(CPU_FLAGS & _cpu_flags())


def _cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> set[str]:
    """Flags of the first processor; none where the system has no such file."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return set()
    return next((set(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), set())
