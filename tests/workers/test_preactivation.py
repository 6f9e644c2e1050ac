"""The network of the tutorial's experiment, against its description and an implementation in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from workers.tasks import Problem
from workers.tasks.fingerprint import fingerprint
from workers.tasks.preactivation import preactivation_resnet

Array = NDArray[np.float64]

SMALL: dict[str, Any] = {"stages": (2, 1, 2), "filters": (4, 4, 8, 12), "classes": 3}


@pytest.fixture(scope="module")
def whole() -> Any:
    return preactivation_resnet()


def layers_of(model: Any, kind: type) -> list[Any]:
    return [layer for layer in model.layers if isinstance(layer, kind)]


# --- its size and its parts


def test_it_has_as_many_parameters_as_can_be_counted_by_hand(whole: Any) -> None:
    # Four per channel in each normalisation (two of them are learned), no biases but the classifier's.
    def bottleneck(channels: int, width: int, *, first: bool) -> int:
        narrow = width // 4
        normalisations = 4 * (channels + narrow + narrow)
        convolutions = channels * narrow + 9 * narrow * narrow + narrow * width
        return normalisations + convolutions + (channels * width if first else 0)

    def stage(channels: int, width: int) -> int:
        return bottleneck(channels, width, first=True) + 8 * bottleneck(width, width, first=False)

    stem = 4 * 3 + 9 * 3 * 64
    head = 4 * 256 + 256 * 10 + 10
    by_hand = stem + stage(64, 64) + stage(64, 128) + stage(128, 256) + head
    assert by_hand == 886_102
    assert whole.count_params() == by_hand


def test_its_parts_are_those_of_its_description(whole: Any) -> None:
    convolutions = layers_of(whole, keras.layers.Conv2D)
    normalisations = layers_of(whole, keras.layers.BatchNormalization)
    (classifier,) = layers_of(whole, keras.layers.Dense)
    assert len(convolutions) == 1 + 27 * 3 + 3
    assert len(normalisations) == 1 + 27 * 3 + 1
    assert {(layer.epsilon, layer.momentum) for layer in normalisations} == {(2e-5, 0.9)}
    assert not any(layer.use_bias for layer in convolutions)
    assert {float(layer.kernel_regularizer.l2) for layer in [*convolutions, classifier]} == {5e-4}
    assert [layer.output.shape[1:] for layer in layers_of(whole, keras.layers.Add)] == (
        [(32, 32, 64)] * 9 + [(16, 16, 128)] * 9 + [(8, 8, 256)] * 9
    )
    (pool,) = layers_of(whole, keras.layers.AveragePooling2D)
    assert pool.output.shape[1:] == (1, 1, 256)
    assert classifier.activation is keras.activations.linear


def test_its_penalty_is_half_a_thousandth_of_every_squared_kernel() -> None:
    small = preactivation_resnet(**SMALL)
    kernels = [weight for weight in small.trainable_weights if weight.name == "kernel"]
    expected = 5e-4 * sum(float(np.square(np.asarray(kernel), dtype=np.float64).sum()) for kernel in kernels)
    assert float(sum(small.losses)) == pytest.approx(expected, rel=1e-5)


# --- what it computes


def kernel(*shape: int) -> Array:
    """The same weights wherever the shape is the same: so that nothing depends on the order of layers."""
    return np.random.default_rng(shape).normal(size=shape) / np.sqrt(np.prod(shape[:-1]))


def statistics(channels: int) -> Array:
    """The scale, offset, mean and variance of a normalisation: (4, channels)."""
    return np.random.default_rng(channels).uniform(0.5, 1.5, size=(4, channels))


def normalised(x: Array) -> Array:
    gamma, beta, mean, variance = statistics(x.shape[-1])
    return gamma * (x - mean) / np.sqrt(variance + 2e-5) + beta


def activated(x: Array) -> Array:
    return np.maximum(normalised(x), 0.0)


def convolved(x: Array, filters: int, size: int, strides: int = 1) -> Array:
    """Padded so that height and width are those of the input over the strides; the odd row goes below."""
    height, channels = x.shape[1], x.shape[-1]
    out = height // strides
    padding = max((out - 1) * strides + size - height, 0)
    around = (padding // 2, padding - padding // 2)
    padded = np.pad(x, ((0, 0), around, around, (0, 0)))
    weights = kernel(size, size, channels, filters)
    result = np.zeros((len(x), out, out, filters))
    for row in range(size):
        for column in range(size):
            seen = padded[:, row : row + height : strides, column : column + height : strides][:, :out, :out]
            result += seen @ weights[row, column]
    return result


def bottleneck(x: Array, filters: int, strides: int, *, reduce: bool) -> Array:
    first = activated(x)
    y = convolved(first, filters // 4, 1)
    y = convolved(activated(y), filters // 4, 3, strides)
    y = convolved(activated(y), filters, 1)
    return y + (convolved(first, filters, 1, strides) if reduce else x)


def network(images: Any) -> Array:
    x = convolved(normalised(images / 255.0), 4, 3)
    x = bottleneck(x, 4, 1, reduce=True)
    x = bottleneck(x, 4, 1, reduce=False)
    x = bottleneck(x, 8, 2, reduce=True)
    x = bottleneck(x, 12, 2, reduce=True)
    x = bottleneck(x, 12, 1, reduce=False)
    pooled = activated(x).mean(axis=(1, 2))
    return pooled @ kernel(12, 3) + statistics(3)[1]


def test_it_computes_what_its_description_says() -> None:
    small = preactivation_resnet(**SMALL)
    for layer in small.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights(list(statistics(layer.gamma.shape[0])))
        elif isinstance(layer, keras.layers.Conv2D):
            layer.set_weights([kernel(*layer.kernel.shape)])
        elif isinstance(layer, keras.layers.Dense):
            layer.set_weights([kernel(*layer.kernel.shape), statistics(3)[1]])
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    np.testing.assert_allclose(np.asarray(small(images)), network(images), rtol=1e-3, atol=1e-4)


def learned(model: Any) -> list[Any]:
    return [np.asarray(weight).copy() for weight in model.trainable_weights]


def test_a_step_of_the_whole_network_moves_every_weight(whole: Any) -> None:
    # Tracing its 85 convolutions takes many times longer than the one step: it is made without.
    whole.compile(
        optimizer=keras.optimizers.SGD(0.1, momentum=0.9),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        run_eagerly=True,
    )
    before = learned(whole)
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    whole.train_on_batch(images, np.array([3, 7]))
    after = learned(whole)
    assert all(np.isfinite(weight).all() for weight in after)
    assert all((old != new).any() for old, new in zip(before, after, strict=True))


# --- its fingerprint


def problem(model: Callable[[], Any]) -> Problem:
    part = (np.zeros((2, 32, 32, 3), dtype=np.uint8), np.zeros(2, dtype=np.int32))
    return Problem(part, part, part, model=model, loss="mse")


def test_its_fingerprint_depends_on_nothing_but_what_it_is(whole: Any) -> None:
    again = fingerprint(problem(preactivation_resnet))
    small = fingerprint(problem(lambda: preactivation_resnet(**SMALL)))
    other_penalty = fingerprint(problem(lambda: preactivation_resnet(**SMALL, l2=1e-4)))
    assert fingerprint(problem(lambda: whole)) == again
    assert len({again, small, other_penalty}) == 3
