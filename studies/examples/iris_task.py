"""A task of one's own: `lr-arena worker --tasks studies/examples/iris_task.py`."""

import keras
from sklearn.datasets import load_iris

from lr_arena import Problem, split, task


@task("iris-mlp", metric="val_accuracy", direction="maximize", classes=3)
def iris() -> Problem:
    """150 irises of three species, four measurements each."""
    x, y = load_iris(return_X_y=True)

    def model() -> keras.Model:
        return keras.Sequential([keras.Input((4,)), keras.layers.Dense(16, activation="relu"), keras.layers.Dense(3)])

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return Problem(**split(x, y, stratify=True), model=model, loss=loss, metrics=["accuracy"])
