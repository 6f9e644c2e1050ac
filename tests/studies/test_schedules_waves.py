"""Cosines, once or again and again, with and without noise, and the triangles of cyclical rates."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from studies.schedules.table import rate_table, rates_at
from tests.studies.curves import SIZES, assert_whole_curve, open_loop, past_the_end, rates_of, table
from tests.studies.formulas import cycle_starts

ROOT = math.sqrt(0.5)

# --- cosine


def test_cosine_is_half_a_wave_from_the_base_rate_to_zero() -> None:
    assert table("cosine", 1.0, steps=4) == pytest.approx([1, (1 + ROOT) / 2, 0.5, (1 - ROOT) / 2], rel=1e-7)
    assert past_the_end("cosine", 1.0, 4) == [0.0] * 4


def test_cosine_ends_on_its_floor() -> None:
    assert table("cosine", 1.0, steps=2, alpha=0.2) == pytest.approx([1.0, 0.6], rel=1e-7)
    assert past_the_end("cosine", 1.0, 2, alpha=0.2) == pytest.approx([0.2] * 4)


def test_cosine_to_a_power_falls_earlier() -> None:
    assert table("cosine", 1.0, steps=2, power=3.0, alpha=0.2) == pytest.approx([1.0, 0.8 / 8 + 0.2], rel=1e-7)


@pytest.mark.parametrize(("steps", "per_epoch"), SIZES)
@pytest.mark.parametrize("alpha", [0.0, 0.01])
def test_cosine_equals_its_formula_over_the_whole_curve(steps: int, per_epoch: int, alpha: float) -> None:
    assert_whole_curve("cosine", 0.1, steps, per_epoch, alpha=alpha)


# --- cosine_restarts

EXACT_T_MULS = [Fraction(1), Fraction(3, 2), Fraction(2), Fraction(3)]


def test_cosine_restarts_begins_each_warm_restart_at_its_peak() -> None:
    # Cycles of 1, 2 and 4 sevenths of 14 steps.
    rates = table("cosine_restarts", 1.0, steps=14, cycles=3, t_mul=2.0, m_mul=0.5)
    assert [rates[0], rates[2], rates[6]] == [1.0, 0.5, 0.25]
    assert [rates[1], rates[4], rates[10]] == pytest.approx([0.5, 0.25, 0.125], rel=1e-7)
    # Past the end the next cycle follows, 8/7 of the training long; at 28 steps it is at 14 of its 16.
    later = past_the_end("cosine_restarts", 1.0, 14, cycles=3, t_mul=2.0, m_mul=0.5)
    assert later[:3] == pytest.approx([0.125 * math.cos(math.pi / 2 * n / 16) ** 2 for n in (0, 1, 14)])


@pytest.mark.parametrize("t_mul", EXACT_T_MULS, ids=str)
@pytest.mark.parametrize("cycles", [1, 2, 3, 5])
def test_cosine_restarts_equals_its_formula_over_the_whole_curve(cycles: int, t_mul: Fraction) -> None:
    parameters: dict[str, Any] = {"cycles": cycles, "t_mul": float(t_mul), "m_mul": 0.7, "alpha": 0.01}
    for steps, per_epoch in SIZES:
        assert_whole_curve("cosine_restarts", 0.1, steps, per_epoch, **parameters)


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
    rates = table("cosine_restarts", 0.5, steps, **parameters)
    assert rates[0] == 0.5
    # One step before the end of the last cycle, whose length is t_mul^(cycles - 1) of the sum of all.
    last = steps * t_mul ** (cycles - 1) / sum(t_mul**cycle for cycle in range(cycles))
    if last > 1:
        wave = math.sin(math.pi / 2 / last) ** 2
        assert rates[-1] == pytest.approx(0.5 * (alpha + (1 - alpha) * m_mul ** (cycles - 1) * wave), rel=1e-5)
    next_cycle = rates_of(open_loop("cosine_restarts", **parameters), 0.5, [steps], steps)
    assert next_cycle == pytest.approx([0.5 * (alpha + (1 - alpha) * m_mul**cycles)])


@given(alpha=st.floats(0, 1), t_mul=st.floats(1, 5), steps=st.integers(1, 200), per_epoch=st.integers(1, 40))
def test_cosine_restarts_with_one_cycle_is_cosine(alpha: float, t_mul: float, steps: int, per_epoch: int) -> None:
    one = table("cosine_restarts", 0.3, steps, per_epoch, cycles=1, t_mul=t_mul, alpha=alpha)
    assert one == pytest.approx(table("cosine", 0.3, steps, per_epoch, alpha=alpha), rel=2e-7, abs=1e-15)


# --- linear_cosine


def test_linear_cosine_is_a_wave_within_a_falling_line() -> None:
    # A period and a half: the wave is 1, 0, 1, 0 at thirds of the training, where the line is 1, 2/3, 1/3, 0.
    rates = table("linear_cosine", 1.0, steps=3, periods=1.5, beta=0.0)
    assert rates == pytest.approx([1.0, 0.0, 1 / 3], abs=1e-7)
    raised = table("linear_cosine", 1.0, steps=3, periods=1.5, alpha=0.25, beta=0.5)
    assert raised == pytest.approx([1.75, 0.5, 0.25 + 1 / 3 + 0.5], rel=1e-6)
    assert past_the_end("linear_cosine", 1.0, 3, periods=2.0, alpha=0.25, beta=0.5) == pytest.approx([0.75] * 4)


def test_linear_cosine_starts_above_the_base_rate_by_alpha_and_beta() -> None:
    assert table("linear_cosine", 0.1, steps=10)[0] == pytest.approx(0.1001)


# --- noisy_linear_cosine

NOISY: dict[str, Any] = {"periods": 1.0, "alpha": 1.0, "beta": 1.0, "initial_variance": 0.01, "variance_decay": 0.55}
"""Noise of a tenth of the base rate at most, so high above zero that nothing is clipped."""


def noise(step: list[int], steps: int, seed: int, **parameters: Any) -> NDArray[np.float64]:
    """The noise of the steps in units of its own standard deviation, taken out of the rates again."""
    schedule = open_loop("noisy_linear_cosine", **{**NOISY, **parameters})
    rates = rates_at(schedule, 1.0, np.array(step), warmup=0.0, steps=steps, steps_per_epoch=7, seed=seed)
    found = []
    for s, rate in zip(step, rates, strict=True):
        u = min(s / steps, 1.0)
        wave = (1 + math.cos(2 * math.pi * u)) / 2
        spread = math.sqrt(0.01 / (1 + min(s, steps)) ** 0.55)
        found.append(((rate - 1.0) / wave - (1.0 + 1 - u)) / spread)
    return np.array(found)


AWAY_FROM_THE_NODE = [s for s in range(1000) if abs(s - 500) > 100]
"""Halfway the wave is zero, and the noise with it."""


def test_noise_is_standard_normal_and_independent_from_step_to_step_and_from_seed_to_seed() -> None:
    samples = np.array([noise(AWAY_FROM_THE_NODE, 1000, seed) for seed in range(50)])
    assert abs(samples.mean()) < 5 / math.sqrt(samples.size)
    assert samples.std() == pytest.approx(1.0, abs=5 / math.sqrt(2 * samples.size))
    # Its distribution, at the quartiles and in the tails.
    for bound, share in ((0.6745, 0.5), (1.0, 0.6827), (1.9600, 0.95), (2.5758, 0.99)):
        assert np.mean(np.abs(samples) < bound) == pytest.approx(share, abs=0.01)
    early, late = samples[:, :300], samples[:, -300:]
    assert early.std() == pytest.approx(late.std(), abs=0.05)
    between_steps = np.mean(samples[:, 1:400] * samples[:, :399])
    between_seeds = np.mean(samples[1:] * samples[:-1])
    assert abs(between_steps) < 0.03
    assert abs(between_seeds) < 0.03


def test_noise_is_a_function_of_seed_and_step() -> None:
    whole = noise(AWAY_FROM_THE_NODE, 1000, seed=3)
    some = [990, 7, 7, 0, 250]
    alone = np.array([noise([s], 1000, seed=3)[0] for s in some])
    np.testing.assert_allclose(noise(some, 1000, seed=3), alone, rtol=1e-12)
    np.testing.assert_allclose(alone, [whole[AWAY_FROM_THE_NODE.index(s)] for s in some], rtol=1e-12)
    # Another length of training, another place on the curve: the same draw.
    np.testing.assert_allclose(noise([7, 250], 2000, seed=3), alone[[1, 4]], rtol=1e-9)
    assert noise([7], 1000, seed=4)[0] != pytest.approx(alone[1])


def test_noise_goes_on_around_the_last_value() -> None:
    for far in (1000, 100_000):
        assert 0.85 < noise([*range(far, far + 500)], 1000, seed=5).std() < 1.15


def test_noise_has_its_initial_variance_at_the_first_step_and_fades_as_a_power() -> None:
    for variance, decay in ((0.01, 0.0), (0.0025, 1.0)):
        schedule = open_loop("noisy_linear_cosine", **{**NOISY, "initial_variance": variance, "variance_decay": decay})
        rates = np.array(
            [
                rates_at(schedule, 1.0, np.array([0, 99]), warmup=0.0, steps=10**6, steps_per_epoch=7, seed=seed)
                for seed in range(2000)
            ]
        )
        assert rates.var(axis=0) == pytest.approx([variance, variance / 100**decay], rel=0.15)


def test_noise_that_would_make_a_rate_negative_is_cut_at_zero() -> None:
    schedule = open_loop("noisy_linear_cosine", initial_variance=10.0, variance_decay=0.0)
    rates = rate_table(schedule, 0.1, warmup=0.0, steps=400, steps_per_epoch=10, seed=1)
    assert np.all(rates >= 0)
    # Early on the wave is near 1: what is cut is a normal variable below -(1 - u) in units of sqrt(10).
    assert np.mean(rates[:40] == 0) == pytest.approx(0.38, abs=0.15)


def test_noise_begins_after_the_warm_up() -> None:
    schedule = open_loop("noisy_linear_cosine", **NOISY)
    rates = rate_table(schedule, 0.2, warmup=0.5, steps=8, steps_per_epoch=2, seed=1)
    assert list(rates[:4]) == pytest.approx([0.05, 0.1, 0.15, 0.2])
    assert list(rates[4:]) == list(rate_table(schedule, 0.2, warmup=0.0, steps=4, steps_per_epoch=2, seed=1))


# --- one_cycle


def test_one_cycle_rises_to_its_peak_and_falls_to_its_end() -> None:
    shape: dict[str, Any] = {"pct_start": 0.25, "div": 5.0, "final_div": 20.0}
    straight = table("one_cycle", 1.0, steps=8, anneal="linear", **shape)
    fall = (1 - 1 / 20) / 6
    assert straight == pytest.approx([0.2, 0.6, *(1 - n * fall for n in range(6))], rel=1e-6)
    waves = table("one_cycle", 1.0, steps=8, anneal="cosine", **shape)
    assert waves[:3] == pytest.approx([0.2, 0.6, 1.0], rel=1e-6)
    assert waves[5] == pytest.approx((1 + 1 / 20) / 2, rel=1e-6)
    assert past_the_end("one_cycle", 1.0, 8, **shape) == pytest.approx([0.05] * 4)


def test_one_cycle_divides_the_base_rate_itself_at_both_ends_as_fastai_does() -> None:
    # PyTorch's final_div_factor divides the first rate instead: 0.4/25/10^4.
    assert table("one_cycle", 0.4, steps=1000)[0] == pytest.approx(0.4 / 25)
    assert past_the_end("one_cycle", 0.4, 1000)[0] == pytest.approx(0.4 / 1e4)


@given(pct_start=st.floats(0.01, 0.99), steps=st.integers(1, 300), anneal=st.sampled_from(["cosine", "linear"]))
def test_one_cycle_has_one_peak(pct_start: float, steps: int, anneal: str) -> None:
    rates = table("one_cycle", 1.0, steps, pct_start=pct_start, anneal=anneal)
    peak = rates.index(max(rates))
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert abs(peak - pct_start * steps) <= 1


# --- cyclical


def test_cyclical_triangles_run_between_the_lowest_and_the_base_rate() -> None:
    rates = table("cyclical", 1.0, steps=16, cycles=2, span=5.0, mode="triangular")
    assert rates == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 0.8, 0.6, 0.4] * 2, rel=1e-6)
    assert past_the_end("cyclical", 1.0, 16, cycles=2, span=5.0) == pytest.approx([0.2] * 4)


def test_cyclical_triangular2_halves_the_height_with_every_cycle() -> None:
    rates = table("cyclical", 1.0, steps=12, cycles=3, span=5.0, mode="triangular2")
    assert rates[2::4] == pytest.approx([1.0, 0.2 + 0.8 / 2, 0.2 + 0.8 / 4], rel=1e-6)
    assert rates[0::4] == pytest.approx([0.2] * 3, rel=1e-6)


def test_cyclical_exp_range_shrinks_the_height_to_its_final_ratio() -> None:
    rates = table("cyclical", 1.0, steps=8, cycles=2, span=5.0, mode="exp_range", final_ratio=0.0001)
    assert [rates[2], rates[6]] == pytest.approx([0.2 + 0.8 * 0.1, 0.2 + 0.8 * 0.001], rel=1e-6)


@given(cycles=st.integers(1, 40), per_cycle=st.integers(2, 20), span=st.floats(1.5, 100))
def test_cyclical_ends_every_cycle_at_a_trough(cycles: int, per_cycle: int, span: float) -> None:
    schedule = open_loop("cyclical", cycles=cycles, span=span)
    troughs = rates_of(schedule, 1.0, [n * per_cycle for n in range(cycles + 1)], steps=cycles * per_cycle)
    assert troughs == pytest.approx([1 / span] * (cycles + 1))
