"""The schedules that hold and then fall, and the free shapes."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.studies.curves import open_loop, past_the_end, rates_of, table

# --- wsd


@pytest.mark.parametrize(
    ("shape", "fall"),
    [
        ("linear", [1.0, 0.75, 0.5, 0.25]),
        ("1-sqrt", [1.0, 0.5, 1 - math.sqrt(0.5), 1 - math.sqrt(0.75)]),
        ("cosine", [1.0, (2 + math.sqrt(2)) / 4, 0.5, (2 - math.sqrt(2)) / 4]),
    ],
)
def test_wsd_holds_and_cools_down_at_the_end(shape: str, fall: list[float]) -> None:
    rates = table("wsd", 1.0, steps=16, cooldown=0.25, shape=shape)
    assert rates == pytest.approx([1.0] * 12 + fall, rel=1e-6)
    assert past_the_end("wsd", 1.0, 16, cooldown=0.25, shape=shape) == [0.0] * 4


def test_wsd_cools_down_to_its_floor() -> None:
    rates = table("wsd", 1.0, steps=4, cooldown=0.5, shape="linear", alpha=0.2)
    assert rates == pytest.approx([1.0, 1.0, 1.0, 0.6], rel=1e-6)
    assert past_the_end("wsd", 1.0, 4, alpha=0.2) == pytest.approx([0.2] * 4)


def test_wsd_that_only_cools_down_is_linear_or_cosine() -> None:
    for shape in ("linear", "cosine"):
        only = table("wsd", 0.3, 50, cooldown=1.0, shape=shape, alpha=0.01)
        assert only == pytest.approx(table(shape, 0.3, 50, alpha=0.01), rel=2e-7)


def test_wsd_at_its_defaults_holds_for_four_fifths() -> None:
    rates = table("wsd", 1.0, steps=100)
    assert rates[:81] == [1.0] * 81
    assert rates[85] == pytest.approx(0.5, rel=1e-6)  # 1 - sqrt(1/4)


# --- hold_then_decay


@pytest.mark.parametrize(
    ("shape", "halfway"), [("exponential", 0.2), ("linear", (1 + 0.04) / 2), ("cosine", (1 + 0.04) / 2)]
)
def test_hold_then_decay_holds_and_falls_to_its_floor(shape: str, halfway: float) -> None:
    parameters: dict[str, Any] = {"hold": 0.5, "shape": shape, "alpha": 0.04}
    rates = table("hold_then_decay", 1.0, steps=16, **parameters)
    assert rates[:9] == [1.0] * 9
    assert rates[9] < 1.0
    assert rates[12] == pytest.approx(halfway, rel=1e-6)
    assert past_the_end("hold_then_decay", 1.0, 16, **parameters) == pytest.approx([0.04] * 4)


def test_hold_then_decay_that_holds_nothing_is_the_plain_decay() -> None:
    for shape, end in (("exponential", "final_ratio"), ("linear", "alpha"), ("cosine", "alpha")):
        plain: dict[str, Any] = {end: 0.01}
        ours = table("hold_then_decay", 0.3, 50, hold=0.0, shape=shape, alpha=0.01)
        assert ours == pytest.approx(table(shape, 0.3, 50, **plain), rel=3e-7)


# --- rex


def test_rex_holds_longer_than_the_line_it_is_made_of() -> None:
    # (1-u)/(1/2 + (1-u)/2): at half of the training 2/3, at three quarters 2/5.
    rates = table("rex", 1.0, steps=4)
    assert [rates[0], rates[2], rates[3]] == pytest.approx([1.0, 2 / 3, 2 / 5], rel=1e-6)
    assert past_the_end("rex", 1.0, 4) == [0.0] * 4


def test_rex_falls_early_with_a_large_beta_and_is_linear_with_beta_1() -> None:
    assert table("rex", 1.0, steps=4, beta=1.0) == table("linear", 1.0, steps=4)
    assert table("rex", 1.0, steps=4, beta=4.0)[2] == pytest.approx(0.5 / (1 + 3 * 0.5), rel=1e-6)


# --- k_decay


def test_k_decay_bends_the_time_of_the_cosine() -> None:
    rates = table("k_decay", 1.0, steps=2, k=2.0)
    assert rates == pytest.approx([1.0, (1 + math.sqrt(0.5)) / 2], rel=1e-6)
    assert past_the_end("k_decay", 1.0, 2, k=2.0, alpha=0.25) == pytest.approx([0.25] * 4)


def test_k_decay_bends_the_time_of_the_polynomial() -> None:
    rates = table("k_decay", 1.0, steps=2, k=2.0, shape="polynomial", power=3.0, alpha=0.2)
    assert rates == pytest.approx([1.0, 0.2 + 0.8 * 0.75**3], rel=1e-6)


def test_k_decay_with_k_1_is_cosine_or_polynomial() -> None:
    assert table("k_decay", 0.3, 50, k=1.0) == pytest.approx(table("cosine", 0.3, 50), rel=2e-7)
    bent = table("k_decay", 0.3, 50, k=1.0, shape="polynomial", power=2.0)
    assert bent == pytest.approx(table("polynomial", 0.3, 50, power=2.0), rel=2e-7)


# --- tanh


def test_tanh_crosses_half_of_the_base_rate_where_its_bounds_balance() -> None:
    rates = table("tanh", 1.0, steps=10, lower=-7.0, upper=3.0)
    assert rates[7] == pytest.approx(0.5, rel=1e-6)
    assert rates[0] == pytest.approx(1.0, rel=1e-5)


def test_tanh_ends_above_zero() -> None:
    ends = past_the_end("tanh", 1.0, 10, lower=-7.0, upper=3.0)
    assert ends == pytest.approx([(1 - math.tanh(3)) / 2] * 4)
    assert ends[0] > 0.002


# --- spline


def test_spline_goes_through_its_points() -> None:
    # x: 0.2, 0.2 + 0.25 * 0.8 = 0.4, 0.4 + 0.5 * 0.6 = 0.7, 1; y: 1, 0.5, 0.5 * 0.2 = 0.1, 0.
    rates = table("spline", 1.0, steps=10, x0=0.2, gap_1=0.25, gap_2=0.5, y1=0.5, drop=0.2)
    assert rates[:3] == [1.0] * 3
    assert [rates[4], rates[7]] == pytest.approx([0.5, 0.1], rel=1e-6)
    assert past_the_end("spline", 1.0, 10, x0=0.2) == pytest.approx([0.0] * 4, abs=1e-15)


def test_spline_through_points_on_a_line_is_that_line() -> None:
    rates = table("spline", 1.0, steps=12, x0=0.0, gap_1=1 / 3, gap_2=0.5, y1=2 / 3, drop=0.5)
    assert rates == pytest.approx([1 - step / 12 for step in range(12)], rel=1e-6)


@given(
    x0=st.floats(0, 0.99),
    gap_1=st.floats(0.01, 0.99),
    gap_2=st.floats(0.01, 0.99),
    y1=st.floats(0, 1),
    drop=st.floats(0, 1),
)
def test_spline_never_rises(x0: float, gap_1: float, gap_2: float, y1: float, drop: float) -> None:
    schedule = open_loop("spline", x0=x0, gap_1=gap_1, gap_2=gap_2, y1=y1, drop=drop)
    rates = rates_of(schedule, 1.0, [*range(151)], steps=150)
    assert all(after <= before + 1e-12 for before, after in pairwise(rates))
