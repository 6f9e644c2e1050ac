"""reduce_on_plateau against Keras' own callback, fed with the same metrics: identical rates."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import keras
import pytest

from studies.schedules import ClosedLoop, make

# Keras 3.15 turns a variable into an array in a way that NumPy 2.4 warns about.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def model() -> Any:
    tiny = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    tiny.compile(optimizer=keras.optimizers.SGD(0.1), loss="mse")
    return tiny


def keras_rates(model: Any, values: Sequence[float], base: float, **parameters: Any) -> list[float]:
    """The rate before each epoch and after the last, under Keras' callback fed with scripted logs."""
    callback = keras.callbacks.ReduceLROnPlateau(**parameters)
    callback.set_model(model)
    model.optimizer.learning_rate = base
    callback.on_train_begin()
    found = [float(model.optimizer.learning_rate.numpy())]
    for epoch, value in enumerate(values):
        callback.on_epoch_end(epoch, {parameters["monitor"]: value})
        found.append(float(model.optimizer.learning_rate.numpy()))
    return found


def our_rates(values: Sequence[float], base: float, **parameters: Any) -> list[float]:
    schedule = make("reduce_on_plateau", **parameters)
    assert isinstance(schedule, ClosedLoop)
    state = schedule.start(base)
    found = [state.rate]
    for value in values:
        state = schedule.advance(state, {parameters["monitor"]: value})
        found.append(state.rate)
    return found


def scripted(rng: random.Random, *, on_a_grid: bool) -> list[float]:
    """A metric that wanders; on a grid, ties and gains of exactly min_delta are common. NaN, but not at first."""
    level, values = rng.uniform(0, 2), list[float]()
    for epoch in range(rng.randint(5, 40)):
        level += rng.choice([-0.1, -0.05, -0.01, 0.0, 0.0, 0.01, 0.05, rng.gauss(0, 0.05)])
        values.append(round(level, 2) if on_a_grid else level)
        if epoch and rng.random() < 0.03:
            values[-1] = math.nan
    return values


def test_reduce_on_plateau_equals_keras_own_callback_on_200_random_sequences(model: Any) -> None:
    rng, reductions, at_the_floor, cooled = random.Random(8), 0, 0, 0
    for case in range(200):
        values = scripted(rng, on_a_grid=case % 2 == 0)
        base = 10 ** rng.uniform(-3, 0)
        cooldown = rng.choice([0, 0, 1, 2, 5])
        parameters = {
            "monitor": "val_loss",
            "mode": rng.choice(["min", "max"]),
            "factor": rng.choice([0.1, 0.5, rng.uniform(0.05, 0.95)]),
            "patience": rng.randint(1, 6),
            "min_delta": rng.choice([0.0, 1e-4, 0.01, 0.05, rng.uniform(0, 0.2)]),
            "cooldown": cooldown,
            "min_lr": rng.choice([0.0, base / 2, base / 10, base * 0.1**2, 1e-3, 0.05]),
        }
        expected = keras_rates(model, values, base, **parameters)
        assert our_rates(values, base, **parameters) == expected, (values, base, parameters)
        reduced = len(set(expected)) - 1
        reductions += reduced
        at_the_floor += reduced > 0 and expected[-1] == pytest.approx(parameters["min_lr"], rel=1e-6)
        cooled += reduced > 0 and cooldown > 1
    assert reductions > 300
    assert at_the_floor > 30
    assert cooled > 30


@pytest.mark.parametrize(("best", "next_one"), [(0.4, 0.35), (0.46, 0.41), (0.35, 0.4), (0.22, 0.27)])
def test_reduce_on_plateau_equals_keras_on_gains_that_are_min_delta_but_for_rounding(
    model: Any, best: float, next_one: float
) -> None:
    mode = "min" if next_one < best else "max"
    parameters = {"monitor": "val_loss", "mode": mode, "factor": 0.5, "patience": 1, "min_delta": 0.05}
    expected = keras_rates(model, [best, next_one], 0.5, **parameters)
    assert expected == [0.5, 0.5, 0.25]
    assert our_rates([best, next_one], 0.5, **parameters) == expected


def test_a_nan_at_first_is_the_best_for_ever_in_keras_and_not_here(model: Any) -> None:
    values = [math.nan, 1.0, 0.9, 0.8, 0.7]
    parameters = {"monitor": "val_loss", "mode": "min", "factor": 0.5, "patience": 2}
    assert keras_rates(model, values, 1.0, **parameters)[-1] < 1.0
    assert our_rates(values, 1.0, **parameters) == [1.0] * 6


def test_reduce_on_plateau_has_the_defaults_of_keras() -> None:
    callback = keras.callbacks.ReduceLROnPlateau()
    ours = make("reduce_on_plateau").parameters
    for name in ("monitor", "mode", "factor", "patience", "min_delta", "cooldown", "min_lr"):
        assert ours[name] == getattr(callback, name), name
