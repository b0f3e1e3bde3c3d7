"""Keras models by name.

To add a model:

1. Write a function ``(config, n_classes) -> keras.Model`` in a module of this package; `fsat.models.notebook` and
   `fsat.models.logmel` are examples. Its input is float32 (batch, *config.dim), its output a softmax, or a sigmoid
   for `Config.use_sigmoid`.
2. Add a line to `fsat.model_presets.MODELS`: the function's path, its features, its minimum input and its default
   settings.

Training, prediction, help texts and checks use that line. A normalization layer (`fsat.models.layers.BandNorm` or
`keras.layers.Normalization`) is adapted to the training clips before training. A custom layer needs a method
``in_keras``, see `fsat.models.layers`, so that the model can be exported.
"""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fsat.config import Config
from fsat.model_presets import MODELS
from fsat.models.keras_setup import import_keras, n_threads, quiet_stderr, seed_everything, settle_precision

if TYPE_CHECKING:
    import keras

__all__ = [
    "build", "build_for_training", "compile_predictions", "import_keras", "in_float32", "n_threads", "quiet_stderr",
    "save_weights", "seed_everything", "settle_precision",
]  # fmt: skip


def build(config: Config, n_classes: int) -> keras.Model:
    """Build `config.model`, which maps float32 (batch, *config.dim) to probabilities (batch, n_classes)."""
    keras = import_keras()
    module, function = MODELS[config.model].builder.split(":")
    default_policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(settle_precision(config).precision)
    try:
        model = getattr(importlib.import_module(module), function)(config, n_classes)
    finally:
        keras.config.set_dtype_policy(default_policy)
    model.jit_compile = False  # XLA runs conv1d at a third of the speed on a CPU
    return model


def build_for_training(config: Config, n_classes: int, n_steps: int = 1) -> keras.Model:
    """Build a model compiled with the configured loss and optimizer, for a training of `n_steps` batches.

    The variables of optimizer and metrics are made here: if the first step made them, TensorFlow would trace it twice.
    """
    keras, model = import_keras(), build(config, n_classes)
    from fsat.models.losses import compile_arguments, target_shape

    optimizer = keras.optimizers.Adam(config.learning_rate)
    if config.weight_decay:
        optimizer = keras.optimizers.AdamW(config.learning_rate, weight_decay=config.weight_decay)
        optimizer.exclude_from_weight_decay([v for v in model.trainable_variables if v.name != "kernel"])
    model.compile(optimizer=optimizer, jit_compile=False, **compile_arguments(config, n_steps))
    optimizer.build(model.trainable_variables)
    predictions = keras.ops.zeros((1, n_classes))
    model.compute_metrics(None, keras.ops.zeros((1, *target_shape(config, n_classes))), predictions)
    return model


def compile_predictions(model: keras.Model) -> None:
    """Compile ``model.predict_on_batch`` once, for all batch sizes and input lengths.

    Keras would compile it for the first shape, then for more general ones. Which of these a batch gets, and so the last
    bits of its predictions, would depend on earlier predictions in any thread.
    """
    import tensorflow as tf

    signature = [[(tf.TensorSpec((None, *model.inputs[0].shape[1:]), tf.float32),)]]
    predict = tf.function(lambda data: model.predict_step(data[0]), input_signature=signature, autograph=False)
    model.predict_function = predict


def in_float32(model: keras.Model, config: Config) -> keras.Model:
    """Copy a model into one that computes in float32 on every machine."""
    keras = import_keras()
    result = build(replace(config, precision="float32"), model.output_shape[-1])
    for new, old in zip(result.layers, model.layers, strict=True):
        new.set_weights(old.get_weights())
        if isinstance(new, keras.layers.Normalization):
            new.finalize_state()
    return result


def save_weights(model: keras.Model, path: Path) -> None:
    """Write a model's weights without its optimizer state; the file name must end in ``.weights.h5``."""
    import_keras().Model(model.inputs, model.outputs).save_weights(path)
