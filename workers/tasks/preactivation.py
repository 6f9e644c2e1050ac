"""The network of a tutorial that is often followed: a residual network of pre-activated bottlenecks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

BATCH_NORMALISATION = {"epsilon": 2e-5, "momentum": 0.9}


def preactivation_resnet(
    *,
    stages: Sequence[int] = (9, 9, 9),
    filters: Sequence[int] = (64, 64, 128, 256),
    classes: int = 10,
    l2: float = 5e-4,
) -> keras.Model:
    """A network for 32x32 colour images with pixels from 0 to 255; its outputs are logits.

    stages: the number of bottlenecks of each stage; every stage but the first begins by halving height and width.
    filters: those of the first convolution, then those of each stage. l2: the penalty on every kernel.
    No data augmentation. Without its classifier's softmax, which is part of the loss here, it is the network of
    "Keras learning rate schedules and decay" (2019), after He et al. 2016, arXiv:1603.05027.
    """
    inputs = keras.Input((32, 32, 3))
    x = _normalised(layers.Rescaling(1 / 255)(inputs))
    x = _convolution(filters[0], 3, l2)(x)
    for stage, (bottlenecks, width) in enumerate(zip(stages, filters[1:], strict=True)):
        x = _bottleneck(x, width, l2, strides=1 if stage == 0 else 2, reduce=True)
        for _ in range(bottlenecks - 1):
            x = _bottleneck(x, width, l2)
    x = layers.AveragePooling2D(8)(_activated(x))
    outputs = layers.Dense(classes, kernel_regularizer=keras.regularizers.L2(l2))(layers.Flatten()(x))
    return keras.Model(inputs, outputs)


def _bottleneck(x: Any, width: int, l2: float, *, strides: int = 1, reduce: bool = False) -> Any:
    """Normalise, activate, convolve, three times; the shortcut is convolved, after activation, where `reduce`."""
    activated = _activated(x)
    y = _convolution(width // 4, 1, l2)(activated)
    y = _convolution(width // 4, 3, l2, strides)(_activated(y))
    y = _convolution(width, 1, l2)(_activated(y))
    return layers.Add()([y, _convolution(width, 1, l2, strides)(activated) if reduce else x])


def _convolution(filters: int, size: int, l2: float, strides: int = 1) -> Any:
    return layers.Conv2D(
        filters,
        size,
        strides=strides,
        padding="same",
        use_bias=False,
        kernel_regularizer=keras.regularizers.L2(l2),
    )


def _activated(x: Any) -> Any:
    return layers.ReLU()(_normalised(x))


def _normalised(x: Any) -> Any:
    return layers.BatchNormalization(**BATCH_NORMALISATION)(x)
