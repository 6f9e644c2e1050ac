"""Against Keras' own schedules and callback, and TensorFlow 1's decays: the one file here that imports them.

The decays are asked for in float64, as in float32 they are off near zero by more than ours (Keras' cosine
by 1e-5 relative, TensorFlow 1's by 1.5e-4).
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from studies.schedules import OpenLoop, make
from studies.schedules.plateau import ReduceOnPlateau
from studies.schedules.table import rate_table

tf1 = tf.compat.v1.train
decays = keras.optimizers.schedules


@dataclass
class Training:
    """A base rate and its steps, as float64 so that the other library computes in it."""

    rng: random.Random
    base: float
    steps: int

    @property
    def lr(self) -> Any:
        return tf.constant(self.base, tf.float64)

    @property
    def s(self) -> Any:
        return tf.range(self.steps, dtype=tf.float64)

    def assert_same(self, theirs: Any, name: str, **parameters: Any) -> None:
        schedule = make(name, **parameters)
        assert isinstance(schedule, OpenLoop)
        ours = rate_table(schedule, self.base, warmup=0.0, steps=self.steps, steps_per_epoch=7)
        assert theirs.shape == (self.steps,)
        assert theirs.dtype == tf.float64
        tolerance = 1e-6 * self.base
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=0, atol=tolerance, err_msg=f"{self}, {parameters}")


def trainings(seed: int) -> Iterator[Training]:
    """50 random trainings; the parameters come from their generator."""
    rng = random.Random(seed)
    for _ in range(50):
        yield Training(rng, 10 ** rng.uniform(-5, 0.5), rng.randint(2, 500))


def stairs_off_the_steps(training: Training) -> int:
    """A number of stairs whose boundaries fall on no whole step: there the other's rounding decides."""
    return training.rng.choice([n for n in range(2, 30) if math.gcd(n, training.steps) == 1])


def some_alpha(training: Training) -> float:
    return training.rng.choice([0.0, 10 ** training.rng.uniform(-4, -1)])


def test_exponential_smooth_equals_keras_and_tensorflow() -> None:
    for t in trainings(1):
        final = 10 ** t.rng.uniform(-5, 0)
        t.assert_same(decays.ExponentialDecay(t.lr, t.steps, final)(t.s), "exponential", final_ratio=final)
        t.assert_same(tf1.exponential_decay(t.lr, t.s, t.steps, final)(), "exponential", final_ratio=final)
        kappa = -math.log(final)
        t.assert_same(tf1.natural_exp_decay(t.lr, t.s, t.steps, kappa)(), "exponential", final_ratio=final)


def test_exponential_staircase_equals_keras_and_tensorflow() -> None:
    for t in trainings(2):
        final, n = 10 ** t.rng.uniform(-5, 0), stairs_off_the_steps(t)
        stair = {"decay_steps": t.steps / n, "decay_rate": final ** (1 / n), "staircase": True}
        t.assert_same(decays.ExponentialDecay(t.lr, **stair)(t.s), "exponential", final_ratio=final, stairs=n)
        t.assert_same(tf1.exponential_decay(t.lr, t.s, **stair)(), "exponential", final_ratio=final, stairs=n)


@pytest.mark.parametrize("length", [1, 2, 5, 16, 39])
@pytest.mark.parametrize("n", [2, 3, 5, 20])
def test_exponential_staircase_equals_keras_where_stairs_are_whole_steps(length: int, n: int) -> None:
    t = Training(random.Random(), 0.1, length * n)
    theirs = decays.ExponentialDecay(t.lr, decay_steps=length, decay_rate=0.5, staircase=True)(t.s)
    t.assert_same(theirs, "exponential", final_ratio=0.5**n, stairs=n)


def test_inverse_time_smooth_equals_keras_and_tensorflow() -> None:
    for t in trainings(3):
        kappa = 10 ** t.rng.uniform(-2, 3)
        t.assert_same(decays.InverseTimeDecay(t.lr, t.steps, kappa)(t.s), "inverse_time", kappa=kappa)
        t.assert_same(tf1.inverse_time_decay(t.lr, t.s, t.steps, kappa)(), "inverse_time", kappa=kappa)


def test_inverse_time_staircase_equals_keras_and_tensorflow() -> None:
    for t in trainings(4):
        kappa, n = 10 ** t.rng.uniform(-2, 3), stairs_off_the_steps(t)
        stair = {"decay_steps": t.steps / n, "decay_rate": kappa / n, "staircase": True}
        t.assert_same(decays.InverseTimeDecay(t.lr, **stair)(t.s), "inverse_time", kappa=kappa, stairs=n)
        t.assert_same(tf1.inverse_time_decay(t.lr, t.s, **stair)(), "inverse_time", kappa=kappa, stairs=n)


def test_polynomial_equals_keras_and_tensorflow() -> None:
    for t in trainings(5):
        alpha, power = some_alpha(t), 10 ** t.rng.uniform(-0.5, 0.9)
        end = {"decay_steps": t.steps, "end_learning_rate": t.base * alpha, "power": power}
        t.assert_same(decays.PolynomialDecay(t.lr, **end)(t.s), "polynomial", power=power, alpha=alpha)
        t.assert_same(tf1.polynomial_decay(t.lr, t.s, **end)(), "polynomial", power=power, alpha=alpha)


def test_linear_equals_the_polynomial_of_keras_and_tensorflow_with_power_1() -> None:
    for t in trainings(6):
        alpha = some_alpha(t)
        end = {"decay_steps": t.steps, "end_learning_rate": t.base * alpha, "power": 1.0}
        t.assert_same(decays.PolynomialDecay(t.lr, **end)(t.s), "linear", alpha=alpha)
        t.assert_same(tf1.polynomial_decay(t.lr, t.s, **end)(), "linear", alpha=alpha)


def test_cosine_equals_keras_and_tensorflow() -> None:
    for t in trainings(7):
        alpha = some_alpha(t)
        t.assert_same(decays.CosineDecay(t.lr, t.steps, alpha)(t.s), "cosine", alpha=alpha)
        single = tf1.cosine_decay(t.base, tf.cast(t.s, tf.float32), t.steps, alpha)()  # it knows no float64
        t.assert_same(tf.cast(single, tf.float64), "cosine", alpha=alpha)


def test_cosine_restarts_equals_keras_and_tensorflow() -> None:
    for t in trainings(8):
        t_mul, cycles = t.rng.choice([1.0, 1.5, 2.0, 3.0]), t.rng.randint(1, 5)
        shape = {"t_mul": t_mul, "m_mul": t.rng.uniform(0.3, 1.0), "alpha": some_alpha(t)}
        while restarts_on_a_whole_step(t.steps, t_mul, cycles):  # there the other's rounding decides
            t.steps += 1
        first = t.steps / sum(t_mul**cycle for cycle in range(cycles))
        t.assert_same(decays.CosineDecayRestarts(t.lr, first, **shape)(t.s), "cosine_restarts", cycles=cycles, **shape)
        single = tf1.cosine_decay_restarts(t.base, tf.cast(t.s, tf.float32), first, **shape)()
        t.assert_same(tf.cast(single, tf.float64), "cosine_restarts", cycles=cycles, **shape)


def restarts_on_a_whole_step(steps: int, t_mul: float, cycles: int) -> bool:
    lengths = [t_mul**cycle for cycle in range(cycles)]
    restarts = [steps * sum(lengths[:cycle]) / sum(lengths) for cycle in range(1, cycles)]
    return any(abs(restart - round(restart)) < 1e-6 for restart in restarts)


# --- reduce_on_plateau


keras_reads_variables_in_an_old_way = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def model() -> Any:
    tiny = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    tiny.compile(optimizer=keras.optimizers.SGD(0.1), loss="mse")
    return tiny


def keras_rates(model: Any, values: list[float], base: float, **parameters: Any) -> list[float]:
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


def our_rates(values: list[float], base: float, **parameters: Any) -> list[float]:
    schedule = make("reduce_on_plateau", **parameters)
    assert isinstance(schedule, ReduceOnPlateau)
    state = schedule.start(base)
    found = [state.rate]
    for value in values:
        state = schedule.advance(state, {parameters["monitor"]: value})
        found.append(state.rate)
    return found


@keras_reads_variables_in_an_old_way
def test_reduce_on_plateau_equals_keras_own_callback_on_100_random_sequences(model: Any) -> None:
    rng, reductions = random.Random(8), 0
    for case in range(100):
        level, values = rng.uniform(0, 2), []
        for epoch in range(rng.randint(5, 40)):
            level += rng.choice([-0.1, -0.05, -0.01, 0.0, 0.0, 0.01, 0.05, rng.gauss(0, 0.05)])
            # Half of the sequences move on a grid, so that ties and gains of exactly min_delta are common.
            values.append(round(level, 2) if case % 2 else level)
            if epoch and rng.random() < 0.03:
                values[-1] = math.nan
        parameters = {
            "monitor": "val_loss",
            "mode": rng.choice(["min", "max"]),
            "factor": rng.choice([0.1, 0.5, rng.uniform(0.05, 0.95)]),
            "patience": rng.randint(1, 6),
            "min_delta": rng.choice([0.0, 1e-4, 0.01, 0.05, rng.uniform(0, 0.2)]),
            "cooldown": rng.choice([0, 0, 1, 2, 5]),
            "min_lr": rng.choice([0.0, 1e-3, 0.05, 0.5]),
        }
        base = 10 ** rng.uniform(-3, 0)
        expected = keras_rates(model, values, base, **parameters)
        assert our_rates(values, base, **parameters) == expected, (values, base, parameters)
        reductions += len(set(expected)) - 1
    assert reductions > 100


@keras_reads_variables_in_an_old_way
@pytest.mark.parametrize(("best", "next_one"), [(0.4, 0.35), (0.46, 0.41), (0.35, 0.4), (0.22, 0.27)])
def test_reduce_on_plateau_equals_keras_on_gains_that_are_min_delta_but_for_rounding(
    model: Any, best: float, next_one: float
) -> None:
    mode = "min" if next_one < best else "max"
    parameters = {"monitor": "val_loss", "mode": mode, "factor": 0.5, "patience": 1, "min_delta": 0.05}
    expected = keras_rates(model, [best, next_one], 0.5, **parameters)
    assert expected == [0.5, 0.5, 0.25]
    assert our_rates([best, next_one], 0.5, **parameters) == expected


def test_reduce_on_plateau_has_the_defaults_of_keras() -> None:
    callback = keras.callbacks.ReduceLROnPlateau()
    ours = make("reduce_on_plateau").parameters
    for name in ("monitor", "mode", "factor", "patience", "min_delta", "cooldown", "min_lr"):
        assert ours[name] == getattr(callback, name), name
