"""The head on embeddings: pooling, absent windows, standardisation, exports' operations; weights of classes."""

from __future__ import annotations

import numpy as np
import pytest

from fsat.config import Config
from fsat.errors import ConfigError
from fsat.models import build
from fsat.training.fold import adapt_normalization
from fsat.training.targets import Targets

SIZE = 5
WINDOWS = np.random.default_rng(0).normal(2, [1, 2, 3, 4, 0], (4, 3, SIZE)).astype(np.float32)


def config_of(**options: object) -> Config:
    return Config.resolve({"model": "embedding", "embedding_size": SIZE, **options}).for_task("single")


class Levels:
    """What `adapt_normalization` uses of the training clips: the levels of their embeddings."""

    @property
    def embeddings(self) -> Levels:
        return self

    def levels(self) -> tuple[np.ndarray, np.ndarray]:
        return WINDOWS.reshape(-1, SIZE).mean(axis=0), WINDOWS.reshape(-1, SIZE).std(axis=0)


@pytest.mark.parametrize("head", ["linear", "mlp"])
@pytest.mark.parametrize("pooling", ["mean", "max", "attention"])
def test_absent_windows_and_their_order_do_not_count(pooling: str, head: str) -> None:
    model = build(config_of(pooling=pooling, head=head), 3)
    adapt_normalization(model, Levels())
    rng = np.random.default_rng(1)
    for layer in model.layers:
        if layer.name in ("classes", "hidden"):
            layer.set_weights([rng.normal(0, 0.1, weights.shape) for weights in layer.get_weights()])
    expected = model.predict_on_batch(WINDOWS)
    assert np.ptp(expected, axis=0).max() > 0.01  # the clips differ
    with_absent = np.concatenate([WINDOWS[:, [2, 0]], np.zeros((4, 2, SIZE), np.float32), WINDOWS[:, [1]]], axis=1)
    np.testing.assert_allclose(model.predict_on_batch(with_absent), expected, rtol=1e-4)
    assert np.isfinite(model.predict_on_batch(np.zeros((2, 3, SIZE), np.float32))).all()


def test_windows_are_standardised_and_scaled_and_the_linear_head_starts_at_equal_scores() -> None:
    model = build(config_of(), 3)
    adapt_normalization(model, Levels())
    mean, deviation = Levels().levels()
    expected = np.append(
        (WINDOWS - mean)[..., :-1] / deviation[:-1], np.zeros((4, 3, 1)), axis=-1
    )  # the last: constant
    expected /= np.sqrt(np.mean(expected**2, axis=-1, keepdims=True))
    layer = model.get_layer("standardise")
    for values in (layer(WINDOWS), layer.in_keras(WINDOWS)):
        np.testing.assert_allclose(np.asarray(values), expected, atol=1e-4)
    np.testing.assert_allclose(model.predict_on_batch(WINDOWS), 1 / 3, rtol=1e-6)
    with pytest.raises(ConfigError, match="expected embedding_size to be settled"):
        build(Config(model="embedding"), 3)


def test_balanced_class_weights_are_inverse_to_the_clips_and_keep_the_mean() -> None:
    classes, trusted = np.array([0, 0, 0, 1, -1, 0]), np.array([True, True, True, True, True, False])
    targets = Targets(classes, trusted, n_classes=3)
    config = Config(class_weights="balanced", unverified_weight="0")
    weights = targets.weights(config, epoch=0)
    np.testing.assert_allclose(weights, [2 / 3, 2 / 3, 2 / 3, 2, 0, 0], rtol=1e-6)
    assert weights[weights > 0].mean() == pytest.approx(1)
    np.testing.assert_array_equal(targets.weights(Config(), 0), [1, 1, 1, 1, 0, 1])
