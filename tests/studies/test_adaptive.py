"""adaptive_validation and greedy, on traces made by hand and against models of their rules written another way."""

from __future__ import annotations

import itertools
import math
import random
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from studies.schedules import ClosedLoop, RateState, make
from studies.schedules.adaptive import AdaptiveState, GreedyState

NAN, INF = math.nan, math.inf


def float32(number: float) -> float:
    return float(np.float32(number))


def states(name: str, values: Sequence[float], base: float = 1.0, **parameters: Any) -> list[Any]:
    """The state before the first epoch, and after an epoch with each of the values."""
    schedule = make(name, **parameters)
    assert isinstance(schedule, ClosedLoop)
    found = [schedule.start(base)]
    for value in values:
        found.append(schedule.advance(found[-1], {schedule.monitor: value, "other": 0.0}))
    return found


def rates(name: str, values: Sequence[float], base: float = 1.0, **parameters: Any) -> list[float]:
    """The rate of each epoch, and of the one that would follow the last."""
    return [state.rate for state in states(name, values, base, **parameters)]


def scripted(rng: random.Random) -> list[float]:
    """A metric that moves on a grid of sixty-fourths, so that ties are common and sums are exact; some NaN."""
    level, values = rng.randint(0, 128), []
    for _ in range(rng.randint(1, 60)):
        level += rng.choice([-5, -3, -1, 0, 0, 1, 3])
        values.append(NAN if rng.random() < 0.04 else level / 64)
    return values


# --- adaptive_validation: by hand


def test_adaptive_validation_holds_the_rate_while_validation_improves() -> None:
    losses = [1.0 - 0.01 * epoch for epoch in range(50)]
    assert rates("adaptive_validation", losses, patience=1) == [1.0] * 51


def test_adaptive_validation_cuts_by_the_factor_then_its_square_then_its_cube() -> None:
    # With patience 2: the first epoch of the decline is spared, then n = 1, 2, 3.
    losses = [1.0, 1.1, 1.1, 1.1, 1.1]
    expected = [1.0, 1.0, 1.0, 0.5, 0.125, 0.015625]
    assert rates("adaptive_validation", losses, factor=0.5, patience=2, min_ratio=0.001) == expected


def test_adaptive_validation_begins_with_the_factor_again_after_an_improvement() -> None:
    #          best  n=1  n=2  better: held  n=1
    losses = [1.0, 1.0, 1.0, 0.5, 0.5]
    expected = [1.0, 1.0, 0.5, 0.125, 0.125, 0.0625]
    assert rates("adaptive_validation", losses, factor=0.5, patience=1, min_ratio=0.001) == expected


def test_adaptive_validation_takes_a_gain_of_just_min_delta_for_none() -> None:
    gains: dict[str, Any] = {"factor": 0.5, "patience": 1, "min_delta": 0.25, "min_ratio": 0.001}
    assert rates("adaptive_validation", [1.0, 0.75], **gains)[-1] == 0.5
    assert rates("adaptive_validation", [1.0, 0.7], **gains)[-1] == 1.0
    # 0.35 is better than 0.4 by 0.05 but for rounding; compared in float32, as elsewhere, that is no gain.
    assert rates("adaptive_validation", [0.4, 0.35], **{**gains, "min_delta": 0.05})[-1] == 0.5


def test_adaptive_validation_stops_after_the_second_convergence() -> None:
    #         best  .5    floor  converges at the floor: a second descent from factor * eta0
    losses = [1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0]
    #                              best again, floor, converges again
    found = states("adaptive_validation", losses, factor=0.5, patience=1, min_ratio=0.25)
    assert [state.rate for state in found] == [1.0, 1.0, 0.5, 0.25, 0.5, 0.5, 0.25, 0.25]
    assert [state.stopped for state in found] == [False] * 7 + [True]
    assert [state.convergences for state in found] == [0, 0, 0, 0, 1, 1, 1, 2]


def test_adaptive_validation_waits_for_patience_epochs_at_the_floor_before_it_calls_that_converged() -> None:
    losses = [1.0] * 7
    #  best, 1, 2: lands on the floor, 1, 2: converged, best of the second descent, 1
    expected = [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.5]
    found = states("adaptive_validation", losses, factor=0.5, patience=2, min_ratio=0.5)
    assert [state.rate for state in found] == expected
    assert [state.convergences for state in found] == [0, 0, 0, 0, 0, 1, 1, 1]
    # An improvement at the floor is held there, and the waiting begins anew.
    kept = states("adaptive_validation", [1.0, 1.0, 1.0, 1.0, 0.9, 0.9], factor=0.5, patience=2, min_ratio=0.5)
    assert [state.convergences for state in kept] == [0] * 7
    assert kept[-1].rate == 0.5


def test_adaptive_validation_measures_the_second_descent_against_itself() -> None:
    # 0.1 is never reached again, but from 0.9 on the second descent improves: its rate is held, and it goes on.
    losses = [0.1, 1.0, 1.0, 0.9, 0.8, 0.7, 0.6]
    found = states("adaptive_validation", losses, factor=0.5, patience=1, min_ratio=0.5)
    assert [state.rate for state in found] == [1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]
    assert found[-1] == AdaptiveState(base_rate=1.0, rate=0.5, best=0.6, wait=0, convergences=1)


@pytest.mark.parametrize("base", [1.0, 0.1, 0.3, 0.007])
def test_adaptive_validation_lands_on_its_floor_whatever_the_rounding(base: float) -> None:
    # base / 10, then base / 10 * 0.1^2, which is the floor but for rounding, and an epoch later it has converged.
    found = states("adaptive_validation", [1.0] * 4, base=base, factor=0.1, patience=1, min_ratio=0.001)
    expected = [base, base, base / 10, base / 1000, base / 10]
    assert [state.rate for state in found] == pytest.approx(expected, rel=1e-6)
    assert found[3].rate == float32(0.001 * base)
    assert [state.convergences for state in found] == [0, 0, 0, 0, 1]


def test_adaptive_validation_begins_the_second_descent_no_lower_than_the_floor() -> None:
    found = states("adaptive_validation", [1.0] * 5, factor=0.1, patience=1, min_ratio=0.5)
    assert [state.rate for state in found] == [1.0, 1.0, 0.5, 0.5, 0.5, 0.5]
    assert [state.convergences for state in found] == [0, 0, 0, 1, 1, 2]


def test_adaptive_validation_without_room_below_the_base_rate_only_stops() -> None:
    found = states("adaptive_validation", [1.0] * 6, patience=2, min_ratio=1.0)
    assert {state.rate for state in found} == {1.0}
    assert [state.stopped for state in found] == [False] * 6 + [True]


def test_adaptive_validation_that_has_stopped_stays_so() -> None:
    found = states("adaptive_validation", [1.0] * 8 + [0.1], factor=0.5, patience=1, min_ratio=0.5)
    first = next(index for index, state in enumerate(found) if state.stopped)
    assert first < len(found) - 2
    assert found[first:] == [found[first]] * (len(found) - first)


def test_adaptive_validation_takes_a_nan_for_an_epoch_without_improvement_even_at_first() -> None:
    cuts: dict[str, Any] = {"factor": 0.5, "patience": 2, "min_ratio": 0.001}
    assert rates("adaptive_validation", [NAN, NAN, NAN], **cuts) == [1.0, 1.0, 0.5, 0.125]
    assert rates("adaptive_validation", [NAN, 1.0, NAN, 0.9, NAN, NAN], **cuts) == [1.0] * 6 + [0.5]


def test_adaptive_validation_wants_a_larger_accuracy() -> None:
    accuracy = [0.5, 0.6, 0.7, 0.6, 0.8]
    cuts: dict[str, Any] = {"monitor": "val_accuracy", "factor": 0.5, "patience": 1, "min_delta": 0.0}
    expected = [1.0] * 4 + [0.5] * 2
    assert rates("adaptive_validation", accuracy, **cuts) == expected
    assert rates("adaptive_validation", accuracy, mode="max", **cuts) == expected
    assert rates("adaptive_validation", accuracy, mode="min", **cuts) != expected


# --- greedy: by hand


def test_greedy_divides_by_the_factor_when_better_and_multiplies_by_it_when_worse() -> None:
    losses = [1.0, 0.9, 0.8, 0.85, 0.9]
    assert rates("greedy", losses, factor=0.5) == [1.0, 1.0, 2.0, 4.0, 2.0, 1.0]


def test_greedy_compares_with_the_epoch_before_and_not_with_the_best() -> None:
    assert rates("greedy", [0.1, 1.0, 0.9, 0.8], factor=0.5) == [1.0, 1.0, 0.5, 1.0, 2.0]


def test_greedy_takes_an_equal_value_for_worse() -> None:
    assert rates("greedy", [0.5, 0.5, 0.5], factor=0.5) == [1.0, 1.0, 0.5, 0.25]


def test_greedy_stays_between_its_bounds() -> None:
    down = rates("greedy", [1.0] * 5, base=0.1, factor=0.5, min_ratio=0.3)
    assert down == [float32(rate) for rate in (0.1, 0.1, 0.05, 0.03, 0.03, 0.03)]
    up = rates("greedy", [1.0, 0.9, 0.8, 0.7, 0.6], base=0.1, factor=0.5, max_ratio=3.0)
    assert up == [float32(rate) for rate in (0.1, 0.1, 0.2, 0.3, 0.3, 0.3)]


def test_greedy_comes_back_from_a_bound_at_once() -> None:
    assert rates("greedy", [1.0, 0.9, 0.8, 0.9], factor=0.5, max_ratio=1.0) == [1.0, 1.0, 1.0, 1.0, 0.5]


def test_greedy_changes_the_rate_at_every_patience_th_epoch_in_a_row() -> None:
    #          -    better better: change, better, worse: the row is broken, worse: change, worse, worse: change
    losses = [1.0, 0.9, 0.8, 0.7, 0.8, 0.9, 1.0, 1.1]
    expected = [1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 1.0, 1.0, 0.5]
    assert rates("greedy", losses, factor=0.5, patience=2) == expected


def test_greedy_averages_the_last_values() -> None:
    # Means of up to two: 1, 0.75, 0.75 (no better), 0.625; the values themselves go down, up and down again.
    losses = [1.0, 0.5, 1.0, 0.25]
    assert rates("greedy", losses, factor=0.5, smoothing=2) == [1.0, 1.0, 2.0, 1.0, 2.0]
    assert rates("greedy", losses, factor=0.5) == [1.0, 1.0, 2.0, 1.0, 2.0]
    # A single bad epoch within a fall does not turn the mean of three.
    falling = [4.0, 3.0, 2.0, 2.5, 1.0]
    assert rates("greedy", falling, factor=0.5, smoothing=3) == [1.0, 1.0, 2.0, 4.0, 8.0, 10.0]
    assert rates("greedy", falling, factor=0.5) == [1.0, 1.0, 2.0, 4.0, 2.0, 4.0]


def test_greedy_sees_no_gain_in_the_rounding_of_a_mean() -> None:
    assert sum([0.1] * 3) / 3 > 0.1  # in float64
    found = rates("greedy", [0.1] * 6, factor=0.5, smoothing=3, mode="max")
    assert found == [1.0, 1.0, 0.5, 0.25, 0.125, 0.0625, 0.03125]


def test_greedy_takes_a_nan_for_worse_and_leaves_it_out_of_the_mean() -> None:
    assert rates("greedy", [NAN, NAN], factor=0.5) == [1.0, 0.5, 0.25]
    # The first number has nothing to be compared with; 0.9 is compared with 1.0, past the NaN.
    assert rates("greedy", [NAN, 1.0, NAN, 0.9], factor=0.5) == [1.0, 0.5, 0.5, 0.25, 0.5]
    assert rates("greedy", [1.0, INF, 0.9], factor=0.5) == [1.0, 1.0, 0.5, 1.0]
    assert rates("greedy", [1.0, NAN, 0.5], factor=0.5, smoothing=2) == [1.0, 1.0, 0.5, 1.0]


def test_greedy_wants_a_larger_accuracy() -> None:
    accuracy = [0.5, 0.6, 0.5]
    assert rates("greedy", accuracy, monitor="val_accuracy", factor=0.5) == [1.0, 1.0, 2.0, 1.0]
    assert rates("greedy", accuracy, monitor="val_accuracy", mode="min", factor=0.5) == [1.0, 1.0, 0.5, 1.0]


# --- both


@pytest.mark.parametrize("name", ["adaptive_validation", "greedy"])
def test_the_metrics_there_are_are_named_if_its_own_is_missing(name: str) -> None:
    schedule = make(name, monitor="val_accuracy")
    assert isinstance(schedule, ClosedLoop)
    with pytest.raises(KeyError, match=r"watches 'val_accuracy'.*it reports: loss, val_loss"):
        schedule.advance(schedule.start(0.1), {"val_loss": 1.0, "loss": 2.0})


@pytest.mark.parametrize(
    ("name", "kept", "stops"),
    [
        ("reduce_on_plateau", False, False),
        ("plateau_with_revert", True, False),
        ("adaptive_validation", True, True),
        ("greedy", False, False),
    ],
)
def test_which_schedules_keep_the_best_weights_and_which_may_end_a_training(name: str, kept: bool, stops: bool) -> None:
    schedule = make(name)
    assert isinstance(schedule, ClosedLoop)
    assert (schedule.keeps_best_weights, schedule.stops_early) == (kept, stops)


@pytest.mark.parametrize(
    ("name", "parameter", "value"),
    [
        ("adaptive_validation", "factor", 0.0),
        ("adaptive_validation", "factor", 1.0),
        ("adaptive_validation", "patience", 0),
        ("adaptive_validation", "min_delta", -1e-9),
        ("adaptive_validation", "min_ratio", 0.0),
        ("adaptive_validation", "min_ratio", 1.01),
        ("adaptive_validation", "mode", "larger"),
        ("greedy", "factor", 0.0),
        ("greedy", "factor", 1.0),
        ("greedy", "patience", 0),
        ("greedy", "smoothing", 0),
        ("greedy", "min_ratio", 0.0),
        ("greedy", "min_ratio", 1.01),
        ("greedy", "max_ratio", 0.99),
        ("greedy", "max_ratio", INF),
    ],
)
def test_a_parameter_out_of_its_bounds_is_refused(name: str, parameter: str, value: object) -> None:
    with pytest.raises(ValidationError, match=parameter):
        make(name, **{parameter: value})


@pytest.mark.parametrize(
    ("name", "state", "parameters"),
    [
        ("adaptive_validation", AdaptiveState, {"factor": 0.4, "patience": 2, "min_ratio": 0.05}),
        ("greedy", GreedyState, {"factor": 0.7, "patience": 2, "smoothing": 3}),
    ],
)
def test_a_state_goes_on_from_a_checkpoint_as_if_never_interrupted(
    name: str, state: type[RateState], parameters: dict[str, Any]
) -> None:
    rng = random.Random(7)
    values = [rng.choice([rng.random(), NAN, INF, -INF]) for _ in range(60)]
    schedule = make(name, **parameters)
    assert isinstance(schedule, ClosedLoop)
    reached = schedule.start(0.3)
    for value, expected in zip(values, states(name, values, 0.3, **parameters)[1:], strict=True):
        saved = reached.model_dump_json()
        assert NAN not in reached.model_dump().values()
        reached = schedule.advance(state.model_validate_json(saved), {"val_loss": value})
        assert reached == expected


# --- the rules written another way


def fruitless(values: Sequence[float], p: dict[str, Any]) -> int:
    """How many epochs there are at the end of `values` since the last improvement."""
    best, last = None, -1
    sign = 1 if p["mode"] == "max" else -1
    for epoch, value in enumerate(values):
        if value == value and (best is None or float32(sign * value - p["min_delta"]) > float32(sign * best)):
            best, last = value, epoch
    return len(values) - 1 - last


def adaptive_model(values: Sequence[float], base: float, p: dict[str, Any]) -> tuple[list[float], int | None]:
    """The rates, and the epoch that ends the training: worked out anew from all values of the descent each time."""
    floor = p["min_ratio"] * base

    def above_floor(rate: float) -> tuple[float, bool]:
        below = rate < floor or math.isclose(rate, floor, rel_tol=1e-6)
        return float32(floor if below else rate), below

    starts = [p["factor"] * base]
    rate, low = above_floor(base)
    found, began, landed = [rate], 0, -1 if low else None
    for epoch in range(len(values)):
        since = fruitless(values[began : epoch + 1], p)
        if landed is not None and min(since, epoch - landed) >= p["patience"]:
            if not starts:
                return [*found, rate], epoch
            rate, low = above_floor(starts.pop())
            began, landed = epoch + 1, epoch if low else None
        elif landed is None and since >= p["patience"]:
            rate, low = above_floor(rate * p["factor"] ** (since - p["patience"] + 1))
            landed = epoch if low else None
        found.append(rate)
    return found, None


def test_adaptive_validation_equals_a_model_of_its_rule_on_200_random_sequences() -> None:
    rng, stopped, cuts = random.Random(30), 0, 0
    for _ in range(200):
        values, base = scripted(rng), 10 ** rng.uniform(-3, 0)
        parameters = {
            "mode": rng.choice(["min", "max"]),
            "factor": rng.choice([0.1, 0.5, rng.uniform(0.05, 0.95)]),
            "patience": rng.randint(1, 5),
            "min_delta": rng.choice([0.0, 1 / 64, 3 / 64, rng.uniform(0, 0.2)]),
            "min_ratio": rng.choice([1e-4, 0.01, 0.1, 1.0, rng.uniform(0.01, 0.9)]),
        }
        found = states("adaptive_validation", values, base, **parameters)
        expected, last = adaptive_model(values, base, parameters)
        ends = [epoch for epoch, state in enumerate(found[1:]) if state.stopped]
        assert [state.rate for state in found][: len(expected)] == expected, (values, base, parameters)
        assert (ends[0] if ends else None) == last, (values, base, parameters)
        stopped += last is not None
        cuts += len(set(expected)) - 1
    assert stopped > 40
    assert cuts > 300


def greedy_model(values: Sequence[float], base: float, p: dict[str, Any]) -> list[float]:
    """The rates: every epoch becomes a letter, and a pattern finds the rows of letters that change the rate."""
    letters, numbers, means = "", list[float](), list[float]()
    for value in values:
        if not math.isfinite(value):
            letters += "w"
            continue
        numbers.append(value)
        means.append(float(np.mean(numbers[-p["smoothing"] :])))
        ahead = len(means) > 1 and (means[-1] > means[-2] if p["mode"] == "max" else means[-1] < means[-2])
        letters += "." if len(means) == 1 else "b" if ahead else "w"
    row = p["patience"]
    change = {match.end() - 1: match[0][0] for match in re.finditer(f"b{{{row}}}|w{{{row}}}", letters)}
    found = [float32(base)]
    for epoch in range(len(values)):
        power = {"b": -1, "w": 1}.get(change.get(epoch, ""), 0)
        rate = found[-1] / p["factor"] if power < 0 else found[-1] * p["factor"]
        clipped = np.clip(rate, p["min_ratio"] * base, p["max_ratio"] * base)
        found.append(float32(clipped) if power else found[-1])
    return found


def test_greedy_equals_a_model_of_its_rule_on_200_random_sequences() -> None:
    rng, raised, lowered = random.Random(31), 0, 0
    for _ in range(200):
        values, base = scripted(rng), 10 ** rng.uniform(-3, 0)
        parameters = {
            "mode": rng.choice(["min", "max"]),
            "factor": rng.choice([0.5, 0.95, rng.uniform(0.05, 0.99)]),
            "patience": rng.randint(1, 4),
            "smoothing": rng.choice([1, 2, 4, 8]),
            "min_ratio": rng.choice([0.001, 0.01, 0.5, 1.0]),
            "max_ratio": rng.choice([1.0, 1.5, 10.0, 100.0]),
        }
        found = rates("greedy", values, base, **parameters)
        assert found == greedy_model(values, base, parameters), (values, base, parameters)
        raised += sum(after > before for before, after in itertools.pairwise(found))
        lowered += sum(after < before for before, after in itertools.pairwise(found))
    assert raised > 300
    assert lowered > 300


# --- what always holds

VALUES = st.lists(
    st.one_of(st.floats(allow_nan=True, allow_infinity=True), st.sampled_from([0.1, 0.2, 0.3])), max_size=40
)
BASES = st.floats(1e-6, 10.0)
BELOW_1 = st.floats(0.01, 0.99)
SHARES = st.floats(1e-6, 1.0)
MODES = st.sampled_from(["min", "max"])
ROUNDING = 1e-6


@given(
    VALUES,
    BASES,
    st.fixed_dictionaries(
        {
            "factor": BELOW_1,
            "patience": st.integers(1, 4),
            "min_delta": st.floats(0, 1),
            "min_ratio": SHARES,
            "mode": MODES,
        }
    ),
)
def test_adaptive_validation_stays_within_its_bounds_and_falls_but_for_one_second_descent(
    values: list[float], base: float, parameters: dict[str, Any]
) -> None:
    found = states("adaptive_validation", values, base, **parameters)
    floor = parameters["min_ratio"] * base
    assert found[0].rate == float32(base)
    for before, after, value in zip(found, found[1:], values, strict=False):
        assert floor * (1 - ROUNDING) <= after.rate <= float32(base)
        begins_again = after.convergences == 1 > before.convergences
        assert begins_again or after.rate <= before.rate
        if math.isnan(value):
            assert after.best == (None if begins_again else before.best)
    assert found[-1].stopped == (found[-1].convergences == 2)


@given(
    VALUES,
    BASES,
    st.fixed_dictionaries(
        {
            "factor": BELOW_1,
            "patience": st.integers(1, 4),
            "smoothing": st.integers(1, 5),
            "min_ratio": SHARES,
            "max_ratio": st.floats(1.0, 100.0),
            "mode": MODES,
        }
    ),
)
def test_greedy_stays_within_its_bounds_and_never_rises_on_a_nan(
    values: list[float], base: float, parameters: dict[str, Any]
) -> None:
    found = states("greedy", values, base, **parameters)
    low, high = parameters["min_ratio"] * base, parameters["max_ratio"] * base
    assert found[0].rate == float32(base)
    for before, after, value in zip(found, found[1:], values, strict=False):
        assert low * (1 - ROUNDING) <= after.rate <= high * (1 + ROUNDING)
        assert math.isfinite(value) or after.rate <= before.rate
        assert len(after.recent) <= parameters["smoothing"]
        assert all(map(math.isfinite, after.recent))
