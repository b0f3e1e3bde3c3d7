"""Keras models by name. A new model is a builder function here and a line in `fsat.config.MODELS`."""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from fsat.config import MODELS, Config
from fsat.errors import ConfigError, printable
from fsat.models.precision import settle_precision

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
    keras = import_keras()
    module, function = MODELS[config.model].builder.split(":")
    usual = keras.config.dtype_policy()
    keras.config.set_dtype_policy(settle_precision(config).precision)
    try:
        model = getattr(importlib.import_module(module), function)(config, n_classes)
    finally:
        keras.config.set_dtype_policy(usual)
    model.jit_compile = False  # XLA runs conv1d at a third of the speed on a CPU
    return model


def compile_predictions(model: keras.Model) -> None:
    """Have ``model.predict_on_batch`` compiled once, for batches of any size and inputs of any length that it takes.

    Keras would compile it for the first shape, then for more and more general ones. Which of these a batch gets, and so
    the last bits of its predictions, would depend on what was predicted before, in whatever thread.
    """
    import tensorflow as tf

    batch = tf.TensorSpec((None, *model.inputs[0].shape[1:]), tf.float32)
    model.predict_function = tf.function(
        lambda data: model.predict_step(data[0]), input_signature=[[(batch,)]], autograph=False
    )


def build_for_training(config: Config, n_classes: int, n_steps: int = 1) -> keras.Model:
    """As `build`, compiled with the configured loss and optimizer; `n_steps` are the batches of the whole training."""
    import_keras()
    from fsat.models.losses import compile_arguments

    model = build(config, n_classes)
    model.compile(optimizer=_optimizer(config, model), jit_compile=False, **compile_arguments(config, n_steps))
    return model


def _optimizer(config: Config, model: keras.Model) -> keras.Optimizer:
    """Adam at the configured learning rate, with decay of the kernels' weights if that is asked for."""
    keras = import_keras()
    if not config.weight_decay:
        return keras.optimizers.Adam(config.learning_rate)
    optimizer = keras.optimizers.AdamW(config.learning_rate, weight_decay=config.weight_decay)
    optimizer.exclude_from_weight_decay([v for v in model.trainable_variables if v.name != "kernel"])
    return optimizer


def in_float32(model: keras.Model, config: Config) -> keras.Model:
    """A network like this one, with copies of its weights, that computes in float32 on every machine."""
    keras = import_keras()
    copy = build(replace(config, precision="float32"), model.output_shape[-1])
    for new, old in zip(copy.layers, model.layers, strict=True):
        new.set_weights(old.get_weights())
        if isinstance(new, keras.layers.Normalization):
            new.finalize_state()
    return copy


def save_weights(model: keras.Model, path: Path) -> None:
    """Write a model's weights without its optimizer's state; the name must end in ``.weights.h5``."""
    import_keras().Model(model.inputs, model.outputs).save_weights(path)


def n_threads() -> int:
    """Threads that one operation is split over: ``FSAT_THREADS``, 4 if it is not set.

    The split decides the order of sums, and so their last bits. It is the same on every machine, however many cores
    there are and however many folds share them.

    Raises:
        ConfigError: the variable is not a whole number of at least 1.
    """
    given = os.environ.get("FSAT_THREADS", "4")
    if not given.isdecimal() or int(given) < 1:
        raise ConfigError(f"FSAT_THREADS={printable(given)}: expected a whole number of at least 1")
    return int(given)


def import_keras():
    """Keras on TensorFlow, set to `n_threads`, without the notes that TensorFlow prints when it is loaded.

    A program that has imported Keras before keeps its own threads.
    """
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "keras" not in sys.modules:
        with quiet_stderr():
            import tensorflow as tf  # first, so that its notes are the ones held back
        tf.config.threading.set_intra_op_parallelism_threads(n_threads())
        tf.config.threading.set_inter_op_parallelism_threads(2)  # how many operations at once changes no bit
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
def quiet_stderr() -> Iterator[None]:
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
