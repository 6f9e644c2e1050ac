"""A task that trains in milliseconds: 64 points on a line, four batches of 16; and a schedule of its own."""

import keras
import numpy as np

from lr_arena import Problem, schedule, task


@task("tiny-line", metric="val_loss", direction="minimize")
def tiny_line() -> Problem:
    x = np.linspace(-1.0, 1.0, 96, dtype="float32").reshape(-1, 1)
    y = 2.0 * x + 1.0
    order = np.random.default_rng(0).permutation(96)
    train, validation, test = order[:64], order[64:80], order[80:]

    def model() -> keras.Model:
        return keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])

    return Problem(
        train=(x[train], y[train]),
        validation=(x[validation], y[validation]),
        test=(x[test], y[test]),
        model=model,
        loss="mean_squared_error",
    )


@schedule("drop-once")
def drop_once(epoch: int, lr: float, *, at: int, factor: float = 0.5) -> float:
    return lr * factor if epoch == at else lr
