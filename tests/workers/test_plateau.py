"""The closed-loop schedules in a real fit, on metrics that follow a script."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import pytest

from tests.workers.problems import run, trial
from workers.callbacks import ScheduleCallback

# Keras 3.15 turns a variable into an array in a way that NumPy 2.4 warns about.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't:DeprecationWarning")

STEPS_PER_EPOCH = 4


class Script(keras.callbacks.Callback):
    """Goes before the schedule: makes `val_loss` what the script says, and counts the epochs in the weight."""

    def __init__(self, values: Sequence[float]) -> None:
        super().__init__()
        self._values = values

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs["val_loss"] = self._values[epoch]
        self.model.layers[0].bias.assign([float(epoch)])


class RatePerStep(keras.callbacks.Callback):
    """Goes after the schedule: notes the rate at which each step is about to be taken."""

    def __init__(self) -> None:
        super().__init__()
        self.rates: list[float] = []

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.rates.append(float(self.model.optimizer.learning_rate))


def small_model(learning_rate: float = 1.0) -> Any:
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(learning_rate), loss=lambda target, output: 0.0 * output)
    return model


def fit(schedule: ScheduleCallback, values: Sequence[float], *, model: Any = None) -> tuple[list[float], Any]:
    """The rates of all steps of a fit of as many epochs as there are values, and the model after it."""
    model = small_model() if model is None else model
    rates = RatePerStep()
    ones = np.ones((STEPS_PER_EPOCH, 1), dtype=np.float32)
    model.fit(ones, ones, batch_size=1, epochs=len(values), callbacks=[Script(values), schedule, rates], verbose=0)
    return rates.rates, model


def per_epoch(rates: Sequence[float]) -> list[float]:
    """One rate per epoch, all steps of which must have the same."""
    epochs = [rates[i : i + STEPS_PER_EPOCH] for i in range(0, len(rates), STEPS_PER_EPOCH)]
    assert all(len(set(epoch)) == 1 for epoch in epochs), epochs
    return [epoch[0] for epoch in epochs]


def test_reduce_on_plateau_follows_the_trace_made_by_hand() -> None:
    values = [1.0, 0.995, 1.2, 1.1, 1.1, 1.1, 0.5, 0.6, 0.6, 0.6]
    # Epoch 1 is better, but not by min_delta 0.01. Epoch 2 is the second without improvement: x 0.5. With
    # cooldown 2, epoch 3 does not count, epoch 4 does, and epoch 5 makes two: x 0.5. Epoch 6 improves.
    # Epoch 7 waits once (the cool-down ended with epoch 7), epoch 8 twice: 0.25 x 0.5, held at min_lr 0.2.
    expected = [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.2]
    schedule = ScheduleCallback(
        "reduce_on_plateau", 1.0, factor=0.5, patience=2, min_delta=0.01, cooldown=2, min_lr=0.2
    )
    rates, _ = fit(schedule, values)
    assert per_epoch(rates) == pytest.approx(expected, rel=1e-7)


def test_plateau_with_revert_follows_the_trace_made_by_hand() -> None:
    # Nothing ever improves on epoch 0. With patience 1 every epoch after it is a plateau:
    # 0.4, 0.16, and then 0.064 would be below the floor 0.1 * 1.0, so back to 1.0, and again.
    values = [1.0] * 8
    schedule = ScheduleCallback("plateau_with_revert", 1.0, factor=0.4, patience=1, min_ratio=0.1)
    rates, _ = fit(schedule, values)
    assert per_epoch(rates) == pytest.approx([1.0, 1.0, 0.4, 0.16, 1.0, 0.4, 0.16, 1.0], rel=1e-7)


def test_a_revert_also_comes_from_a_rate_exactly_at_the_floor() -> None:
    schedule = ScheduleCallback("plateau_with_revert", 1.0, factor=0.5, patience=1, min_ratio=0.25)
    rates, _ = fit(schedule, [1.0] * 6)
    assert per_epoch(rates) == [1.0, 1.0, 0.5, 0.25, 1.0, 0.5]


def test_epochs_that_end_before_the_warmup_are_not_fed() -> None:
    # 6 epochs of 4 steps, a quarter of them warm-up: 6 steps, so epoch 0 ends within it. Its value 0.1, never
    # reached again, must not be the best: the best is epoch 1's, and epochs 2 and 3 improve on it.
    schedule = ScheduleCallback("reduce_on_plateau", 1.2, warmup=0.25, factor=0.5, patience=1)
    rates, _ = fit(schedule, [0.1, 0.9, 0.8, 0.7, 0.7, 0.6])
    ramp = [1.2 * (step + 1) / 6 for step in range(6)]
    assert rates[:6] == pytest.approx(ramp, rel=1e-6)
    assert rates[6:20] == pytest.approx([1.2] * 14, rel=1e-6)
    assert rates[20:] == pytest.approx([0.6] * 4, rel=1e-6)


def test_the_log_has_the_rate_before_it_changes() -> None:
    model = small_model()
    schedule = ScheduleCallback("reduce_on_plateau", factor=0.5, patience=1)
    fit(schedule, [1.0, 1.0, 1.0], model=model)
    assert model.history.history["learning_rate"] == [1.0, 1.0, 0.5]
    assert (schedule.lr_first, schedule.lr_last) == (0.5, 0.5)


def test_a_second_fit_starts_at_the_base_rate_again() -> None:
    model = small_model()
    schedule = ScheduleCallback("reduce_on_plateau", factor=0.5, patience=1)
    first, _ = fit(schedule, [1.0, 1.0, 1.0], model=model)
    second, _ = fit(schedule, [1.0, 1.0, 1.0], model=model)
    assert first == second


def test_plateau_with_revert_ends_with_the_weights_of_the_best_epoch() -> None:
    # nan is never the best, and the second 0.3 is no better than the first.
    values = [float("nan"), 0.3, 0.5, 0.3, float("nan"), 0.8]
    _, model = fit(ScheduleCallback("plateau_with_revert", patience=1, min_delta=0.25), values)
    assert model.layers[0].bias.numpy() == [1.0]


@pytest.mark.parametrize(
    ("name", "restore", "kept_epoch"),
    [
        ("plateau_with_revert", False, 2),
        ("reduce_on_plateau", None, 2),
        ("reduce_on_plateau", True, 1),
    ],
)
def test_weights_are_restored_as_asked(name: str, restore: bool | None, kept_epoch: int) -> None:
    _, model = fit(ScheduleCallback(name, restore_best_weights=restore), [0.9, 0.3, 0.5])
    assert model.layers[0].bias.numpy() == [float(kept_epoch)]


def test_a_metric_to_be_maximised_is_known_by_its_name() -> None:
    schedule = ScheduleCallback("plateau_with_revert", monitor="val_accuracy", patience=1)
    model = small_model()
    schedule.set_model(model)
    schedule.set_params({"epochs": 3, "steps": STEPS_PER_EPOCH})
    schedule.on_train_begin()
    for epoch, accuracy in enumerate([0.5, 0.9, 0.7]):
        schedule.on_epoch_begin(epoch)
        model.layers[0].bias.assign([float(epoch)])
        schedule.on_epoch_end(epoch, {"val_accuracy": accuracy})
    schedule.on_train_end()
    assert model.layers[0].bias.numpy() == [1.0]


ENDS_AFTER_7: dict[str, Any] = {"factor": 0.5, "patience": 1, "min_ratio": 0.25}
LOSSES = [1.0, 0.9, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0]
"""Epoch 1 is the best; then 0.5, the floor 0.25, a second descent from 0.5, its best in epoch 5, the floor, the end."""


def test_adaptive_validation_follows_the_trace_made_by_hand_and_ends_the_fit() -> None:
    schedule = ScheduleCallback("adaptive_validation", 1.0, **ENDS_AFTER_7)
    rates, model = fit(schedule, LOSSES)
    assert per_epoch(rates) == [1.0, 1.0, 1.0, 0.5, 0.25, 0.5, 0.5, 0.25]
    assert len(model.history.history["val_loss"]) == 8 < len(LOSSES)
    assert schedule.state is not None
    assert schedule.state.stopped


def test_adaptive_validation_ends_with_the_weights_of_the_best_epoch_of_both_descents() -> None:
    _, model = fit(ScheduleCallback("adaptive_validation", **ENDS_AFTER_7), LOSSES)
    assert model.layers[0].bias.numpy() == [1.0]
    _, model = fit(ScheduleCallback("adaptive_validation", restore_best_weights=False, **ENDS_AFTER_7), LOSSES)
    assert model.layers[0].bias.numpy() == [7.0]


def test_a_fit_after_one_that_the_schedule_ended_starts_anew() -> None:
    model = small_model()
    schedule = ScheduleCallback("adaptive_validation", **ENDS_AFTER_7)
    first, _ = fit(schedule, LOSSES, model=model)
    second, _ = fit(schedule, LOSSES, model=model)
    assert first == second


def test_adaptive_validation_under_a_warmup_is_fed_from_its_end_on() -> None:
    # 12 epochs of 4 steps, an eighth of them warm-up: 6 steps. Epoch 0 ends within it and is not fed; the others are
    # as in the trace, an epoch later.
    schedule = ScheduleCallback("adaptive_validation", 1.0, warmup=0.125, **ENDS_AFTER_7)
    rates, model = fit(schedule, [0.1, *LOSSES, 2.0])
    assert rates[:6] == pytest.approx([(step + 1) / 6 for step in range(6)], rel=1e-6)
    assert rates[6:8] == [1.0] * 2
    assert per_epoch(rates[8:]) == [1.0, 1.0, 0.5, 0.25, 0.5, 0.5, 0.25]
    assert model.layers[0].bias.numpy() == [0.0]  # the best epoch, warm-up or not


def test_greedy_follows_the_trace_made_by_hand() -> None:
    values = [1.0, 0.9, 0.8, 0.9, 1.0, float("nan"), 0.5, 0.4]
    schedule = ScheduleCallback("greedy", 0.5, factor=0.5, max_ratio=3.0, min_ratio=0.5)
    rates, model = fit(schedule, values)
    # up, up to 3 times 0.5, down, down, down to half of 0.5, up
    assert per_epoch(rates) == pytest.approx([0.5, 0.5, 1.0, 1.5, 0.75, 0.375, 0.25, 0.5], rel=1e-7)
    assert model.layers[0].bias.numpy() == [7.0]


def test_a_trial_that_its_schedule_ends_is_completed_and_scored_at_its_best_and_its_last_epoch() -> None:
    # No epoch beats the first of its descent by a million: so the rates are known beforehand. A falling loss is to be
    # maximised: so the best epoch is the first.
    rule = {"type": "adaptive_validation", "min_delta": 1e6, **ENDS_AFTER_7}
    end, epochs = run(trial(rule, learning_rate=0.05, epochs=20, direction="maximize", score_on_test=True))
    assert end is not None
    assert end.outcome == "completed"
    expected = [0.05, 0.05, 0.025, 0.0125, 0.025, 0.025, 0.0125]
    assert [epoch.lr_first for epoch in epochs] == pytest.approx(expected, rel=1e-6)
    best, last = end.test_best, end.test_last
    assert best is not None
    assert last is not None
    assert (best["loss"] or 0.0) > (last["loss"] or 0.0) > 0.0


def test_a_missing_metric_is_named_beside_those_there_are() -> None:
    with pytest.raises(KeyError, match=r"watches 'val_auc'.*it reports: loss, val_loss"):
        fit(ScheduleCallback("reduce_on_plateau", monitor="val_auc"), [1.0])


def test_reduce_on_plateau_equals_the_callback_of_keras_on_100_random_sequences() -> None:
    random = np.random.default_rng(0)
    ours, theirs = small_model(), small_model()
    reductions = 0
    for _ in range(100):
        rate = float(10.0 ** random.uniform(-3, 0))
        mode = str(random.choice(["min", "max"]))
        options: dict[str, Any] = {
            "monitor": "val_loss",
            "mode": mode,
            "factor": float(random.uniform(0.1, 0.9)),
            "patience": int(random.integers(1, 5)),
            "min_delta": float(random.choice([0.0, 1e-4, 0.05])),
            "cooldown": int(random.integers(0, 4)),
            "min_lr": float(random.choice([0.0, rate / 10, rate / 3])),
        }
        # Rounded, so that values repeat and differences meet min_delta exactly.
        sequence = np.round(np.cumsum(random.normal(0.0, 0.05, size=25)), 2).tolist()
        got = _rates(ScheduleCallback("reduce_on_plateau", rate, **options), ours, rate, sequence)
        wanted = _rates(keras.callbacks.ReduceLROnPlateau(**options), theirs, rate, sequence)
        assert got == wanted, options
        reductions += len(set(got)) - 1
    assert reductions > 150


def _rates(callback: Any, model: Any, rate: float, sequence: Sequence[float]) -> list[float]:
    """The rate after each epoch, with the callback driven as `fit` would."""
    model.optimizer.learning_rate = rate
    callback.set_model(model)
    callback.set_params({"epochs": len(sequence), "steps": 1})
    callback.on_train_begin()
    rates = []
    for epoch, value in enumerate(sequence):
        callback.on_epoch_begin(epoch)
        callback.on_epoch_end(epoch, {"val_loss": value})
        rates.append(float(model.optimizer.learning_rate))
    return rates
