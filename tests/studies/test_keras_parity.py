"""Against each of Keras' own LearningRateSchedule classes: whole curves, and past the end.

Keras' ReduceLROnPlateau is met in test_plateau_parity.py.
"""

from __future__ import annotations

import random

import keras
import numpy as np
import pytest

from studies.schedules.table import rate_table
from tests.studies.curves import open_loop
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

decays = keras.optimizers.schedules


def test_every_schedule_class_of_keras_is_met_here() -> None:
    classes = {
        name
        for name, kind in vars(decays).items()
        if isinstance(kind, type) and issubclass(kind, decays.LearningRateSchedule)
    }
    assert classes == {
        "LearningRateSchedule",
        "CosineDecay",
        "CosineDecayRestarts",
        "ExponentialDecay",
        "InverseTimeDecay",
        "PiecewiseConstantDecay",
        "PolynomialDecay",
    }


# --- ExponentialDecay


def test_exponential_smooth_equals_keras() -> None:
    for t in trainings(1):
        final = 10 ** t.rng.uniform(-5, 0)
        t.assert_same(decays.ExponentialDecay(t.lr, t.steps, double(final))(t.s), "exponential", final_ratio=final)


def test_exponential_staircase_equals_keras() -> None:
    for t in trainings(2):
        final, n = 10 ** t.rng.uniform(-5, 0), stairs_off_the_steps(t)
        theirs = decays.ExponentialDecay(t.lr, t.steps / n, double(final ** (1 / n)), staircase=True)(t.s)
        t.assert_same(theirs, "exponential", where=off_the_stairs(t, n), final_ratio=final, stairs=n)


@pytest.mark.parametrize("length", [1, 2, 5, 16, 39])
@pytest.mark.parametrize("n", [2, 3, 5, 20])
def test_exponential_staircase_equals_keras_where_stairs_are_whole_steps(length: int, n: int) -> None:
    t = Training(random.Random(), 0.1, length * n)
    theirs = decays.ExponentialDecay(t.lr, decay_steps=length, decay_rate=0.5, staircase=True)(t.s)
    t.assert_same(theirs, "exponential", final_ratio=0.5**n, stairs=n)


# --- InverseTimeDecay


def test_inverse_time_smooth_equals_keras() -> None:
    for t in trainings(3):
        kappa = 10 ** t.rng.uniform(-2, 3)
        theirs = decays.InverseTimeDecay(t.lr, t.steps, double(kappa))(t.s)
        t.assert_same(theirs, "inverse_time", kappa=kappa)
        t.assert_same(theirs, "inverse_time_power", kappa=kappa, power=1.0)
        t.assert_same(theirs, "time_decay", final_ratio=1 / (1 + kappa))


def test_inverse_time_staircase_equals_keras() -> None:
    for t in trainings(4):
        kappa, n = 10 ** t.rng.uniform(-2, 3), stairs_off_the_steps(t)
        theirs = decays.InverseTimeDecay(t.lr, t.steps / n, double(kappa / n), staircase=True)(t.s)
        t.assert_same(theirs, "inverse_time", where=off_the_stairs(t, n), kappa=kappa, stairs=n)


@pytest.mark.parametrize("length", [1, 2, 5, 16, 39])
@pytest.mark.parametrize("n", [2, 3, 5, 20])
def test_inverse_time_staircase_equals_keras_where_stairs_are_whole_steps(length: int, n: int) -> None:
    t = Training(random.Random(), 0.1, length * n)
    theirs = decays.InverseTimeDecay(t.lr, decay_steps=length, decay_rate=0.5, staircase=True)(t.s)
    t.assert_same(theirs, "inverse_time", kappa=0.5 * n, stairs=n)


def test_time_decay_equals_keras_old_decay_argument_per_batch() -> None:
    # Keras 2 computed lr * 1/(1 + decay * iterations); the class in today's Keras says the same with decay_steps 1.
    for t in trainings(5):
        decay = 10 ** t.rng.uniform(-4, -1)
        theirs = decays.InverseTimeDecay(t.lr, decay_steps=1, decay_rate=double(decay))(t.s)
        t.assert_same(theirs, "time_decay", final_ratio=1 / (1 + decay * t.steps))


# --- PiecewiseConstantDecay


def test_piecewise_constant_equals_keras() -> None:
    for t in trainings(6):
        ends, parameters = some_pieces(t.rng)
        values = [double(value) for value in piece_values(t.base, parameters)]
        theirs = decays.PiecewiseConstantDecay([end * t.steps for end in ends], values)(t.s)
        t.assert_same(theirs, "piecewise_constant", **parameters)


def test_piecewise_constant_equals_keras_where_boundaries_are_whole_steps() -> None:
    for t in trainings(7):
        t.steps = max(t.steps, 10)
        ends = sorted(t.rng.sample(range(1, t.steps), k=t.rng.randint(1, 4)))
        breaks = [(end - before) / (t.steps - before) for before, end in zip([0, *ends], ends, strict=False)]
        parameters = {f"break_{i}": fraction for i, fraction in enumerate(breaks, 1)}
        parameters |= {f"ratio_{i}": t.rng.uniform(0.05, 1) for i in range(1, len(ends) + 1)}
        values = piece_values(t.base, {"boundaries": len(ends), **parameters})
        theirs = decays.PiecewiseConstantDecay(ends, [double(value) for value in values])(t.s)
        t.assert_same(theirs, "piecewise_constant", boundaries=len(ends), **parameters)


# --- PolynomialDecay


def test_polynomial_equals_keras() -> None:
    for t in trainings(8):
        alpha, power = some_alpha(t.rng), 10 ** t.rng.uniform(-0.5, 0.9)
        theirs = decays.PolynomialDecay(t.lr, t.steps, end_learning_rate=double(t.base * alpha), power=double(power))(
            t.s
        )
        t.assert_same(theirs, "polynomial", power=power, alpha=alpha)


def test_linear_equals_keras_polynomial_with_power_1() -> None:
    for t in trainings(9):
        alpha = some_alpha(t.rng)
        theirs = decays.PolynomialDecay(t.lr, t.steps, end_learning_rate=double(t.base * alpha), power=1.0)(t.s)
        t.assert_same(theirs, "linear", alpha=alpha)
        t.assert_same(theirs, "k_decay", k=1.0, shape="polynomial", alpha=alpha)
        t.assert_same(theirs, "wsd", cooldown=1.0, shape="linear", alpha=alpha)


def test_polynomial_in_cycles_equals_keras() -> None:
    for t in trainings(10):
        alpha, power, cycles = some_alpha(t.rng), 10 ** t.rng.uniform(-0.5, 0.9), t.rng.randint(2, 12)
        if t.rng.random() < 0.5:
            t.steps = cycles * t.rng.randint(1, 60)  # cycles of whole steps: exact for them, too
        theirs = decays.PolynomialDecay(
            t.lr, t.steps / cycles, end_learning_rate=double(t.base * alpha), power=double(power), cycle=True
        )(t.s)
        exact = t.steps % cycles == 0 or off_the_stairs(t, cycles)
        t.assert_same(theirs, "polynomial", where=exact, power=power, alpha=alpha, cycles=cycles)


# --- CosineDecay


def test_cosine_equals_keras() -> None:
    for t in trainings(11):
        alpha = some_alpha(t.rng)
        theirs = decays.CosineDecay(t.lr, t.steps, alpha)(t.s)
        t.assert_same(theirs, "cosine", alpha=alpha)
        t.assert_same(theirs, "k_decay", k=1.0, alpha=alpha)
        t.assert_same(theirs, "wsd", cooldown=1.0, shape="cosine", alpha=alpha)


def test_cosine_after_our_warm_up_equals_the_warm_up_arguments_of_keras() -> None:
    """Keras' warm-up is s/w of the way at step s; ours is one step ahead, so as not to begin at 0.

    So both agree where Keras is asked for the next step of the warm-up, and from its end on as they are.
    """
    for t in trainings(12, longest=30):
        alpha, steps = some_alpha(t.rng), t.steps + 2
        w = t.rng.randint(1, int(0.9 * steps))
        theirs = decays.CosineDecay(double(0.0), steps - w, alpha, warmup_target=t.lr, warmup_steps=w)
        their_step = [step + 1 if step < w else step for step in range(steps)]
        expected = [float(theirs(double(step))) for step in their_step]
        ours = rate_table(open_loop("cosine", alpha=alpha), t.base, warmup=w / steps, steps=steps, steps_per_epoch=7)
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-6 * t.base, err_msg=f"{t} {alpha} {w}")


def test_our_warm_up_equals_that_of_keras_from_the_same_first_rate() -> None:
    """A warm-up of w steps of ours is one of w - 1 steps in Keras, from eta0/w; the decay then begins a step later."""
    for t in trainings(13, longest=30):
        steps = t.steps + 3
        w = t.rng.randint(2, int(0.9 * steps))
        theirs = decays.CosineDecay(t.lr / w, steps - w, 0.01, warmup_target=t.lr, warmup_steps=w - 1)
        their_step = [step if step < w else step - 1 for step in range(steps)]
        expected = [float(theirs(double(step))) for step in their_step]
        ours = rate_table(open_loop("cosine", alpha=0.01), t.base, warmup=w / steps, steps=steps, steps_per_epoch=7)
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-6 * t.base, err_msg=f"{t} {w}")


# --- CosineDecayRestarts


def test_cosine_restarts_equals_keras() -> None:
    for t in trainings(14):
        first, shape = some_restarts(t)
        of_theirs = {name: value for name, value in shape.items() if name != "cycles"}
        t.assert_same(
            decays.CosineDecayRestarts(t.lr, first, **of_theirs)(t.s),
            "cosine_restarts",
            where=off_the_restarts(t, first, shape["t_mul"]),
            **shape,
        )
