"""Against each of TensorFlow 1's nine decay functions, which today's TensorFlow still runs: whole curves, past the end.

The four with a cosine in them know no float64.
"""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import tensorflow as tf

from tests.studies.parity import (
    Training,
    double,
    off_the_restarts,
    off_the_stairs,
    piece_values,
    some_alpha,
    some_pieces,
    some_restarts,
    stairs_off_the_steps,
    trainings,
)

tf1 = tf.compat.v1.train


def test_every_decay_function_of_tensorflow_1_is_met_here() -> None:
    assert {name for name in dir(tf1) if "decay" in name or name.startswith("piecewise")} == {
        "cosine_decay",
        "cosine_decay_restarts",
        "exponential_decay",
        "inverse_time_decay",
        "linear_cosine_decay",
        "natural_exp_decay",
        "noisy_linear_cosine_decay",
        "piecewise_constant",
        "piecewise_constant_decay",
        "polynomial_decay",
    }
    assert tf1.piecewise_constant is tf1.piecewise_constant_decay


# --- exponential_decay, natural_exp_decay


def test_exponential_smooth_equals_tensorflow() -> None:
    for t in trainings(1):
        final = 10 ** t.rng.uniform(-5, 0)
        theirs = tf1.exponential_decay(t.lr, t.s, t.steps, double(final))()
        t.assert_same(theirs, "exponential", final_ratio=final)


def test_exponential_staircase_equals_tensorflow() -> None:
    for t in trainings(2):
        final, n = 10 ** t.rng.uniform(-5, 0), stairs_off_the_steps(t)
        theirs = tf1.exponential_decay(t.lr, t.s, t.steps / n, double(final ** (1 / n)), staircase=True)()
        t.assert_same(theirs, "exponential", where=off_the_stairs(t, n), final_ratio=final, stairs=n)


def test_natural_exponential_smooth_equals_tensorflow() -> None:
    for t in trainings(3):
        kappa = double(10 ** t.rng.uniform(-2, 2))
        theirs = tf1.natural_exp_decay(t.lr, t.s, t.steps, kappa)()
        t.assert_same(theirs, "natural_exponential", kappa=float(kappa))
        t.assert_same(theirs, "exponential", final_ratio=math.exp(-float(kappa)))


def test_natural_exponential_staircase_equals_tensorflow() -> None:
    for t in trainings(4):
        kappa, n = 10 ** t.rng.uniform(-2, 1.5), stairs_off_the_steps(t)
        per_stair = double(kappa / n)
        theirs = tf1.natural_exp_decay(t.lr, t.s, t.steps / n, per_stair, staircase=True)()
        t.assert_same(theirs, "natural_exponential", where=off_the_stairs(t, n), kappa=kappa, stairs=n)


@pytest.mark.parametrize("length", [1, 2, 5, 16, 39])
@pytest.mark.parametrize("n", [2, 3, 5, 20])
def test_staircases_equal_tensorflow_where_stairs_are_whole_steps(length: int, n: int) -> None:
    t = Training(random.Random(), 0.1, length * n)
    stair: dict[str, Any] = {"decay_steps": length, "staircase": True}
    exponential = tf1.exponential_decay(t.lr, t.s, decay_rate=0.5, **stair)()
    t.assert_same(exponential, "exponential", final_ratio=0.5**n, stairs=n)
    natural = tf1.natural_exp_decay(t.lr, t.s, decay_rate=double(0.25), **stair)()
    t.assert_same(natural, "natural_exponential", kappa=0.25 * n, stairs=n)
    inverse = tf1.inverse_time_decay(t.lr, t.s, decay_rate=0.5, **stair)()
    t.assert_same(inverse, "inverse_time", kappa=0.5 * n, stairs=n)


# --- inverse_time_decay


def test_inverse_time_smooth_equals_tensorflow() -> None:
    for t in trainings(5):
        kappa = 10 ** t.rng.uniform(-2, 3)
        theirs = tf1.inverse_time_decay(t.lr, t.s, t.steps, double(kappa))()
        t.assert_same(theirs, "inverse_time", kappa=kappa)
        t.assert_same(theirs, "time_decay", final_ratio=1 / (1 + kappa))


def test_inverse_time_staircase_equals_tensorflow() -> None:
    for t in trainings(6):
        kappa, n = 10 ** t.rng.uniform(-2, 3), stairs_off_the_steps(t)
        theirs = tf1.inverse_time_decay(t.lr, t.s, t.steps / n, double(kappa / n), staircase=True)()
        t.assert_same(theirs, "inverse_time", where=off_the_stairs(t, n), kappa=kappa, stairs=n)


# --- piecewise_constant


def test_piecewise_constant_equals_tensorflow() -> None:
    for t in trainings(7, longest=30):
        t.steps += 5
        ends, parameters = some_pieces(t.rng)
        if t.rng.random() < 0.5:  # boundaries that are whole steps
            ends = [step / t.steps for step in sorted(t.rng.sample(range(1, t.steps), k=len(ends)))]
            for i, (before, end) in enumerate(zip([0.0, *ends], ends, strict=False), 1):
                parameters[f"break_{i}"] = (end - before) / (1 - before)
        boundaries = [double(end * t.steps) for end in ends]
        values = [double(value) for value in piece_values(t.base, parameters)]
        theirs = tf.stack([tf1.piecewise_constant(s, boundaries, values)() for s in tf.unstack(t.s)])
        t.assert_same(theirs, "piecewise_constant", **parameters)


# --- polynomial_decay


def test_polynomial_equals_tensorflow() -> None:
    for t in trainings(8):
        alpha, power = some_alpha(t.rng), 10 ** t.rng.uniform(-0.5, 0.9)
        theirs = tf1.polynomial_decay(
            t.lr, t.s, t.steps, end_learning_rate=double(t.base * alpha), power=double(power)
        )()
        t.assert_same(theirs, "polynomial", power=power, alpha=alpha)


def test_linear_equals_tensorflow_polynomial_with_power_1() -> None:
    for t in trainings(9):
        alpha = some_alpha(t.rng)
        theirs = tf1.polynomial_decay(t.lr, t.s, t.steps, end_learning_rate=double(t.base * alpha), power=1.0)()
        t.assert_same(theirs, "linear", alpha=alpha)


def test_polynomial_in_cycles_equals_tensorflow() -> None:
    for t in trainings(10):
        alpha, power, cycles = some_alpha(t.rng), 10 ** t.rng.uniform(-0.5, 0.9), t.rng.randint(2, 12)
        if t.rng.random() < 0.5:
            t.steps = cycles * t.rng.randint(1, 60)  # cycles of whole steps: exact for TensorFlow, too
        theirs = tf1.polynomial_decay(
            t.lr, t.s, t.steps / cycles, end_learning_rate=double(t.base * alpha), power=double(power), cycle=True
        )()
        exact = t.steps % cycles == 0 or off_the_stairs(t, cycles)
        t.assert_same(theirs, "polynomial", where=exact, power=power, alpha=alpha, cycles=cycles)


# --- the cosines


def test_cosine_equals_tensorflow() -> None:
    for t in trainings(11):
        alpha = some_alpha(t.rng)
        t.assert_same(tf1.cosine_decay(t.base, t.single, t.steps, alpha)(), "cosine", alpha=alpha)


def test_cosine_restarts_equals_tensorflow() -> None:
    for t in trainings(12):
        first, shape = some_restarts(t)
        of_theirs = {name: value for name, value in shape.items() if name != "cycles"}
        theirs = tf1.cosine_decay_restarts(t.base, t.single, first, **of_theirs)()
        t.assert_same(theirs, "cosine_restarts", where=off_the_restarts(t, first, shape["t_mul"]), **shape)


def test_linear_cosine_equals_tensorflow() -> None:
    for t in trainings(13):
        shape = some_linear_cosine(t.rng)
        t.assert_same(tf1.linear_cosine_decay(t.base, t.single, t.steps, *shape)(), "linear_cosine", **named(shape))


def test_noisy_linear_cosine_without_noise_equals_tensorflow() -> None:
    for t in trainings(14):
        shape, fading = some_linear_cosine(t.rng), t.rng.uniform(0, 1)
        theirs = tf1.noisy_linear_cosine_decay(t.base, t.single, t.steps, 0.0, fading, *shape)()
        none = {"initial_variance": 0.0, "variance_decay": fading}
        t.assert_same(theirs, "noisy_linear_cosine", **named(shape), **none)


def some_linear_cosine(rng: random.Random) -> tuple[float, float, float]:
    periods = rng.choice([0.5, 1.5, 2.5, rng.uniform(0.1, 3)])
    return periods, some_alpha(rng), rng.choice([0.001, 10 ** rng.uniform(-4, -1)])


def named(shape: tuple[float, float, float]) -> dict[str, float]:
    return dict(zip(("periods", "alpha", "beta"), shape, strict=True))
