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
    from pathlib import Path

    import keras


def build(config: Config, n_classes: int) -> keras.Model:
    """Make `config.model`, ready to predict.

    Args:
        config: gives the model and its input's shape.
        n_classes: width of the softmax.

    Returns:
        A model that maps float32 (batch, *config.dim) to probabilities (batch, n_classes).
    """
    import_keras()
    module, function = MODELS[config.model].builder.split(":")
    model = getattr(importlib.import_module(module), function)(config, n_classes)
    model.jit_compile = False  # XLA runs conv1d at a third of the speed on a CPU
    return model


def build_for_training(config: Config, n_classes: int) -> keras.Model:
    """As `build`, compiled with Adam at the configured learning rate."""
    keras = import_keras()
    model = build(config, n_classes)
    model.compile(
        optimizer=keras.optimizers.Adam(config.learning_rate),
        loss="categorical_crossentropy",
        metrics=["acc"],
        jit_compile=False,
    )
    return model


def save_weights(model: keras.Model, path: Path) -> None:
    """Write a model's weights without its optimizer's state; the name must end in ``.weights.h5``."""
    import_keras().Model(model.inputs, model.outputs).save_weights(path)


def import_keras():
    """Keras on TensorFlow, without the notes that TensorFlow prints when it is loaded."""
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "keras" not in sys.modules:
        with _quiet_stderr():
            import tensorflow as tf  # first, so that its notes are the ones held back
        tf.get_logger().setLevel("ERROR")  # it warns of each new batch shape
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
