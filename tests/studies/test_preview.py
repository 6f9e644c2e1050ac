"""The rates of a schedule without a training: against formulas and traces worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from studies.errors import InvalidMessage, NotFound
from studies.preview import Preview, PreviewRequest, preview


def previewed(schedule: Any, **options: Any) -> Preview:
    plain: dict[str, Any] = {"learning_rate": 0.1, "epochs": 5, "steps_per_epoch": 4}
    return preview(PreviewRequest(schedule=schedule, **{**plain, **options}))


def refused(schedule: Any, **options: Any) -> dict[str, str]:
    with pytest.raises(InvalidMessage) as error:
        previewed(schedule, **options)
    return {field.field: field.message for field in error.value.fields}


def test_an_open_loop_schedule_is_shown_step_by_step() -> None:
    found = previewed({"type": "cosine", "alpha": 0.1})
    assert found.steps == list(range(20))
    expected = [0.1 * (0.9 * (1 + math.cos(math.pi * s / 20)) / 2 + 0.1) for s in range(20)]
    assert found.rates == pytest.approx(expected, rel=1e-6)
    assert (found.type, found.loop, found.total_steps) == ("cosine", "open", 20)
    assert found.parameters == {"alpha": 0.1, "power": 1.0}


def test_a_warm_up_goes_before_it() -> None:
    found = previewed("linear", warmup=0.2)
    assert found.rates[:5] == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1])
    assert found.rates[-1] == pytest.approx(0.1 / 16)


def test_fewer_points_are_spread_evenly_with_the_first_and_the_last() -> None:
    found = previewed("linear", epochs=100, steps_per_epoch=1000, points=5)
    assert found.total_steps == 100_000
    assert found.steps == [0, 25_000, 50_000, 74_999, 99_999]
    assert found.rates == pytest.approx([0.1 * (1 - s / 100_000) for s in found.steps], rel=1e-6)


def test_noise_is_a_function_of_the_seed() -> None:
    noisy = {"type": "noisy_linear_cosine"}
    assert previewed(noisy, seed=1).rates == previewed(noisy, seed=1).rates
    assert previewed(noisy, seed=1).rates != previewed(noisy, seed=2).rates


def test_a_closed_loop_schedule_is_traced_on_the_metrics_given() -> None:
    schedule = {"type": "reduce_on_plateau", "factor": 0.5, "patience": 2, "min_delta": 0.0}
    # No improvement in epochs 1 and 2, so half the rate from epoch 3 on; a NaN in epoch 4 does not improve.
    found = previewed(schedule, metrics={"val_loss": [0.5, 0.5, 0.6, 0.4, None]}, steps_per_epoch=2)
    assert found.rates == pytest.approx([0.1] * 6 + [0.05] * 4)
    assert (found.loop, found.total_steps, found.stopped_after_epoch) == ("closed", 10, None)


def test_epochs_of_the_warm_up_are_not_shown_to_a_closed_loop_schedule() -> None:
    schedule = {"type": "reduce_on_plateau", "factor": 0.5, "patience": 1, "min_delta": 0.0}
    # The warm-up takes epochs 0 and 1. Epoch 1 ends with it and counts as the first; epoch 2 is no better.
    found = previewed(schedule, metrics={"val_loss": [0.1, 0.5, 0.5, 0.4, 0.3]}, steps_per_epoch=2, warmup=0.4)
    assert found.rates == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.05])


def test_a_schedule_that_ends_the_training_is_shown_up_to_there() -> None:
    schedule = {"type": "adaptive_validation", "patience": 1, "factor": 0.1, "min_ratio": 0.1, "min_delta": 0.0}
    found = previewed(schedule, epochs=50, metrics={"val_loss": [1.0] * 50}, steps_per_epoch=3)
    assert found.stopped_after_epoch is not None
    assert found.total_steps == 3 * (found.stopped_after_epoch + 1) < 150
    assert len(found.rates) == found.total_steps


def test_metrics_that_are_missing_or_too_few_are_named() -> None:
    assert "one value for each of the 5 epochs, got none" in refused("reduce_on_plateau")["metrics.val_loss"]
    few = refused("reduce_on_plateau", metrics={"val_loss": [0.5, 0.4]})
    assert "got 2" in few["metrics.val_loss"]
    other = refused({"type": "reduce_on_plateau", "monitor": "val_accuracy"}, metrics={"val_loss": [0.5] * 5})
    assert list(other) == ["metrics.val_accuracy"]
    assert "watches no metric" in refused("cosine", metrics={"val_loss": [0.5] * 5})["metrics"]


def test_every_bad_parameter_is_named() -> None:
    assert set(refused({"type": "cosine", "alpha": 2.0, "beta": 1})) == {"schedule.alpha", "schedule.beta"}
    assert "such as cosine" in refused({"alpha": 0.1})["schedule"]
    with pytest.raises(NotFound, match="did you mean 'cosine'"):
        previewed("cosin")


def test_a_training_too_long_to_work_out_is_refused() -> None:
    assert "100,000" in refused("cosine", epochs=101, steps_per_epoch=1000)["steps_per_epoch"]
