"""The closed-loop schedules, on traces worked out by hand and against a model of the rule written another way.

That reduce_on_plateau does what Keras' own callback does is in test_plateau_parity.py.
"""

from __future__ import annotations

import math
import random
import struct
from collections.abc import Sequence
from typing import Any

import pytest

from studies.schedules import ClosedLoop, make
from studies.schedules.plateau import PlateauState, PlateauWithRevert, ReduceOnPlateau, direction

NAN = math.nan


def float32(number: float) -> float:
    """The nearest number that an optimizer's float32 variable can hold."""
    try:
        return float(struct.unpack("f", struct.pack("f", number))[0])
    except OverflowError:
        return math.copysign(math.inf, number)


def closed_loop(name: str, **parameters: Any) -> ReduceOnPlateau:
    schedule = make(name, **parameters)
    assert isinstance(schedule, ReduceOnPlateau)
    return schedule


def states(schedule: ReduceOnPlateau, values: Sequence[float], base: float = 1.0) -> list[PlateauState]:
    """The state before the first epoch, and after an epoch with each of the values."""
    found = [schedule.start(base)]
    for value in values:
        found.append(schedule.advance(found[-1], {schedule.monitor: value, "other": 0.0}))
    return found


def rates(name: str, values: Sequence[float], base: float = 1.0, **parameters: Any) -> list[float]:
    """The rate of each epoch, and of the one that would follow the last."""
    return [state.rate for state in states(closed_loop(name, **parameters), values, base)]


# --- reduce_on_plateau


def test_reduce_on_plateau_reduces_after_patience_epochs_without_improvement() -> None:
    #                  better  better  1     2    3: reduce  1    2    3: reduce
    losses = [1.0, 0.9, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8]
    assert rates("reduce_on_plateau", losses, factor=0.5, patience=3) == [1.0] * 6 + [0.5] * 3 + [0.25]


def test_reduce_on_plateau_keeps_the_rate_while_the_metric_improves() -> None:
    losses = [1.0 - 0.01 * epoch for epoch in range(50)]
    assert rates("reduce_on_plateau", losses, factor=0.5, patience=1) == [1.0] * 51


def test_reduce_on_plateau_counts_anew_after_every_improvement() -> None:
    losses = [1.0, 1.0, 0.9, 0.9, 0.8, 0.8, 0.7, 0.7]
    assert rates("reduce_on_plateau", losses, factor=0.5, patience=2) == [1.0] * 9


@pytest.mark.parametrize("patience", [1, 2, 5])
def test_reduce_on_plateau_on_a_flat_metric_reduces_every_patience_epochs(patience: int) -> None:
    expected = [0.5 ** (max(epoch - 1, 0) // patience) for epoch in range(12)]
    assert rates("reduce_on_plateau", [1.0] * 11, factor=0.5, patience=patience) == expected


def test_reduce_on_plateau_takes_the_threshold_as_absolute_and_strict() -> None:
    # 0.75 is better than 1 by exactly min_delta, which is not enough; 0.5 is better by more.
    assert rates("reduce_on_plateau", [1.0, 0.75], factor=0.5, patience=1, min_delta=0.25)[-1] == 0.5
    assert rates("reduce_on_plateau", [1.0, 0.5], factor=0.5, patience=1, min_delta=0.25)[-1] == 1.0
    assert rates("reduce_on_plateau", [100.0, 99.5], factor=0.5, patience=1, min_delta=0.25)[-1] == 1.0


def test_reduce_on_plateau_compares_in_float32_so_that_a_gain_of_just_min_delta_is_none() -> None:
    assert 0.35 + 0.05 < 0.4  # in float64 only
    assert 0.4 - 0.05 > 0.35
    down = rates("reduce_on_plateau", [0.4, 0.35], factor=0.5, patience=1, min_delta=0.05, mode="min")
    up = rates("reduce_on_plateau", [0.35, 0.4], factor=0.5, patience=1, min_delta=0.05, mode="max")
    assert (down[-1], up[-1]) == (0.5, 0.5)


def test_reduce_on_plateau_does_not_move_the_best_on_a_gain_within_min_delta() -> None:
    # Each step is small, but 0.6 is better than the first value by more than min_delta.
    losses = [1.0, 0.9, 0.8, 0.7, 0.6]
    assert rates("reduce_on_plateau", losses, factor=0.5, patience=4, min_delta=0.35) == [1.0] * 6


def test_reduce_on_plateau_cooldown_of_n_spares_n_minus_1_epochs_as_in_keras() -> None:
    #  best, reduce, then with patience 1 a reduction in every epoch that counts
    flat = [1.0] * 9
    every = [1.0, 1.0, 0.5, 0.25, 0.125, 0.0625]
    assert rates("reduce_on_plateau", flat[:5], factor=0.5, patience=1, cooldown=0) == every
    assert rates("reduce_on_plateau", flat[:5], factor=0.5, patience=1, cooldown=1) == every
    expected = [1.0, 1.0, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125, 0.0625, 0.0625]
    assert rates("reduce_on_plateau", flat, factor=0.5, patience=1, cooldown=2) == expected
    expected = [1.0, 1.0, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125, 0.125]
    assert rates("reduce_on_plateau", flat, factor=0.5, patience=1, cooldown=3) == expected


def test_reduce_on_plateau_sees_an_improvement_within_the_cooldown() -> None:
    losses = [1.0, 1.0, 0.5, 0.6, 0.6, 0.6]
    #                  reduce  best   cooling  1: reduce
    assert rates("reduce_on_plateau", losses, factor=0.5, patience=1, cooldown=3)[:6] == [1.0, 1.0, 0.5, 0.5, 0.5, 0.25]


def test_reduce_on_plateau_stops_at_the_floor() -> None:
    assert rates("reduce_on_plateau", [1.0] * 6, factor=0.5, patience=1, min_lr=0.375) == [1.0, 1.0, 0.5] + [0.375] * 4


def test_reduce_on_plateau_lands_exactly_on_the_floor_and_stays() -> None:
    found = states(closed_loop("reduce_on_plateau", factor=0.1, patience=1, min_lr=0.001), [1.0] * 8)
    assert [state.rate for state in found[-5:]] == [float32(0.001)] * 5
    assert found[-1].reductions == 3


def test_reduce_on_plateau_floor_is_the_larger_of_a_rate_and_a_share_of_the_base_rate() -> None:
    both: dict[str, Any] = {"factor": 0.5, "patience": 1, "min_lr": 0.5, "min_ratio": 0.5}
    assert rates("reduce_on_plateau", [1.0] * 6, base=4.0, **both)[-1] == 2.0
    assert rates("reduce_on_plateau", [1.0] * 6, base=0.75, **both)[-1] == 0.5


def test_reduce_on_plateau_leaves_a_base_rate_below_the_floor_alone() -> None:
    assert rates("reduce_on_plateau", [1.0] * 5, base=0.25, factor=0.5, patience=1, min_lr=0.5) == [0.25] * 6


def test_reduce_on_plateau_waits_on_a_falling_metric_in_mode_max() -> None:
    accuracy = [0.5, 0.6, 0.7, 0.6, 0.5, 0.8]
    parameters: dict[str, Any] = {"monitor": "val_accuracy", "factor": 0.5, "patience": 2, "min_delta": 0.0}
    expected = [1.0] * 5 + [0.5] * 2
    assert rates("reduce_on_plateau", accuracy, mode="max", **parameters) == expected
    assert rates("reduce_on_plateau", accuracy, mode="auto", **parameters) == expected
    assert rates("reduce_on_plateau", accuracy, mode="min", **parameters) != expected


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("val_loss", "min"),
        ("loss", "min"),
        ("val_mae", "min"),
        ("val_mean_squared_error", "min"),
        ("val_root_mean_squared_error", "min"),
        ("val_perplexity", "min"),
        ("val_dice_loss", "min"),
        ("val_head_accuracy_loss", "min"),
        ("val_accuracy", "max"),
        ("val_acc", "max"),
        ("accuracy", "max"),
        ("val_sparse_top_k_categorical_accuracy", "max"),
        ("val_AUC", "max"),
        ("val_precision", "max"),
        ("val_recall_1", "max"),
        ("val_f1_score", "max"),
        ("val_r2_score", "max"),
        ("val_mean_iou", "max"),
        ("val_cosine_similarity", "max"),
    ],
)
def test_mode_auto_goes_by_the_metrics_name(metric: str, expected: str) -> None:
    assert direction(metric) == expected
    assert direction(metric, "min") == "min"
    assert direction(metric, "max") == "max"


def test_reduce_on_plateau_takes_a_nan_for_an_epoch_without_improvement_even_at_first() -> None:
    assert rates("reduce_on_plateau", [NAN, NAN, NAN], factor=0.5, patience=2) == [1.0, 1.0, 0.5, 0.5]
    # A NaN at first is not the best for ever, as it is in Keras.
    assert rates("reduce_on_plateau", [NAN, 1.0, 0.9, 0.8, 0.7], factor=0.5, patience=2) == [1.0] * 6
    assert rates("reduce_on_plateau", [1.0, NAN, 0.9, NAN, NAN], factor=0.5, patience=2) == [1.0] * 5 + [0.5]


def test_reduce_on_plateau_takes_infinities_for_numbers() -> None:
    assert rates("reduce_on_plateau", [math.inf, 1e300, 1.0], factor=0.5, patience=2)[-1] == 1.0
    assert rates("reduce_on_plateau", [1.0, math.inf, math.inf], factor=0.5, patience=2)[-1] == 0.5


@pytest.mark.parametrize("name", ["reduce_on_plateau", "plateau_with_revert"])
def test_plateau_schedule_names_the_metrics_there_are_if_its_own_is_missing(name: str) -> None:
    schedule = closed_loop(name, monitor="val_accuracy")
    with pytest.raises(KeyError, match=r"watches 'val_accuracy'.*it reports: loss, val_loss"):
        schedule.advance(schedule.start(0.1), {"val_loss": 1.0, "loss": 2.0})


@pytest.mark.parametrize("name", ["reduce_on_plateau", "plateau_with_revert"])
def test_plateau_rates_are_the_float32_that_an_optimizer_holds(name: str) -> None:
    found = rates(name, [1.0] * 5, base=0.1, factor=0.3, patience=1, min_ratio=0.001)
    expected = [float32(0.1)]
    for _ in range(4):
        expected.append(float32(expected[-1] * 0.3))
    assert found == [expected[0], *expected]


@pytest.mark.parametrize("name", ["reduce_on_plateau", "plateau_with_revert"])
def test_plateau_state_goes_on_from_a_checkpoint_as_if_never_interrupted(name: str) -> None:
    rng = random.Random(7)
    schedule = closed_loop(name, factor=0.4, patience=2, cooldown=2, min_ratio=0.05)
    values = [math.inf, *(rng.choice([rng.random(), NAN, math.inf]) for _ in range(60))]
    state = schedule.start(0.3)
    for value, expected in zip(values, states(schedule, values, 0.3)[1:], strict=True):
        saved = state.model_dump_json()
        state = schedule.advance(PlateauState.model_validate_json(saved), {"val_loss": value})
        assert state == expected


# --- plateau_with_revert


def test_plateau_with_revert_goes_back_to_the_base_rate_where_it_would_fall_below_the_floor() -> None:
    #  1, .5, .25, then .125 would be below .2
    found = rates("plateau_with_revert", [1.0] * 8, factor=0.5, patience=1, min_ratio=0.2)
    assert found == [1.0, 1.0, 0.5, 0.25, 1.0, 0.5, 0.25, 1.0, 0.5]


def test_plateau_with_revert_lands_exactly_on_the_floor_and_reverts_from_there() -> None:
    #  1, .5, .25 is the floor: it is used, and the next plateau goes back
    found = rates("plateau_with_revert", [1.0] * 7, factor=0.5, patience=1, min_ratio=0.25)
    assert found == [1.0, 1.0, 0.5, 0.25, 1.0, 0.5, 0.25, 1.0]


@pytest.mark.parametrize("base", [1.0, 0.1, 0.3, 0.007])
def test_plateau_with_revert_uses_a_floor_that_float32_rounding_just_misses(base: float) -> None:
    found = rates("plateau_with_revert", [1.0] * 7, base=base, factor=0.1, patience=1, min_ratio=0.01)
    cycle = [base, base / 10, base / 100]
    assert found == pytest.approx([base, *cycle, *cycle, base], rel=1e-6)


def test_plateau_with_revert_takes_the_floor_as_a_rate_too() -> None:
    found = rates("plateau_with_revert", [1.0] * 4, base=0.5, factor=0.5, patience=1, min_ratio=0.0, min_lr=0.25)
    assert found == [0.5, 0.5, 0.25, 0.5, 0.25]


def test_plateau_with_revert_without_a_floor_only_reduces() -> None:
    found = rates("plateau_with_revert", [1.0] * 5, factor=0.5, patience=1, min_ratio=0.0)
    assert found == [1.0, 1.0, 0.5, 0.25, 0.125, 0.0625]


def test_plateau_with_revert_waits_for_patience_and_cools_down_after_a_revert_too() -> None:
    found = rates("plateau_with_revert", [1.0] * 11, factor=0.5, patience=2, cooldown=2, min_ratio=0.5)
    #  best, 1, 2: .5, cooling, 1, 2: back, cooling, 1, 2: .5, cooling
    assert found == [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5]


def test_plateau_with_revert_measures_against_the_old_best_unless_told_to_reset_it() -> None:
    #         best  .5   back  worse than .1, but falling
    losses = [0.1, 0.2, 0.2, 0.9, 0.8, 0.7]
    parameters: dict[str, Any] = {"factor": 0.5, "patience": 1, "min_ratio": 0.5}
    kept = rates("plateau_with_revert", losses, **parameters)
    reset = rates("plateau_with_revert", losses, reset_best=True, **parameters)
    assert kept == [1.0, 1.0, 0.5, 1.0, 0.5, 1.0, 0.5]
    assert reset == [1.0, 1.0, 0.5, 1.0, 1.0, 1.0, 1.0]


def test_plateau_with_revert_at_its_defaults_lands_on_a_hundredth_and_comes_back() -> None:
    # patience 10, factor 0.1, floor 0.01: the best, then ten epochs each at 1, 0.1 and 0.01
    found = rates("plateau_with_revert", [1.0] * 31)
    assert found[:31] == pytest.approx([1.0] * 11 + [0.1] * 10 + [0.01] * 10, rel=1e-6)
    assert found[31] == 1.0


def test_plateau_with_revert_takes_a_nan_for_an_epoch_without_improvement() -> None:
    jumps: dict[str, Any] = {"factor": 0.5, "patience": 1, "min_ratio": 0.5}
    assert rates("plateau_with_revert", [NAN, NAN, NAN], **jumps) == [1.0, 0.5, 1.0, 0.5]
    # Forgotten at the revert in epoch 2, the best is not the NaN of epoch 3 but the 9 of epoch 4.
    losses = [1.0, 2.0, 2.0, NAN, 9.0, 8.0]
    assert rates("plateau_with_revert", losses, reset_best=True, **jumps) == [1.0, 1.0, 0.5, 1.0, 0.5, 0.5, 0.5]
    assert rates("plateau_with_revert", losses, **jumps) == [1.0, 1.0, 0.5, 1.0, 0.5, 1.0, 0.5]


def test_plateau_with_revert_takes_a_gain_of_just_min_delta_for_none() -> None:
    jumps: dict[str, Any] = {"factor": 0.5, "patience": 1, "min_ratio": 0.5, "min_delta": 0.25}
    assert rates("plateau_with_revert", [1.0, 0.75, 0.5, 0.5], **jumps) == [1.0, 1.0, 0.5, 0.5, 1.0]


def test_plateau_with_revert_sees_an_improvement_within_the_cooldown() -> None:
    #         best  .5  cools better back cools cools .5  cools
    losses = [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]
    found = rates("plateau_with_revert", losses, factor=0.5, patience=1, cooldown=3, min_ratio=0.5)
    assert found == [1.0, 1.0, 0.5, 0.5, 0.5, 1.0, 1.0, 1.0, 0.5, 0.5]


def test_plateau_with_revert_counts_reductions_and_reverts_apart() -> None:
    schedule = closed_loop("plateau_with_revert", factor=0.5, patience=1, min_ratio=0.2)
    last = states(schedule, [1.0] * 8)[-1]
    assert (last.reductions, last.reverts) == (5, 2)


def test_plateau_with_revert_alone_keeps_the_best_weights() -> None:
    def keeps(name: str) -> bool:
        schedule = make(name)
        assert isinstance(schedule, ClosedLoop)
        return schedule.keeps_best_weights

    assert keeps("plateau_with_revert")
    assert not keeps("reduce_on_plateau")


# --- the rule written another way: from epoch numbers, not from counters


def model(values: Sequence[float], base: float, reset_best: bool, reverts: bool, p: dict[str, Any]) -> list[float]:
    """The rates, worked out from two epoch numbers.

    `since`: the first epoch that counts as waiting. An epoch that does not improve changes the rate when
    patience epochs count, it among them; then waiting counts again from `cooldown` epochs later on, from
    the next epoch at the soonest.
    """
    larger = p["mode"] == "max"
    floor = max(p["min_lr"], p["min_ratio"] * base)
    rate, since, thaw = float32(base), 0, 0
    best: float | None = None
    found = [rate]
    for epoch, value in enumerate(values):
        margin = value - p["min_delta"] if larger else -(value + p["min_delta"])
        if not math.isnan(value) and (best is None or float32(margin) > float32(best if larger else -best)):
            best, since = value, max(epoch + 1, thaw)
        elif epoch - since + 1 >= p["patience"]:
            lower = rate * p["factor"]
            if reverts and lower < floor * (1 - 1e-6):
                rate, best = float32(base), None if reset_best else best
                since = thaw = epoch + max(p["cooldown"], 1)
            elif reverts or rate > float32(floor):
                rate = float32(lower if reverts else max(lower, floor))
                since = thaw = epoch + max(p["cooldown"], 1)
        found.append(rate)
    return found


def scripted(rng: random.Random) -> list[float]:
    """A metric that moves on a grid, so that ties and differences of exactly min_delta are common."""
    level, values = rng.uniform(0, 2), []
    for _ in range(rng.randint(1, 60)):
        level += rng.choice([-0.1, -0.05, -0.01, 0.0, 0.0, 0.01, 0.05, 0.1])
        values.append(NAN if rng.random() < 0.03 else round(level, 2))
    return values


def parameters_of(rng: random.Random) -> dict[str, Any]:
    return {
        "mode": rng.choice(["min", "max"]),
        "factor": rng.choice([0.1, 0.5, rng.uniform(0.05, 0.95)]),
        "patience": rng.randint(1, 6),
        "min_delta": rng.choice([0.0, 0.01, 0.05, rng.uniform(0, 0.2)]),
        "cooldown": rng.choice([0, 0, 1, 2, 5]),
        "min_lr": rng.choice([0.0, 0.0, 0.001, 0.05]),
        "min_ratio": rng.choice([0.0, 0.01, 0.1, rng.uniform(0, 0.5)]),
    }


def test_reduce_on_plateau_equals_a_model_of_its_rule_on_200_random_sequences() -> None:
    rng, reduced = random.Random(20), 0
    for _ in range(200):
        values, parameters, base = scripted(rng), parameters_of(rng), 10 ** rng.uniform(-3, 0)
        found = rates("reduce_on_plateau", values, base, **parameters)
        assert found == model(values, base, False, False, parameters), (values, base, parameters)
        reduced += len(set(found)) - 1
    assert reduced > 300


def test_plateau_with_revert_equals_a_model_of_its_rule_on_200_random_sequences() -> None:
    rng, reverted = random.Random(21), 0
    for _ in range(200):
        values, parameters, base = scripted(rng), parameters_of(rng), 10 ** rng.uniform(-3, 0)
        reset_best = rng.random() < 0.5
        schedule = closed_loop("plateau_with_revert", reset_best=reset_best, **parameters)
        found = states(schedule, values, base)
        expected = model(values, base, reset_best, True, parameters)
        assert [state.rate for state in found] == expected, (values, base, reset_best, parameters)
        reverted += found[-1].reverts
    assert reverted > 200


def test_plateau_with_revert_stays_between_its_floor_and_the_base_rate() -> None:
    rng = random.Random(22)
    for _ in range(200):
        values, parameters, base = scripted(rng), parameters_of(rng), 10 ** rng.uniform(-3, 0)
        floor = max(parameters["min_lr"], parameters["min_ratio"] * base)
        found = rates("plateau_with_revert", values, base, **parameters)
        assert max(found) == float32(base)
        assert min(found) >= min(floor, base) * (1 - 2e-6)


def test_plateau_with_revert_is_a_reduce_on_plateau() -> None:
    assert issubclass(PlateauWithRevert, ReduceOnPlateau)
    shared = set(make("reduce_on_plateau").parameters)
    assert set(make("plateau_with_revert").parameters) == shared | {"reset_best"}
