"""The range test's sums: against formulas written out here, and fastai's loops."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from studies.errors import RangeTestFailed
from studies.range_test import (
    RangeCurve,
    analyse,
    explosion,
    minimum_over_10,
    smooth,
    steepest,
    sweep_rates,
    three_fifths,
    valley,
)

RATES = sweep_rates()
STEP = (10.0 / 1e-7) ** (1 / 99)
"""From one rate of the usual sweep to the next."""


def curve(loss: Callable[[float], float], rates: Sequence[float] = tuple(RATES)) -> RangeCurve:
    """A curve without noise, whose smoothed loss is the loss; it ends where that explodes, if it does."""
    losses = [float(loss(rate)) for rate in rates]
    end = explosion(losses)
    kept: list[float | None] = [*losses[: len(losses) if end is None else end + 1]]
    return RangeCurve(rates=list(rates[: len(kept)]), losses=kept, smoothed=kept)


def straight(start: float, end: float) -> Callable[[float], float]:
    """A loss that is 2 up to one rate, falls evenly in log(rate), and is 1 from another rate on."""
    return lambda rate: 2.0 - float(np.clip(math.log(rate / start) / math.log(end / start), 0.0, 1.0))


# --- the sweep


def test_rates_rise_by_a_constant_factor_from_the_lowest_to_the_highest() -> None:
    rates = sweep_rates(batches=5, lowest=1e-4, highest=1.0)
    np.testing.assert_allclose(rates, [1e-4, 1e-3, 1e-2, 1e-1, 1.0], rtol=1e-12)
    assert (len(RATES), RATES[0], RATES[-1]) == (100, 1e-7, 10.0)
    np.testing.assert_allclose(RATES[1:] / RATES[:-1], STEP, rtol=1e-12)


@pytest.mark.parametrize(
    ("batches", "lowest", "highest"), [(1, 1e-7, 10.0), (100, 0.0, 10.0), (100, 1.0, 1.0), (100, 1.0, math.inf)]
)
def test_a_sweep_that_cannot_be_is_refused_with_its_numbers(batches: int, lowest: float, highest: float) -> None:
    with pytest.raises(ValueError, match=rf"got batches={batches}, lowest={lowest}, highest={highest}"):
        sweep_rates(batches, lowest, highest)


# --- smoothing and the stop


def test_smoothed_losses_are_means_weighted_by_powers_of_the_smoothing() -> None:
    losses = np.random.default_rng(0).uniform(1.0, 3.0, size=60)
    expected = []
    for i in range(60):
        weights = [0.98 ** (i - j) for j in range(i + 1)]
        expected.append(sum(w * loss for w, loss in zip(weights, losses, strict=False)) / sum(weights))
    np.testing.assert_allclose(np.array(smooth(losses.tolist()), dtype=np.float64), expected, rtol=1e-12)


def test_nothing_is_smoothed_from_a_missing_loss_on() -> None:
    assert smooth([2.0, None, 2.0]) == [2.0, None, None]


def test_the_loss_has_exploded_where_it_is_first_above_four_times_its_best() -> None:
    assert explosion([2.0] * 30 + [1.0, 3.99, 4.0, 4.01, 9.0]) == 33
    assert explosion([2.0] * 30 + [1.0, 3.99, 4.0]) is None
    assert explosion([2.0] * 30 + [1.0, None]) == 31


def test_the_first_batches_are_not_compared() -> None:
    assert explosion([0.1] * 5 + [2.0] * 40) is None


def test_a_negative_loss_may_rise_by_three_times_its_size() -> None:
    assert explosion([0.0] * 30 + [-1.0, 1.99]) is None
    assert explosion([0.0] * 30 + [-1.0, 2.01]) == 31


def test_a_curve_ends_with_the_batch_whose_smoothed_loss_explodes() -> None:
    losses = [1.0] * 40 + [1000.0] * 10
    made = RangeCurve.of(RATES.tolist(), losses)
    # (1 - 0.98^40) / (1 - 0.98^41) of the mean is 1, and the rest, 0.035, is 1000: above 4 at once.
    assert len(made.rates) == len(made.losses) == len(made.smoothed) == 41
    assert made.rates == RATES[:41].tolist()
    assert made.losses == losses[:41]
    assert made.smoothed[-1] == pytest.approx(1.0 + 999.0 * 0.02 / (1 - 0.98**41))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_the_curve(bad: float) -> None:
    made = RangeCurve.of(RATES.tolist(), [1.0, 1.0, bad, 1.0])
    assert made.losses == [1.0, 1.0, None]
    assert made.smoothed == [1.0, 1.0, None]
    assert RangeCurve.model_validate_json(made.model_dump_json()) == made


@pytest.mark.parametrize(
    ("rates", "losses", "smoothed", "message"),
    [
        ([0.1, 0.2], [1.0], [1.0, 1.0], r"as many entries, but got \[2, 1, 2\]"),
        ([0.2, 0.1], [1.0, 1.0], [1.0, 1.0], "above 0 and rise"),
        ([0.0, 0.1], [1.0, 1.0], [1.0, 1.0], "above 0 and rise"),
        ([0.1, 0.2], [None, 1.0], [1.0, 1.0], "only the last entry"),
        ([0.1, 0.2], [1.0, None], [1.0, 1.0], "or neither"),
        ([], [], [], "at least 1 item"),
    ],
)
def test_a_curve_that_is_none_is_refused(
    rates: list[float], losses: list[float | None], smoothed: list[float | None], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        RangeCurve(rates=rates, losses=losses, smoothed=smoothed)


# --- the suggestions


def fastai_valley(losses: Sequence[float]) -> int:
    """fastai's `valley`, loop for loop: the index of the suggestion."""
    lengths = [1] * len(losses)
    start = end = 0
    for i in range(1, len(losses)):
        for j in range(i):
            if losses[i] < losses[j] and lengths[i] < lengths[j] + 1:
                lengths[i] = lengths[j] + 1
            if lengths[end] < lengths[i]:
                end = i
                start = end - lengths[end]
    section = (end - start) / 3
    return start + int(section) + int(section / 2)


def test_the_valley_is_that_of_fastai() -> None:
    random = np.random.default_rng(0)
    for size in (3, 4, 10, 30, 85):
        for _ in range(20):
            losses = np.round(np.cumsum(random.normal(size=size)), 1).astype(np.float64)
            if size > 4:
                losses -= np.linspace(0, 5, size)
            suggested = valley(RATES[:size], losses)
            if suggested is None:
                assert np.all(np.diff(losses) >= 0)
            else:
                assert suggested == RATES[max(fastai_valley(losses.tolist()), 0)]


def test_the_steepest_point_of_a_sigmoid_is_its_middle() -> None:
    losses = np.array([1.0 / (1.0 + (rate / 0.02) ** 2) for rate in RATES])
    suggested = steepest(RATES, losses)
    assert suggested is not None
    assert 0.02 / STEP <= suggested <= 0.02 * STEP


def test_a_tenth_of_the_rate_with_the_lowest_loss() -> None:
    losses = np.array([math.log(rate / 0.3) ** 2 for rate in RATES])
    suggested = minimum_over_10(RATES, losses)
    assert suggested is not None
    assert 0.03 / STEP <= suggested <= 0.03 * STEP


def test_three_fifths_of_an_even_fall_are_three_fifths_of_the_way_in_the_logarithm() -> None:
    losses = np.array([straight(1e-4, 1e-1)(rate) for rate in RATES])
    suggested = three_fifths(RATES, losses)
    exact = 10 ** (-4 + 0.6 * 3)
    assert exact <= suggested <= exact * STEP


def test_suggestions_have_nothing_to_say_of_a_loss_that_only_rises_or_of_no_loss() -> None:
    rising = np.linspace(1.0, 2.0, 10)
    assert valley(RATES[:10], rising) is None
    assert steepest(RATES[:10], rising) is None
    for suggest in (valley, steepest, minimum_over_10):
        assert suggest(RATES[:0], np.zeros(0)) is None


# --- the range


def test_the_range_is_from_a_tenth_of_the_suggestion_to_three_times_it() -> None:
    test = analyse(curve(straight(1e-4, 1e-1)))
    exact = 10 ** (-4 + 0.6 * 3)
    assert exact <= test.suggestion <= exact * STEP
    assert test.low == pytest.approx(test.suggestion / 10, rel=1e-12)
    assert test.high == pytest.approx(test.suggestion * 3, rel=1e-12)
    assert test.diverged_at is None


def test_the_range_ends_below_the_rate_at_which_the_loss_explodes() -> None:
    fall = straight(1e-4, 1e-1)
    test = analyse(curve(lambda rate: fall(rate) if rate < 0.03 else 50.0))
    exploded = next(rate for rate in RATES if rate >= 0.03)
    # Down to the last rate before 0.03 the loss falls by 0.82 of the whole, and by 0.6 of that up to 10^-2.52.
    assert test.diverged_at == exploded
    assert test.suggestion * 3 < exploded, "not to be cut yet"
    near = analyse(curve(lambda rate: 2.0 if rate < 0.01 else 1.0 if rate < 0.02 else 50.0))
    assert near.suggestion >= 0.01
    assert near.diverged_at is not None
    assert near.high == pytest.approx(near.diverged_at / STEP)
    assert near.low == pytest.approx(near.suggestion / 10)
    assert "cut before the loss explodes" in near.rule


def test_all_suggestions_are_told_and_the_rule_has_the_numbers() -> None:
    test = analyse(curve(lambda rate: straight(1e-4, 1e-1)(rate) if rate < 5.0 else 50.0))
    assert list(test.suggestions) == ["three_fifths", "valley", "steepest", "minimum_over_10"]
    assert test.suggestions["three_fifths"] == test.suggestion
    assert None not in test.suggestions.values()
    numbers = [float(found) for found in re.findall(r"\d+\.?\d*(?:e-\d+)?", test.rule)]
    for told in (2.0, 1.0, test.diverged_at, test.suggestion, test.low, test.high):
        assert any(number == pytest.approx(told, rel=0.005) for number in numbers), (told, test.rule)


def test_the_suggestions_of_fastai_leave_out_ten_batches_at_the_beginning_and_five_at_the_end() -> None:
    def loss(rate: float) -> float:
        cliff = 0.5 if rate > RATES[4] else 0.0
        return straight(1e-4, 1e-1)(rate) - cliff - (0.5 if rate > RATES[96] else 0.0)

    test = analyse(curve(loss))
    assert test.suggestions["minimum_over_10"] is not None
    assert test.suggestions["minimum_over_10"] <= RATES[94] / 10
    assert test.suggestions["steepest"] is not None
    assert 1e-4 / STEP <= test.suggestions["steepest"] <= 1e-1


# --- curves that say nothing


NOISY = [1.0 + 0.1 * math.sin(1e4 * math.log(rate)) - 0.001 * math.log(rate / 1e-7) for rate in RATES]


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (curve(lambda rate: 2.0), "the loss does not fall.* from 2 to 2 at the lowest"),
        (curve(lambda rate: 2.0 + rate), "the loss does not fall"),
        (RangeCurve.of(RATES.tolist(), NOISY), "by less than its noise"),
        (RangeCurve.of(RATES.tolist(), [0.1] * 100), "the loss does not fall.* from 0.1 to 0.1 at"),
        (curve(lambda rate: 2.0 if rate < 1e-3 else 2.0 - 2.4e-7), "the loss does not fall"),
        (RangeCurve(rates=[1e-7], losses=[None], smoothed=[None]), "explodes after 0 batches, at a rate of 1e-07"),
        (curve(lambda rate: 2.0, RATES[:21].tolist()), "the curve ends after 21 batches"),
    ],
    ids=["flat", "rising", "noise", "flat and smoothed", "rounded by float32", "not finite at once", "short"],
)
def test_a_curve_that_says_nothing_says_why(said: RangeCurve, why: str) -> None:
    with pytest.raises(RangeTestFailed, match=why):
        analyse(said)


def test_noise_alone_is_hardly_ever_taken_for_a_fall() -> None:
    random = np.random.default_rng(0)
    fooled = 0
    for _ in range(300):
        try:
            analyse(RangeCurve.of(RATES.tolist(), random.normal(2.0, 0.5, size=100).tolist()))
            fooled += 1
        except RangeTestFailed:
            pass
    assert fooled <= 15


@settings(max_examples=50)
@given(st.lists(st.floats(1e-3, 1e3), min_size=30, max_size=100))
def test_a_range_holds_its_suggestion_and_lies_below_the_explosion(losses: list[float]) -> None:
    made = RangeCurve.of(RATES.tolist(), losses)
    try:
        test = analyse(made)
    except RangeTestFailed:
        return
    assert made.rates[0] / 10 < test.low < test.suggestion <= test.high
    assert test.suggestion in made.rates
    assert test.diverged_at is None or test.high < test.diverged_at
