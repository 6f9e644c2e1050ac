"""The open-loop schedules and the warm-up prefix, against formulas written here in plain Python.

The closed-loop ones, reduce_on_plateau and plateau_with_revert, are in test_plateau.py; the comparison
with Keras' and TensorFlow's own classes is in test_keras_parity.py.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from studies.errors import NotFound
from studies.schedules import CATALOGUE, DEFAULT_SCHEDULES, OpenLoop, describe, make
from studies.schedules.table import rate_table, rates_at

OPEN_LOOP = [name for name, model in CATALOGUE.items() if model.loop == "open"]

SIZES = [(1, 1), (1, 8), (2, 1), (5, 20), (7, 3), (10, 10), (10, 4), (97, 8), (100, 10), (240, 12), (1000, 33)]
"""(steps, steps per epoch): whole epochs, broken last epochs, fewer steps than an epoch has, a single step."""

# What a schedule makes of the base rate, `step` steps after the warm-up, of `total` such steps.
Ratio = Callable[[int, int, int], float]


def table(
    name: str, base: float, steps: int, per_epoch: int = 1, warmup: float = 0.0, **parameters: Any
) -> list[float]:
    rates = rate_table(open_loop(name, **parameters), base, warmup=warmup, steps=steps, steps_per_epoch=per_epoch)
    assert rates.dtype == np.float32
    assert rates.shape == (steps,)
    return [float(rate) for rate in rates]


def past_the_end(name: str, base: float, steps: int, per_epoch: int = 1, **parameters: Any) -> list[float]:
    later = np.array([steps, steps + 1, 2 * steps, 100 * steps + 7])
    rates = rates_at(open_loop(name, **parameters), base, later, warmup=0.0, steps=steps, steps_per_epoch=per_epoch)
    return [float(rate) for rate in rates]


def open_loop(name: str, **parameters: Any) -> OpenLoop:
    schedule = make(name, **parameters)
    assert isinstance(schedule, OpenLoop)
    return schedule


def curve(ratio: Ratio, base: float, steps: int, per_epoch: int, warmup_steps: int, length: int) -> list[float]:
    rates = [base * (step + 1) / warmup_steps for step in range(warmup_steps)]
    total = steps - warmup_steps
    rates += [base * ratio(step, total, per_epoch) for step in range(length - warmup_steps)]
    return rates


def assert_whole_curve(
    ratio: Ratio, name: str, base: float, steps: int, per_epoch: int, warmup_steps: int = 0, **parameters: Any
) -> None:
    """The table, and the rates up to one and a half times the training, are the formula's to float32 precision."""
    warmup = warmup_steps / steps
    length = steps + steps // 2 + 2
    expected = np.array(curve(ratio, base, steps, per_epoch, warmup_steps, length))
    rates = table(name, base, steps, per_epoch, warmup, **parameters)
    one_rounding = 2.0**-23
    np.testing.assert_allclose(rates, expected[:steps], rtol=one_rounding, atol=1e-14 * base)
    further = rates_at(
        open_loop(name, **parameters),
        base,
        np.arange(length),
        warmup=warmup,
        steps=steps,
        steps_per_epoch=per_epoch,
    )
    np.testing.assert_allclose(further, expected, rtol=1e-9, atol=1e-13 * base)


def trainings(seed: int, count: int = 60) -> Iterator[tuple[random.Random, dict[str, Any]]]:
    """Random trainings: base rate, steps, steps per epoch, warm-up; and a generator for the parameters."""
    rng = random.Random(seed)
    for _ in range(count):
        steps = rng.randint(1, 400)
        yield (
            rng,
            {
                "base": 10 ** rng.uniform(-6, 1),
                "steps": steps,
                "per_epoch": rng.randint(1, 60),
                "warmup_steps": rng.choice([0, 0, rng.randint(0, int(0.9 * steps))]),
            },
        )


def floor_alpha(rng: random.Random) -> float:
    return rng.choice([0.0, 1.0, 10 ** rng.uniform(-4, -1), rng.random()])


# --- constant


@pytest.mark.parametrize(("steps", "per_epoch"), SIZES)
def test_constant_is_the_base_rate_at_every_step_and_after_the_end(steps: int, per_epoch: int) -> None:
    assert table("constant", 0.25, steps, per_epoch) == [0.25] * steps
    assert past_the_end("constant", 0.25, steps, per_epoch) == [0.25] * 4


def test_constant_equals_its_formula_on_random_trainings() -> None:
    for _, training in trainings(seed=1):
        assert_whole_curve(lambda step, total, per_epoch: 1.0, "constant", **training)


# --- step


def step_ratio(factor: float, drops: int) -> Ratio:
    def ratio(step: int, total: int, per_epoch: int) -> float:
        epoch, epochs = step // per_epoch, Fraction(total, per_epoch)
        return float(factor ** min(math.floor(epoch / (epochs / (drops + 1))), drops))

    return ratio


def test_step_divides_the_rate_by_ten_after_each_third_of_the_epochs() -> None:
    rates = table("step", 0.5, steps=18, per_epoch=2, factor=0.1, drops=2)
    assert rates == pytest.approx([0.5] * 6 + [0.05] * 6 + [0.005] * 6, rel=1e-7)
    assert past_the_end("step", 0.5, 18, 2, factor=0.1, drops=2) == pytest.approx([0.005] * 4)


@pytest.mark.parametrize(("steps", "per_epoch"), SIZES)
@pytest.mark.parametrize(("factor", "drops"), [(0.1, 2), (0.5, 1), (0.25, 6), (0.5, 50)])
def test_step_equals_its_formula_over_the_whole_curve(steps: int, per_epoch: int, factor: float, drops: int) -> None:
    assert_whole_curve(step_ratio(factor, drops), "step", 0.3, steps, per_epoch, factor=factor, drops=drops)


def test_step_equals_its_formula_on_random_trainings() -> None:
    for rng, training in trainings(seed=2):
        factor, drops = rng.uniform(0.05, 0.95), rng.randint(1, 12)
        assert_whole_curve(step_ratio(factor, drops), "step", **training, factor=factor, drops=drops)


@given(
    steps=st.integers(1, 500),
    per_epoch=st.integers(1, 60),
    factor=st.floats(0.05, 0.95),
    drops=st.integers(1, 40),
)
def test_step_never_drops_in_epoch_0_and_changes_only_where_an_epoch_begins(
    steps: int, per_epoch: int, factor: float, drops: int
) -> None:
    rates = table("step", 1.0, steps, per_epoch, factor=factor, drops=drops)
    assert set(rates[:per_epoch]) == {1.0}
    changes = [step for step in range(1, steps) if rates[step] != rates[step - 1]]
    assert all(step % per_epoch == 0 for step in changes)
    assert all(rates[step] < rates[step - 1] for step in changes)
    assert len(changes) <= drops


@pytest.mark.parametrize("epochs", range(3, 31))
def test_step_makes_all_its_drops_where_there_are_enough_epochs(epochs: int) -> None:
    rates = table("step", 1.0, steps=epochs * 7, per_epoch=7, factor=0.5, drops=2)
    assert rates[-1] == 0.25


# --- exponential


def stairs_progress(step: int, total: int, stairs: int) -> Fraction:
    u = min(Fraction(step, total), Fraction(1))
    return u if stairs == 0 else Fraction(math.floor(u * stairs), stairs)


def exponential_ratio(final_ratio: float, stairs: int = 0) -> Ratio:
    return lambda step, total, per_epoch: math.exp(math.log(final_ratio) * stairs_progress(step, total, stairs))


def test_exponential_smooth_reaches_the_final_ratio_one_past_the_last_step() -> None:
    rates = table("exponential", 0.5, steps=100, final_ratio=0.01)
    assert rates[0] == 0.5
    assert rates[50] == pytest.approx(0.05, rel=1e-7)
    assert rates[99] == pytest.approx(0.5 * 10**-1.98, rel=1e-7)
    assert past_the_end("exponential", 0.5, 100, final_ratio=0.01) == pytest.approx([0.005] * 4, rel=1e-12)


def test_exponential_smooth_falls_by_the_same_factor_at_every_step() -> None:
    rates = table("exponential", 1.0, steps=10, final_ratio=2.0**-10)
    assert rates == [1, 1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256, 1 / 512]


def test_exponential_staircase_holds_each_stair() -> None:
    rates = table("exponential", 1.0, steps=12, final_ratio=2.0**-4, stairs=4)
    assert rates == [1.0] * 3 + [0.5] * 3 + [0.25] * 3 + [0.125] * 3
    assert past_the_end("exponential", 1.0, 12, final_ratio=2.0**-4, stairs=4) == [0.0625] * 4


def test_exponential_staircase_takes_a_stair_at_the_first_whole_step_past_its_boundary() -> None:
    # Stairs of 10/3 steps: boundaries at 3.33 and 6.67.
    assert table("exponential", 1.0, steps=10, final_ratio=2.0**-3, stairs=3) == [1.0] * 4 + [0.5] * 3 + [0.25] * 3


@pytest.mark.parametrize(("steps", "per_epoch"), SIZES)
@pytest.mark.parametrize("stairs", [0, 2, 3, 7, 20])
def test_exponential_equals_its_formula_over_the_whole_curve(steps: int, per_epoch: int, stairs: int) -> None:
    ratio = exponential_ratio(0.003, stairs)
    assert_whole_curve(ratio, "exponential", 0.1, steps, per_epoch, final_ratio=0.003, stairs=stairs)


def test_exponential_equals_its_formula_on_random_trainings() -> None:
    for rng, training in trainings(seed=3, count=120):
        final_ratio, stairs = 10 ** rng.uniform(-5, 0), rng.choice([0, rng.randint(1, 60)])
        ratio = exponential_ratio(final_ratio, stairs)
        assert_whole_curve(ratio, "exponential", **training, final_ratio=final_ratio, stairs=stairs)


# --- inverse_time


def inverse_time_ratio(kappa: float, stairs: int = 0) -> Ratio:
    return lambda step, total, per_epoch: 1 / (1 + kappa * float(stairs_progress(step, total, stairs)))


def test_inverse_time_smooth_divides_the_rate_by_a_number_that_grows_evenly() -> None:
    assert table("inverse_time", 1.0, steps=3, kappa=3.0) == pytest.approx([1, 1 / 2, 1 / 3], rel=1e-7)
    assert past_the_end("inverse_time", 1.0, 3, kappa=3.0) == pytest.approx([1 / 4] * 4)


def test_inverse_time_staircase_holds_each_stair() -> None:
    rates = table("inverse_time", 1.0, steps=6, kappa=3.0, stairs=3)
    assert rates == pytest.approx([1, 1, 1 / 2, 1 / 2, 1 / 3, 1 / 3], rel=1e-7)
    assert past_the_end("inverse_time", 1.0, 6, kappa=3.0, stairs=3) == pytest.approx([1 / 4] * 4)


@pytest.mark.parametrize(("steps", "per_epoch"), SIZES)
@pytest.mark.parametrize("stairs", [0, 2, 3, 7, 20])
def test_inverse_time_equals_its_formula_over_the_whole_curve(steps: int, per_epoch: int, stairs: int) -> None:
    ratio = inverse_time_ratio(40.0, stairs)
    assert_whole_curve(ratio, "inverse_time", 0.1, steps, per_epoch, kappa=40.0, stairs=stairs)


def test_inverse_time_equals_its_formula_on_random_trainings() -> None:
    for rng, training in trainings(seed=4, count=120):
        kappa, stairs = 10 ** rng.uniform(-2, 4), rng.choice([0, rng.randint(1, 60)])
        assert_whole_curve(inverse_time_ratio(kappa, stairs), "inverse_time", **training, kappa=kappa, stairs=stairs)


# --- polynomial and linear


def polynomial_ratio(power: float, alpha: float) -> Ratio:
    def ratio(step: int, total: int, per_epoch: int) -> float:
        left = max(float(Fraction(total - step, total)), 0.0)
        return float(alpha + (1 - alpha) * left**power)

    return ratio


def test_polynomial_falls_as_a_power_of_the_time_that_is_left() -> None:
    assert table("polynomial", 1.0, steps=4, power=2.0) == [1.0, 0.5625, 0.25, 0.0625]
    assert past_the_end("polynomial", 1.0, 4, power=2.0) == [0.0] * 4


def test_polynomial_ends_on_its_floor_however_small_the_base_rate() -> None:
    rates = table("polynomial", 1e-5, steps=50, power=5.0, alpha=0.1)
    assert rates == sorted(rates, reverse=True)
    assert past_the_end("polynomial", 1e-5, 50, power=5.0, alpha=0.1) == pytest.approx([1e-6] * 4)


@pytest.mark.parametrize(("steps", "per_epoch"), SIZES)
@pytest.mark.parametrize(("power", "alpha"), [(0.3, 0.0), (1.0, 0.0), (2.0, 0.01), (5.0, 0.0), (8.0, 0.1)])
def test_polynomial_equals_its_formula_over_the_whole_curve(
    steps: int, per_epoch: int, power: float, alpha: float
) -> None:
    assert_whole_curve(polynomial_ratio(power, alpha), "polynomial", 0.1, steps, per_epoch, power=power, alpha=alpha)


def test_polynomial_equals_its_formula_on_random_trainings() -> None:
    for rng, training in trainings(seed=5):
        power, alpha = 10 ** rng.uniform(-1, 1.5), floor_alpha(rng)
        assert_whole_curve(polynomial_ratio(power, alpha), "polynomial", **training, power=power, alpha=alpha)


def linear_ratio(alpha: float) -> Ratio:
    return lambda step, total, per_epoch: 1 - (1 - alpha) * float(min(Fraction(step, total), Fraction(1)))


def test_linear_falls_in_a_straight_line_to_zero() -> None:
    assert table("linear", 1.0, steps=4) == [1.0, 0.75, 0.5, 0.25]
    assert past_the_end("linear", 1.0, 4) == [0.0] * 4


def test_linear_falls_in_a_straight_line_to_its_floor() -> None:
    assert table("linear", 1.0, steps=4, alpha=0.5) == [1.0, 0.875, 0.75, 0.625]
    assert past_the_end("linear", 1.0, 4, alpha=0.5) == [0.5] * 4


@pytest.mark.parametrize(("steps", "per_epoch"), SIZES)
def test_linear_equals_its_formula_over_the_whole_curve(steps: int, per_epoch: int) -> None:
    assert_whole_curve(linear_ratio(0.01), "linear", 0.1, steps, per_epoch, alpha=0.01)


def test_linear_equals_its_formula_on_random_trainings() -> None:
    for rng, training in trainings(seed=6):
        alpha = floor_alpha(rng)
        assert_whole_curve(linear_ratio(alpha), "linear", **training, alpha=alpha)


# --- cosine


def cosine_ratio(alpha: float) -> Ratio:
    # cos^2(x/2) is (1 + cos x)/2.
    def ratio(step: int, total: int, per_epoch: int) -> float:
        return alpha + (1 - alpha) * math.cos(math.pi / 2 * min(step / total, 1)) ** 2

    return ratio


def test_cosine_is_half_a_wave_from_the_base_rate_to_zero() -> None:
    root = math.sqrt(0.5)
    assert table("cosine", 1.0, steps=4) == pytest.approx([1, (1 + root) / 2, 0.5, (1 - root) / 2], rel=1e-7)
    assert past_the_end("cosine", 1.0, 4) == [0.0] * 4


def test_cosine_ends_on_its_floor() -> None:
    assert table("cosine", 1.0, steps=2, alpha=0.2) == pytest.approx([1.0, 0.6], rel=1e-7)
    assert past_the_end("cosine", 1.0, 2, alpha=0.2) == pytest.approx([0.2] * 4)


@pytest.mark.parametrize(("steps", "per_epoch"), SIZES)
@pytest.mark.parametrize("alpha", [0.0, 0.01])
def test_cosine_equals_its_formula_over_the_whole_curve(steps: int, per_epoch: int, alpha: float) -> None:
    assert_whole_curve(cosine_ratio(alpha), "cosine", 0.1, steps, per_epoch, alpha=alpha)


def test_cosine_equals_its_formula_on_random_trainings() -> None:
    for rng, training in trainings(seed=7):
        alpha = floor_alpha(rng)
        assert_whole_curve(cosine_ratio(alpha), "cosine", **training, alpha=alpha)


# --- cosine_restarts


def cycle_starts(cycles: int, t_mul: Fraction) -> list[Fraction]:
    """Where each cycle starts and the last one ends, as fractions of the training: exact."""
    lengths = [t_mul**cycle for cycle in range(cycles)]
    return [sum(lengths[:cycle], Fraction(0)) / sum(lengths) for cycle in range(cycles + 1)]


def cosine_restarts_ratio(cycles: int, t_mul: Fraction, m_mul: float, alpha: float) -> Ratio:
    bounds = cycle_starts(cycles, t_mul)

    def ratio(step: int, total: int, per_epoch: int) -> float:
        u = min(Fraction(step, total), Fraction(1))
        cycle = max(i for i in range(cycles) if bounds[i] <= u)
        v = (u - bounds[cycle]) / (bounds[cycle + 1] - bounds[cycle])
        return float(alpha + (1 - alpha) * m_mul**cycle * math.cos(math.pi / 2 * v) ** 2)

    return ratio


EXACT_T_MULS = [Fraction(1), Fraction(3, 2), Fraction(2), Fraction(3)]


def test_cosine_restarts_begins_each_warm_restart_at_its_peak() -> None:
    # Cycles of 1, 2 and 4 sevenths of 14 steps.
    rates = table("cosine_restarts", 1.0, steps=14, cycles=3, t_mul=2.0, m_mul=0.5)
    assert [rates[0], rates[2], rates[6]] == [1.0, 0.5, 0.25]
    assert [rates[1], rates[4], rates[10]] == pytest.approx([0.5, 0.25, 0.125], rel=1e-7)
    assert past_the_end("cosine_restarts", 1.0, 14, cycles=3, t_mul=2.0, m_mul=0.5) == [0.0] * 4


@pytest.mark.parametrize("t_mul", EXACT_T_MULS, ids=str)
@pytest.mark.parametrize("cycles", [1, 2, 3, 5])
def test_cosine_restarts_equals_its_formula_over_the_whole_curve(cycles: int, t_mul: Fraction) -> None:
    ratio = cosine_restarts_ratio(cycles, t_mul, 0.7, 0.01)
    for steps, per_epoch in SIZES:
        assert_whole_curve(
            ratio,
            "cosine_restarts",
            0.1,
            steps,
            per_epoch,
            cycles=cycles,
            t_mul=float(t_mul),
            m_mul=0.7,
            alpha=0.01,
        )


def test_cosine_restarts_equals_its_formula_on_random_trainings() -> None:
    for rng, training in trainings(seed=8, count=120):
        cycles, t_mul = rng.randint(1, 8), Fraction(rng.choice(EXACT_T_MULS))
        m_mul, alpha = rng.uniform(0.2, 1.0), floor_alpha(rng)
        assert_whole_curve(
            cosine_restarts_ratio(cycles, t_mul, m_mul, alpha),
            "cosine_restarts",
            **training,
            cycles=cycles,
            t_mul=float(t_mul),
            m_mul=m_mul,
            alpha=alpha,
        )


@pytest.mark.parametrize("t_mul", [*EXACT_T_MULS, Fraction(13, 10), Fraction(11, 7)], ids=str)
@pytest.mark.parametrize("cycles", [2, 3, 4, 5])
def test_cosine_restarts_lands_every_warm_restart_where_exact_arithmetic_says(cycles: int, t_mul: Fraction) -> None:
    bounds = cycle_starts(cycles, t_mul)
    exact = math.lcm(*(bound.denominator for bound in bounds))
    at_boundaries = {n * exact for n in (1, 2, 7, 33) if n * exact < 50_000}
    tried = 0
    for total in sorted(at_boundaries | {50, 97, 128, 1407, 9973}):
        if bounds[1] * total < 3:
            continue  # the first cycles are too short for a rise to be seen
        rates = table("cosine_restarts", 1.0, steps=total, cycles=cycles, t_mul=float(t_mul))
        rises = [step for step in range(1, total) if rates[step] > rates[step - 1]]
        assert rises == [math.ceil(bound * total) for bound in bounds[1:-1]], total
        assert total not in at_boundaries or {rates[step] for step in rises} == {1.0}
        tried += 1
    assert tried >= 4


@given(
    cycles=st.integers(1, 30),
    t_mul=st.floats(1, 10),
    m_mul=st.floats(0.1, 1),
    alpha=st.floats(0, 0.5),
    steps=st.integers(2, 300),
)
@example(cycles=20, t_mul=10.0, m_mul=0.5, alpha=0.0, steps=100)
def test_cosine_restarts_ends_a_cycle_with_the_training(
    cycles: int, t_mul: float, m_mul: float, alpha: float, steps: int
) -> None:
    parameters: dict[str, Any] = {"cycles": cycles, "t_mul": t_mul, "m_mul": m_mul, "alpha": alpha}
    assert past_the_end("cosine_restarts", 0.5, steps, **parameters) == pytest.approx([0.5 * alpha] * 4, abs=1e-12)
    assert table("cosine_restarts", 0.5, steps, **parameters)[0] == 0.5


def test_cosine_restarts_with_one_cycle_is_cosine() -> None:
    for rng, training in trainings(seed=9):
        alpha = floor_alpha(rng)
        assert_whole_curve(
            cosine_ratio(alpha), "cosine_restarts", **training, cycles=1, t_mul=rng.uniform(1, 5), alpha=alpha
        )


# --- the warm-up prefix


def test_warm_up_prefix_rises_linearly_and_its_first_step_is_not_zero() -> None:
    rates = table("constant", 0.5, steps=10, warmup=0.4)
    assert rates == [0.125, 0.25, 0.375, 0.5] + [0.5] * 6


def test_warm_up_prefix_moves_the_schedule_to_the_steps_that_are_left() -> None:
    assert table("linear", 1.0, steps=8, warmup=0.5) == [0.25, 0.5, 0.75, 1.0, 1.0, 0.75, 0.5, 0.25]


@pytest.mark.parametrize(
    ("warmup", "steps", "expected"),
    [
        (0.0, 50, 0),
        (0.1, 100, 10),
        (0.25, 97, 24),
        (0.3, 7, 2),
        (0.001, 100, 0),
        (0.9, 10, 9),
        (0.9, 4, 3),
        (0.9, 1, 0),
    ],
)
def test_warm_up_prefix_is_a_fraction_of_training_that_leaves_a_step_to_the_schedule(
    warmup: float, steps: int, expected: int
) -> None:
    rates = table("constant", 1.0, steps, warmup=warmup)
    assert sum(rate < 1.0 for rate in rates) == max(expected - 1, 0)
    if expected:
        assert rates[0] == pytest.approx(1 / expected, rel=1e-7)
    assert rates[-1] == 1.0


@pytest.mark.parametrize("name", OPEN_LOOP)
@pytest.mark.parametrize(("steps", "per_epoch", "warmup_steps"), [(60, 10, 20), (97, 8, 13), (10, 10, 9), (33, 1, 1)])
def test_warm_up_prefix_composes_with_every_open_loop_schedule(
    name: str, steps: int, per_epoch: int, warmup_steps: int
) -> None:
    rates = table(name, 0.3, steps, per_epoch, warmup_steps / steps)
    rise = [0.3 * (step + 1) / warmup_steps for step in range(warmup_steps)]
    assert rates[:warmup_steps] == pytest.approx(rise, rel=1e-7)
    assert rates[warmup_steps:] == table(name, 0.3, steps - warmup_steps, per_epoch)


# --- what holds for all of them

STAIRS = st.one_of(st.just(0), st.integers(1, 1000))
UNIT = st.floats(0, 1)
STRATEGIES: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "constant": {},
    "step": {"factor": st.floats(1e-6, 0.999999), "drops": st.integers(1, 1000)},
    "exponential": {"final_ratio": st.floats(1e-30, 1), "stairs": STAIRS},
    "inverse_time": {"kappa": st.floats(1e-12, 1e12), "stairs": STAIRS},
    "polynomial": {"power": st.floats(1e-3, 100), "alpha": UNIT},
    "linear": {"alpha": UNIT},
    "cosine": {"alpha": UNIT},
    "cosine_restarts": {
        "cycles": st.integers(1, 100),
        "t_mul": st.floats(1, 10),
        "m_mul": st.floats(1e-3, 1),
        "alpha": UNIT,
    },
}
ANY_OPEN_LOOP = st.one_of(
    *(st.builds(open_loop, st.just(name), **parameters) for name, parameters in STRATEGIES.items())
)


def test_every_open_loop_schedule_is_tried_here() -> None:
    assert set(STRATEGIES) == set(OPEN_LOOP)
    for name, parameters in STRATEGIES.items():
        assert set(parameters) == set(open_loop(name).parameters)


@given(
    schedule=ANY_OPEN_LOOP,
    base=st.floats(1e-6, 1e4),
    steps=st.integers(1, 300),
    per_epoch=st.integers(1, 50),
    warmup=st.one_of(st.just(0.0), st.floats(0, 0.9)),
)
def test_every_open_loop_table_is_finite_never_negative_and_never_above_the_base_rate(
    schedule: OpenLoop, base: float, steps: int, per_epoch: int, warmup: float
) -> None:
    rates = rate_table(schedule, base, warmup=warmup, steps=steps, steps_per_epoch=per_epoch)
    highest = np.nextafter(np.float32(base), np.float32(np.inf))
    assert rates.dtype == np.float32
    assert rates.shape == (steps,)
    assert np.all(np.isfinite(rates))
    assert np.all(rates >= 0)
    assert np.all(rates <= highest)


@given(
    schedule=ANY_OPEN_LOOP,
    base=st.floats(1e-6, 1e4),
    steps=st.integers(1, 300),
    per_epoch=st.integers(1, 50),
    warmup_steps=st.integers(0, 250),
)
def test_every_open_loop_table_starts_at_the_base_rate_or_its_first_share_in_the_warm_up(
    schedule: OpenLoop, base: float, steps: int, per_epoch: int, warmup_steps: int
) -> None:
    w = min(warmup_steps, int(0.9 * steps))
    rates = rate_table(schedule, base, warmup=w / steps, steps=steps, steps_per_epoch=per_epoch)
    assert rates[0] == pytest.approx(base / max(w, 1), rel=1e-6)
    assert rates[w] == pytest.approx(base, rel=1e-6)


@given(schedule=ANY_OPEN_LOOP, steps=st.integers(1, 300), per_epoch=st.integers(1, 50))
def test_every_open_loop_schedule_holds_its_last_value_after_the_end(
    schedule: OpenLoop, steps: int, per_epoch: int
) -> None:
    def at(*step: int) -> NDArray[np.float64]:
        return rates_at(schedule, 0.1, np.array(step), warmup=0.0, steps=steps, steps_per_epoch=per_epoch)

    end = steps + per_epoch  # from here on no whole epoch is broken
    assert set(at(end + 1, end + 17, 1000 * end)) == set(at(end))


# --- the catalogue


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_schedule_of_the_catalogue_is_described_and_made_at_its_defaults(name: str) -> None:
    info = describe(name)
    assert info.type == name == make(name).type
    assert info.loop == CATALOGUE[name].loop
    assert info.summary.endswith(".")
    assert info.formula
    assert info.source
    for parameter in info.parameters:
        assert parameter.default is not None, parameter.name
        assert parameter.description, parameter.name
        assert make(name, **{parameter.name: parameter.default}).parameters == make(name).parameters


def test_catalogue_states_the_bounds_of_a_parameter() -> None:
    found = {parameter.name: parameter for parameter in describe("exponential").parameters}
    final_ratio, stairs = found["final_ratio"], found["stairs"]
    assert (final_ratio.kind, final_ratio.low, final_ratio.low_included) == ("float", 0.0, False)
    assert (final_ratio.high, final_ratio.high_included) == (1.0, True)
    assert final_ratio.search == {"low": 0.0001, "high": 0.5, "log": True}
    assert (stairs.kind, stairs.search) == ("int", [0, 3, 5, 10, 20])


def test_unknown_schedule_is_refused_with_the_closest_name() -> None:
    with pytest.raises(NotFound, match="no schedule 'cosine_restart'; did you mean 'cosine_restarts'"):
        make("cosine_restart")


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("step", {"factor": 1.0}),
        ("step", {"factor": 0.0}),
        ("step", {"drops": 0}),
        ("exponential", {"final_ratio": 0.0}),
        ("exponential", {"stairs": -1}),
        ("inverse_time", {"kappa": 0.0}),
        ("inverse_time", {"kappa": math.inf}),
        ("inverse_time", {"kappa": math.nan}),
        ("polynomial", {"power": 0.0}),
        ("cosine", {"alpha": 1.1}),
        ("cosine", {"alpha": -0.1}),
        ("cosine", {"name": 1}),
        ("cosine_restarts", {"t_mul": 0.5}),
        ("cosine_restarts", {"m_mul": 0.0}),
        ("cosine_restarts", {"cycles": 0}),
        ("reduce_on_plateau", {"factor": 1.0}),
        ("reduce_on_plateau", {"patience": 0}),
        ("reduce_on_plateau", {"mode": "up"}),
        ("plateau_with_revert", {"min_ratio": 1.5}),
    ],
)
def test_schedule_with_an_impossible_parameter_is_refused(name: str, parameters: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(parameters))):
        make(name, **parameters)


def test_default_schedules_are_in_the_catalogue_and_no_two_give_the_same_rates() -> None:
    assert set(DEFAULT_SCHEDULES) <= set(CATALOGUE)
    assert len(set(DEFAULT_SCHEDULES)) == len(DEFAULT_SCHEDULES)
    assert "linear" not in DEFAULT_SCHEDULES, "linear is polynomial with power 1"
    curves = [tuple(table(name, 1.0, 100, 10)) for name in DEFAULT_SCHEDULES if name in OPEN_LOOP]
    assert len(set(curves)) == len(curves)
