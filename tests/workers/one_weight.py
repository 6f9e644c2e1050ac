"""A model that shows the rate of every step, and what it must show under a schedule, on whatever backend Keras runs."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from studies.schedules import make
from studies.space import Value
from tests.studies.curves import expected_rates
from workers.callbacks import ScheduleCallback

FLOAT32 = 1.2e-7
"""The relative precision of a float32."""


class OneWeight:
    """A model whose single weight has the gradient 1: under plain SGD each step moves it by the rate.

    `moves`: by how much each call of the train function moved it, from zero.
    """

    def __init__(self, learning_rate: Any = 0.01, *, steps_per_execution: int = 1) -> None:
        self.moves: list[float] = []
        self.model = keras.Sequential(
            [keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")]
        )
        self.model.compile(
            keras.optimizers.SGD(learning_rate),
            loss=lambda target, output: output,
            steps_per_execution=steps_per_execution,
        )

    def fit(self, *callbacks: Any, steps: int = 8, epochs: int = 3, **options: Any) -> Any:
        ones = np.ones((steps, 1), dtype=np.float32)
        return self.model.fit(
            ones, ones, batch_size=1, epochs=epochs, callbacks=[*callbacks, self._watch()], verbose=0, **options
        )

    def _watch(self) -> Any:
        moves = self.moves

        class Watch(keras.callbacks.Callback):
            def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
                self.model.layers[0].kernel.assign([[0.0]])

            def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
                moves.append(-float(self.model.layers[0].kernel.numpy().item()))

        return Watch()


def check_open_loop(name: str, params: dict[str, Value]) -> None:
    """Under a warm-up of 5 of 24 steps; one step at a time, and eight in one call of the train function."""
    rates = expected_rates(name, params, 0.3, steps=24, per_epoch=8, warmup_steps=5)
    schedule = make(name, **params)
    single = OneWeight()
    history = single.fit(ScheduleCallback(schedule, 0.3, warmup=0.2)).history
    np.testing.assert_allclose(single.moves, rates, rtol=FLOAT32, err_msg=name)
    np.testing.assert_allclose(history["learning_rate"], rates[7::8], rtol=FLOAT32, err_msg=name)

    by_eight = OneWeight(steps_per_execution=8)
    by_eight.fit(ScheduleCallback(schedule, 0.3, warmup=0.2))
    moves = [sum(rates[i : i + 8]) for i in (0, 8, 16)]
    np.testing.assert_allclose(by_eight.moves, moves, rtol=8 * FLOAT32, err_msg=name)


class Says(keras.callbacks.Callback):
    """Says what a metric is, epoch by epoch, to the callbacks after it."""

    def __init__(self, metric: str, values: list[float]) -> None:
        super().__init__()
        self.metric, self.values = metric, values

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs[self.metric] = self.values[epoch]


def check_plateau_schedules() -> None:
    """Halved after each epoch that is no better, by both schedules; at the floor one goes back to the base rate."""
    values = [1.0, 0.9, 0.9, 0.8, 0.8, 0.8, 0.8]
    after = {
        "reduce_on_plateau": [0.4, 0.4, 0.4, 0.2, 0.2, 0.1, 0.1],
        "plateau_with_revert": [0.4, 0.4, 0.4, 0.2, 0.2, 0.1, 0.4],
    }
    shape: dict[str, Any] = {"monitor": "said", "mode": "min", "factor": 0.5, "patience": 1, "min_lr": 0.1}
    for name, rates in after.items():
        steps = [rate for rate in rates for _ in range(8)]
        single = OneWeight(0.4)
        single.fit(Says("said", values), ScheduleCallback(name, **shape), epochs=7)
        np.testing.assert_allclose(single.moves, steps, rtol=FLOAT32, err_msg=name)
        by_eight = OneWeight(0.4, steps_per_execution=8)
        by_eight.fit(Says("said", values), ScheduleCallback(name, **shape), epochs=7)
        np.testing.assert_allclose(by_eight.moves, [8 * rate for rate in rates], rtol=8 * FLOAT32, err_msg=name)

        # A warm-up of 12 steps, one and a half epochs: the rise is assigned step by step, and no epoch that
        # ends within it counts.
        warmed = OneWeight(0.4)
        warmed.fit(Says("said", values), ScheduleCallback(name, warmup=12 / 56, **shape), epochs=7)
        rise = [0.4 * (step + 1) / 12 for step in range(12)]
        np.testing.assert_allclose(warmed.moves[:16], rise + [0.4] * 4, rtol=FLOAT32, err_msg=name)
        np.testing.assert_allclose(warmed.moves[16:], steps[16:], rtol=FLOAT32, err_msg=name)
