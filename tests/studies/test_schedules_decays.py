"""The classic decays, in numbers that one can check: steps and pieces, exponentials, inverse times, powers.

Whole curves over random trainings are compared in test_schedules_all.py.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.studies.curves import SIZES, assert_whole_curve, open_loop, past_the_end, rates_of, table

# --- constant


@pytest.mark.parametrize(("steps", "per_epoch"), SIZES)
def test_constant_is_the_base_rate_at_every_step_and_after_the_end(steps: int, per_epoch: int) -> None:
    assert table("constant", 0.25, steps, per_epoch) == [0.25] * steps
    assert past_the_end("constant", 0.25, steps, per_epoch) == [0.25] * 4


# --- step


def test_step_divides_the_rate_by_ten_after_each_third_of_the_epochs() -> None:
    rates = table("step", 0.5, steps=18, per_epoch=2, factor=0.1, drops=2)
    assert rates == pytest.approx([0.5] * 6 + [0.05] * 6 + [0.005] * 6, rel=1e-7)
    assert past_the_end("step", 0.5, 18, 2, factor=0.1, drops=2) == pytest.approx([0.005] * 4)


@pytest.mark.parametrize(("steps", "per_epoch"), SIZES)
@pytest.mark.parametrize(("factor", "drops"), [(0.1, 2), (0.5, 1), (0.25, 6), (0.5, 50)])
def test_step_equals_its_formula_over_the_whole_curve(steps: int, per_epoch: int, factor: float, drops: int) -> None:
    assert_whole_curve("step", 0.3, steps, per_epoch, factor=factor, drops=drops)


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


def test_step_every_so_many_epochs_counts_them_and_no_drops() -> None:
    # The well-known "a quarter every 15 epochs", here every 3 of 2 steps, whatever `drops` says.
    rates = table("step", 1.0, steps=20, per_epoch=2, factor=0.25, every=3, drops=1)
    assert rates == [1.0] * 6 + [0.25] * 6 + [0.0625] * 6 + [0.015625] * 2
    assert past_the_end("step", 1.0, 20, 2, factor=0.25, every=3)[2] == 0.25 ** (20 // 3)


@pytest.mark.parametrize(("steps", "per_epoch"), SIZES)
@pytest.mark.parametrize("every", [1, 2, 10, 10**6])
def test_step_every_so_many_epochs_equals_its_formula_over_the_whole_curve(
    steps: int, per_epoch: int, every: int
) -> None:
    assert_whole_curve("step", 0.3, steps, per_epoch, factor=0.5, every=every)


# --- piecewise_constant


def test_piecewise_constant_keeps_the_old_rate_at_its_boundary_and_takes_the_next_one_after() -> None:
    # Boundaries after 1/2 and, halfway through what is left, 3/4 of 8 steps: at steps 4 and 6.
    rates = table("piecewise_constant", 1.0, steps=8, boundaries=2, ratio_1=0.5, ratio_2=0.5)
    assert rates == [1.0] * 5 + [0.5] * 2 + [0.25]
    assert past_the_end("piecewise_constant", 1.0, 8, ratio_1=0.5, ratio_2=0.5) == [0.25] * 4


def test_piecewise_constant_leaves_the_pieces_out_that_it_has_no_boundaries_for() -> None:
    ratios: dict[str, Any] = {"ratio_1": 0.5, "ratio_2": 0.25, "ratio_3": 0.125, "ratio_4": 0.0625}
    for boundaries, last in ((1, 2**-1), (2, 2**-3), (3, 2**-6), (4, 2**-10)):
        rates = table("piecewise_constant", 1.0, steps=100, boundaries=boundaries, **ratios)
        assert (len(set(rates)), rates[-1]) == (boundaries + 1, last)


@pytest.mark.parametrize("tenths", range(1, 10))
@pytest.mark.parametrize("steps", [20, 30, 70, 1000])
def test_piecewise_constant_meets_a_boundary_that_is_a_whole_step_in_decimals(tenths: int, steps: int) -> None:
    # 0.3 and 0.7 are no binary fractions: rounding must not move their boundaries by a step.
    rates = table("piecewise_constant", 1.0, steps, boundaries=1, break_1=tenths / 10, ratio_1=0.5)
    assert rates.index(0.5) == tenths * steps // 10 + 1
    both = table("piecewise_constant", 1.0, 10 * steps, boundaries=2, break_1=0.3, break_2=tenths / 10, ratio_2=0.5)
    assert both.count(both[-1]) == 10 * steps - 1 - (3 * steps + 7 * steps * tenths // 10)


# --- exponential


def test_exponential_smooth_reaches_the_final_ratio_one_past_the_last_step_and_goes_on() -> None:
    rates = table("exponential", 0.5, steps=100, final_ratio=0.01)
    assert rates[0] == 0.5
    assert rates[50] == pytest.approx(0.05, rel=1e-7)
    assert rates[99] == pytest.approx(0.5 * 10**-1.98, rel=1e-7)
    after = [0.005, 0.5 * 10**-2.02, 5e-5]
    assert past_the_end("exponential", 0.5, 100, final_ratio=0.01)[:3] == pytest.approx(after, rel=1e-12)


def test_exponential_smooth_falls_by_the_same_factor_at_every_step() -> None:
    rates = table("exponential", 1.0, steps=10, final_ratio=2.0**-10)
    assert rates == [1, 1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256, 1 / 512]


def test_exponential_staircase_holds_each_stair() -> None:
    rates = table("exponential", 1.0, steps=12, final_ratio=2.0**-4, stairs=4)
    assert rates == [1.0] * 3 + [0.5] * 3 + [0.25] * 3 + [0.125] * 3
    later = rates_of(open_loop("exponential", final_ratio=2.0**-4, stairs=4), 1.0, [12, 14, 15, 24], steps=12)
    assert later == [2**-4, 2**-4, 2**-5, 2**-8]


def test_exponential_staircase_takes_a_stair_at_the_first_whole_step_past_its_boundary() -> None:
    # Stairs of 10/3 steps: boundaries at 3.33 and 6.67.
    assert table("exponential", 1.0, steps=10, final_ratio=2.0**-3, stairs=3) == [1.0] * 4 + [0.5] * 3 + [0.25] * 3


@pytest.mark.parametrize(("steps", "per_epoch"), SIZES)
@pytest.mark.parametrize("stairs", [0, 2, 3, 7, 20])
def test_exponential_equals_its_formula_over_the_whole_curve(steps: int, per_epoch: int, stairs: int) -> None:
    assert_whole_curve("exponential", 0.1, steps, per_epoch, final_ratio=0.003, stairs=stairs)


# --- natural_exponential


def test_natural_exponential_with_the_logarithm_of_two_halves_the_rate_over_the_training() -> None:
    rates = table("natural_exponential", 1.0, steps=4, kappa=4 * math.log(2))
    assert rates == pytest.approx([1, 1 / 2, 1 / 4, 1 / 8], rel=1e-7)


def test_natural_exponential_is_the_exponential_of_the_same_end() -> None:
    for stairs in (0, 1, 7):
        ours = table("natural_exponential", 0.3, steps=50, kappa=math.log(100), stairs=stairs)
        assert ours == pytest.approx(table("exponential", 0.3, steps=50, final_ratio=0.01, stairs=stairs), rel=2e-7)


@pytest.mark.parametrize(("steps", "per_epoch"), SIZES)
@pytest.mark.parametrize("stairs", [0, 2, 3, 7, 20])
def test_natural_exponential_equals_its_formula_over_the_whole_curve(steps: int, per_epoch: int, stairs: int) -> None:
    assert_whole_curve("natural_exponential", 0.1, steps, per_epoch, kappa=6.0, stairs=stairs)


# --- time_decay, inverse_time, inverse_time_power, inverse_sqrt


def test_time_decay_divides_by_one_plus_a_decay_for_each_step() -> None:
    # The old `decay=0.01` of Keras' optimizers, over 300 steps: to 1/(1 + 3) of the base rate.
    rates = table("time_decay", 0.1, steps=300, per_epoch=30, final_ratio=0.25)
    assert rates == pytest.approx([0.1 / (1 + 0.01 * step) for step in range(300)], rel=1e-6)
    assert past_the_end("time_decay", 0.1, 300, final_ratio=0.25)[2] == pytest.approx(0.1 / 7)


def test_inverse_time_smooth_divides_the_rate_by_a_number_that_grows_evenly() -> None:
    assert table("inverse_time", 1.0, steps=3, kappa=3.0) == pytest.approx([1, 1 / 2, 1 / 3], rel=1e-7)
    assert past_the_end("inverse_time", 1.0, 3, kappa=3.0)[:3] == pytest.approx([1 / 4, 1 / 5, 1 / 7])


def test_inverse_time_staircase_holds_each_stair() -> None:
    rates = table("inverse_time", 1.0, steps=6, kappa=3.0, stairs=3)
    assert rates == pytest.approx([1, 1, 1 / 2, 1 / 2, 1 / 3, 1 / 3], rel=1e-7)
    assert past_the_end("inverse_time", 1.0, 6, kappa=3.0, stairs=3)[:3] == pytest.approx([1 / 4, 1 / 4, 1 / 7])


@pytest.mark.parametrize(("steps", "per_epoch"), SIZES)
@pytest.mark.parametrize("stairs", [0, 2, 3, 7, 20])
def test_inverse_time_equals_its_formula_over_the_whole_curve(steps: int, per_epoch: int, stairs: int) -> None:
    assert_whole_curve("inverse_time", 0.1, steps, per_epoch, kappa=40.0, stairs=stairs)


def test_inverse_time_power_takes_the_divisor_to_a_power() -> None:
    rates = table("inverse_time_power", 1.0, steps=4, kappa=12.0, power=2.0)
    assert rates == pytest.approx([1, 1 / 16, 1 / 49, 1 / 100], rel=1e-6)
    roots = table("inverse_time_power", 1.0, steps=3, kappa=9.0, power=0.5)
    assert roots == pytest.approx([1, 1 / 2, 1 / math.sqrt(7)], rel=1e-6)


def test_inverse_time_power_1_is_inverse_time() -> None:
    assert table("inverse_time_power", 0.3, 50, kappa=7.0, power=1.0) == table("inverse_time", 0.3, 50, kappa=7.0)


def test_inverse_sqrt_halves_the_rate_after_three_times_its_time_scale() -> None:
    rates = table("inverse_sqrt", 1.0, steps=90, tau=0.1)  # 9 steps
    assert (rates[0], rates[27], rates[72]) == pytest.approx((1, 1 / 2, 1 / 3), rel=1e-7)
    assert past_the_end("inverse_sqrt", 1.0, 90, tau=0.1)[2] == pytest.approx(math.sqrt(9 / 189))


# --- polynomial and linear


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
    assert_whole_curve("polynomial", 0.1, steps, per_epoch, power=power, alpha=alpha)


def test_polynomial_in_cycles_stretches_its_curve_over_one_cycle_more_each_time() -> None:
    # Cycles of 4 steps: the first falls from 1 to 0 over 4 steps, the second over 8, begun where it is halfway.
    rates = table("polynomial", 1.0, steps=8, power=1.0, cycles=2)
    assert rates == [1.0, 0.75, 0.5, 0.25, 0.0, 0.375, 0.25, 0.125]
    later = rates_of(open_loop("polynomial", power=1.0, cycles=2), 1.0, [8, 9, 12, 13], steps=8)
    assert later == pytest.approx([0.0, 1 - 9 / 12, 0.0, 1 - 13 / 16])


@pytest.mark.parametrize("cycles", [2, 3, 7, 100])
def test_polynomial_in_cycles_reaches_its_floor_where_exact_arithmetic_says(cycles: int) -> None:
    for steps in (cycles, 33 * cycles, 97, 1407):
        rates = rates_of(open_loop("polynomial", power=1.0, cycles=cycles), 1.0, [*range(2 * steps)], steps)
        floors = [step for step, rate in enumerate(rates) if rate == 0.0]
        whole = [Fraction(cycle * steps, cycles) for cycle in range(1, 2 * cycles)]
        assert floors == [int(step) for step in whole if step.denominator == 1]


def test_linear_falls_in_a_straight_line_to_zero() -> None:
    assert table("linear", 1.0, steps=4) == [1.0, 0.75, 0.5, 0.25]
    assert past_the_end("linear", 1.0, 4) == [0.0] * 4


def test_linear_falls_in_a_straight_line_to_its_floor() -> None:
    assert table("linear", 1.0, steps=4, alpha=0.5) == [1.0, 0.875, 0.75, 0.625]
    assert past_the_end("linear", 1.0, 4, alpha=0.5) == [0.5] * 4


@pytest.mark.parametrize(("steps", "per_epoch"), SIZES)
def test_linear_equals_its_formula_over_the_whole_curve(steps: int, per_epoch: int) -> None:
    assert_whole_curve("linear", 0.1, steps, per_epoch, alpha=0.01)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("time_decay", {"final_ratio": 1.0}), ("exponential", {"final_ratio": 1.0}), ("linear", {"alpha": 1.0})],
)
def test_a_decay_to_the_base_rate_itself_is_constant(name: str, parameters: dict[str, Any]) -> None:
    assert set(table(name, 0.25, 33, 4, **parameters)) == {0.25}
