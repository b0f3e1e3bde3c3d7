"""Keras models by name. A new model is a builder function here and a line in `fsat.config.MODELS`."""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fsat.config import MODELS, Config

if TYPE_CHECKING:
    from collections.abc import Iterator

    import keras


def build(config: Config, n_classes: int) -> keras.Model:
    """Make and compile `config.model`.

    Args:
        config: gives the model, its input's shape and the learning rate.
        n_classes: width of the softmax.

    Returns:
        A compiled model that maps float32 (batch, *config.dim) to probabilities (batch, n_classes).
    """
    keras = import_keras()
    module, function = MODELS[config.model].builder.split(":")
    model = getattr(importlib.import_module(module), function)(config, n_classes)
    model.compile(
        optimizer=keras.optimizers.Adam(config.learning_rate),
        loss="categorical_crossentropy",
        metrics=["acc"],
        jit_compile=False,  # XLA trains conv1d at a third of the speed on a CPU
    )
    return model


def import_keras():
    """Keras on TensorFlow, without the notes that TensorFlow prints when it is loaded."""
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "keras" not in sys.modules:
        with _quiet_stderr():
            import tensorflow  # noqa: F401  (first, so that its notes are the ones held back)
    import keras

    return keras


def seed_everything(seed: int) -> None:
    """Start every random stream from `seed` and make each operation give the same bits on every run."""
    keras = import_keras()
    import tensorflow as tf

    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Hold back what is written to standard error, C++ code included; it is shown if an exception comes."""
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(saved, 2)
            held.seek(0)
            os.write(2, held.read())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)
