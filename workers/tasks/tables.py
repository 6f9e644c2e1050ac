"""Built-in tasks on the small data sets that come with scikit-learn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers
from sklearn import datasets

from workers.tasks.problem import Data, Problem, Splits, split


def digits_mlp() -> Problem:
    """Digits of 8x8 pixels, a perceptron with hidden layers of 128 and 64."""
    x, y = _load(datasets.load_digits)
    return _classification(split(x / np.float32(16), y, stratify=True), _perceptron(64, (128, 64), 10))


def digits_cnn() -> Problem:
    """Digits of 8x8 pixels, two convolutions with batch normalisation and dropout."""

    def model() -> keras.Model:
        return keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                layers.Conv2D(16, 3, padding="same", use_bias=False),
                layers.BatchNormalization(),
                layers.ReLU(),
                layers.MaxPooling2D(),
                layers.Conv2D(32, 3, padding="same", use_bias=False),
                layers.BatchNormalization(),
                layers.ReLU(),
                layers.Flatten(),
                layers.Dropout(0.25),
                layers.Dense(10),
            ]
        )

    x, y = _load(datasets.load_digits)
    return _classification(split(x.reshape(-1, 8, 8, 1) / np.float32(16), y, stratify=True), model)


def breast_cancer_mlp() -> Problem:
    """Tumours, benign or malignant, from 30 measurements."""
    x, y = _load(datasets.load_breast_cancer)
    return _classification(_standardised(split(x, y, stratify=True)), _perceptron(30, (32, 16), 2))


def wine_mlp() -> Problem:
    """Three cultivars of wine from 13 measurements."""
    x, y = _load(datasets.load_wine)
    return _classification(_standardised(split(x, y, stratify=True)), _perceptron(13, (32, 16), 3))


def diabetes_mlp() -> Problem:
    """The progression of diabetes from 10 measurements; the target standardised like them."""
    x, y = _load(datasets.load_diabetes)
    parts = _standardised(split(x, y.astype(np.float32)[:, None]), target=True)
    return Problem(**parts, model=_perceptron(10, (32, 16), 1), loss="mean_squared_error", metrics=["mae"])


BUILDERS: dict[str, Callable[[], Problem]] = {
    "digits-mlp": digits_mlp,
    "digits-cnn": digits_cnn,
    "breast-cancer-mlp": breast_cancer_mlp,
    "wine-mlp": wine_mlp,
    "diabetes-mlp": diabetes_mlp,
}


def _load(loader: Callable[..., Any]) -> tuple[Any, Any]:
    x, y = loader(return_X_y=True)
    return x.astype(np.float32), y


def _perceptron(inputs: int, hidden: tuple[int, ...], outputs: int) -> Callable[[], keras.Model]:
    def model() -> keras.Model:
        return keras.Sequential(
            [
                keras.Input((inputs,)),
                *(layers.Dense(units, activation="relu") for units in hidden),
                layers.Dense(outputs),
            ]
        )

    return model


def _classification(parts: Splits, model: Callable[[], keras.Model]) -> Problem:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return Problem(**parts, model=model, loss=loss, metrics=["accuracy"])


def _standardised(parts: Splits, *, target: bool = False) -> Splits:
    """Zero mean and unit variance by the statistics of the training part alone."""
    x, y = parts["train"][:2]
    scale_x = _scaler(x)
    scale_y = _scaler(y) if target else _same

    def apply(data: Data) -> Data:
        return scale_x(data[0]), scale_y(data[1])

    return {
        "train": apply(parts["train"]),
        "validation": apply(parts["validation"]),
        "test": apply(parts["test"]),
    }


def _scaler(array: Any) -> Callable[[Any], Any]:
    mean = array.mean(axis=0, dtype=np.float64)
    deviation = array.std(axis=0, dtype=np.float64)
    return lambda other: ((other - mean) / deviation).astype(np.float32)


def _same(array: Any) -> Any:
    return array
