"""Learning rates as applied equal each schedule's formula, written out here step by step in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from studies.errors import NotFound
from studies.schedules import CATALOGUE, make
from studies.space import Value
from tests.workers.problems import STEPS_PER_EPOCH, run, trial
from workers.callbacks import ScheduleCallback, TableSchedule

Formula = Callable[[float, int, int, int], float]
"""(eta0, s, t, n) -> the rate at step s of t, with n steps to an epoch."""

FLOAT32 = 1.2e-7
"""The relative precision of a float32."""


def cosine_restarts(eta0: float, s: int, t: int, n: int) -> float:
    # Cycles of t/7, 2t/7 and 4t/7 steps, with peaks 1, 0.5 and 0.25, down to 0.1 eta0.
    start = 0.0
    for cycle, length in enumerate((t / 7, 2 * t / 7, 4 * t / 7)):
        if s < start + length - 1e-9 or cycle == 2:
            v = (s - start) / length
            return eta0 * (0.9 * 0.5**cycle * (1 + math.cos(math.pi * v)) / 2 + 0.1)
        start += length
    raise AssertionError


OPEN_LOOP: list[tuple[str, dict[str, Value], Formula]] = [
    ("constant", {}, lambda eta0, s, t, n: eta0),
    ("step", {"factor": 0.5, "drops": 2}, lambda eta0, s, t, n: eta0 * 0.5 ** min(3 * (s - s % n) // t, 2)),
    ("exponential", {"final_ratio": 0.01}, lambda eta0, s, t, n: eta0 * 0.01 ** (s / t)),
    (
        "exponential",
        {"final_ratio": 0.01, "stairs": 3},
        lambda eta0, s, t, n: eta0 * 0.01 ** (3 * s // t / 3),
    ),
    ("inverse_time", {"kappa": 10.0}, lambda eta0, s, t, n: eta0 / (1 + 10 * s / t)),
    ("inverse_time", {"kappa": 10.0, "stairs": 5}, lambda eta0, s, t, n: eta0 / (1 + 10 * (5 * s // t) / 5)),
    (
        "polynomial",
        {"power": 3.0, "alpha": 0.1},
        lambda eta0, s, t, n: eta0 * (0.9 * (1 - s / t) ** 3 + 0.1),
    ),
    ("linear", {"alpha": 0.0}, lambda eta0, s, t, n: eta0 * (1 - s / t)),
    ("linear", {"alpha": 0.01}, lambda eta0, s, t, n: eta0 * (0.99 * (1 - s / t) + 0.01)),
    ("cosine", {"alpha": 0.0}, lambda eta0, s, t, n: eta0 * (1 + math.cos(math.pi * s / t)) / 2),
    (
        "cosine",
        {"alpha": 0.001},
        lambda eta0, s, t, n: eta0 * (0.999 * (1 + math.cos(math.pi * s / t)) / 2 + 0.001),
    ),
    ("cosine_restarts", {"cycles": 3, "t_mul": 2.0, "m_mul": 0.5, "alpha": 0.1}, cosine_restarts),
]
IDS = [f"{name}-{'-'.join(f'{k}={v}' for k, v in params.items())}" for name, params, _ in OPEN_LOOP]


def expected(formula: Formula, eta0: float, steps: int, steps_per_epoch: int, w: int) -> list[float]:
    """The rates of a training: w steps of warm-up, and the schedule over those that are left."""
    warmup = [eta0 * (s + 1) / w for s in range(w)]
    return warmup + [formula(eta0, s, steps - w, steps_per_epoch) for s in range(steps - w)]


def test_every_open_loop_schedule_is_checked_here() -> None:
    assert {name for name, _, _ in OPEN_LOOP} == {name for name, kind in CATALOGUE.items() if kind.loop == "open"}


@pytest.mark.parametrize(("name", "params", "formula"), {case[0]: case for case in OPEN_LOOP}.values())
def test_the_rates_reported_by_a_trial_equal_the_formula(name: str, params: dict[str, Value], formula: Formula) -> None:
    epochs = 3
    _, records = run(trial({"type": name, **params}, learning_rate=0.07, warmup=0.25, epochs=epochs))
    rates = expected(formula, 0.07, epochs * STEPS_PER_EPOCH, STEPS_PER_EPOCH, w=3)
    np.testing.assert_allclose([r.lr_first for r in records], rates[::STEPS_PER_EPOCH], rtol=FLOAT32)
    np.testing.assert_allclose(
        [r.lr_last for r in records], rates[STEPS_PER_EPOCH - 1 :: STEPS_PER_EPOCH], rtol=FLOAT32
    )


class OneWeight:
    """A model whose single weight has the gradient 1: under plain SGD each step moves it by the rate.

    `moves`: by how much each call of the train function moved it, from zero.
    """

    def __init__(self, learning_rate: Any = 0.01, *, steps_per_execution: int = 1) -> None:
        self.moves: list[float] = []
        self.model = keras.Sequential(
            [keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")]
        )
        self.model.compile(
            keras.optimizers.SGD(learning_rate),
            loss=lambda target, output: output,
            steps_per_execution=steps_per_execution,
        )

    def fit(self, *callbacks: Any, steps: int = 8, epochs: int = 3, **options: Any) -> Any:
        ones = np.ones((steps, 1), dtype=np.float32)
        return self.model.fit(
            ones, ones, batch_size=1, epochs=epochs, callbacks=[*callbacks, self._watch()], verbose=0, **options
        )

    def _watch(self) -> Any:
        moves = self.moves

        class Watch(keras.callbacks.Callback):
            def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
                self.model.layers[0].kernel.assign([[0.0]])

            def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
                moves.append(-float(self.model.layers[0].kernel.numpy().item()))

        return Watch()


@pytest.mark.parametrize(("name", "params", "formula"), OPEN_LOOP, ids=IDS)
def test_the_weight_moves_by_the_formula_in_anybodys_fit(name: str, params: dict[str, Value], formula: Formula) -> None:
    rates = expected(formula, 0.3, steps=24, steps_per_epoch=8, w=5)
    single = OneWeight()
    history = single.fit(ScheduleCallback(name, 0.3, warmup=0.2, restore_best_weights=None, **params)).history
    np.testing.assert_allclose(single.moves, rates, rtol=FLOAT32)
    np.testing.assert_allclose(history["learning_rate"], rates[7::8], rtol=FLOAT32)

    by_eight = OneWeight(steps_per_execution=8)
    by_eight.fit(ScheduleCallback(make(name, **params), 0.3, warmup=0.2))
    np.testing.assert_allclose(by_eight.moves, [sum(rates[i : i + 8]) for i in (0, 8, 16)], rtol=8 * FLOAT32)


LINEAR = expected(lambda eta0, s, t, n: eta0 * (1 - s / t), 0.3, steps=24, steps_per_epoch=8, w=0)


def test_the_base_rate_is_the_one_that_the_model_was_compiled_with() -> None:
    weight = OneWeight(0.3)
    weight.fit(ScheduleCallback("linear"))
    np.testing.assert_allclose(weight.moves, LINEAR, rtol=FLOAT32)


def test_a_second_fit_starts_the_schedule_anew() -> None:
    weight = OneWeight(0.3)
    schedule = ScheduleCallback("linear")
    weight.fit(schedule)
    weight.fit(schedule)
    weight.fit(ScheduleCallback("linear"))
    np.testing.assert_allclose(weight.moves, LINEAR * 3, rtol=FLOAT32)


def test_a_fit_with_an_initial_epoch_goes_on_where_that_epoch_begins() -> None:
    weight = OneWeight(0.3)
    weight.fit(ScheduleCallback("linear"), initial_epoch=1)
    np.testing.assert_allclose(weight.moves, LINEAR[8:], rtol=FLOAT32)

    whole = OneWeight(0.3)
    schedule = ScheduleCallback("linear")
    whole.fit(schedule, initial_epoch=0, epochs=3)
    np.testing.assert_allclose(whole.moves, LINEAR, rtol=FLOAT32)


def test_a_fit_without_the_callback_keeps_the_last_rate() -> None:
    weight = OneWeight(0.3)
    weight.fit(ScheduleCallback("linear"))
    weight.fit(epochs=1)
    np.testing.assert_allclose(weight.moves[24:], [LINEAR[-1]] * 8, rtol=FLOAT32)


def test_a_schedule_replaces_the_rate_of_a_model_that_was_trained_before() -> None:
    weight = OneWeight(0.01)
    weight.fit(epochs=1)
    weight.fit(ScheduleCallback("linear", 0.3))
    np.testing.assert_allclose(weight.moves, [0.01] * 8 + LINEAR, rtol=FLOAT32)


def test_accumulated_gradients_do_not_shift_the_schedule() -> None:
    model = OneWeight().model
    model.compile(keras.optimizers.SGD(0.3, gradient_accumulation_steps=2), loss=lambda target, output: output)
    schedule = ScheduleCallback("linear")
    ones = np.ones((7, 1), dtype=np.float32)
    history = model.fit(ones, ones, batch_size=1, epochs=3, callbacks=[schedule], verbose=0).history
    np.testing.assert_allclose(history["learning_rate"], [0.3 * (1 - s / 21) for s in (6, 13, 20)], rtol=FLOAT32)
    again = model.fit(ones, ones, batch_size=1, epochs=3, callbacks=[schedule], verbose=0).history
    np.testing.assert_allclose(again["learning_rate"], history["learning_rate"], rtol=FLOAT32)


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't:DeprecationWarning")  # Keras 3.15 on NumPy 2.4
def test_a_model_with_a_schedule_is_saved_and_loaded(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.3, momentum=0.9), loss="mse")
    ones = np.ones((8, 1), dtype=np.float32)
    schedule = ScheduleCallback("cosine", alpha=0.01, warmup=0.2)
    model.fit(ones, ones, batch_size=1, epochs=3, callbacks=[schedule], verbose=0)
    model.save(tmp_path / "model.keras")
    loaded: Any = keras.saving.load_model(tmp_path / "model.keras")
    table = loaded.optimizer.get_config()["learning_rate"]
    assert table["registered_name"] == "lr_arena>TableSchedule"
    again = TableSchedule.from_config(table["config"])
    for step in (0, 4, 5, 23, 100):
        rate = expected(
            lambda eta0, s, t, n: eta0 * (0.99 * (1 + math.cos(math.pi * s / t)) / 2 + 0.01), 0.3, 24, 8, w=5
        )[min(step, 23)]
        assert float(again(step)) == pytest.approx(rate, rel=FLOAT32)
    assert int(loaded.optimizer.iterations.numpy()) == 24
    loaded.fit(ones, ones, batch_size=1, epochs=1, verbose=0)


# --- what cannot work is refused


def test_an_unknown_schedule_is_refused_with_a_suggestion() -> None:
    with pytest.raises(NotFound, match="did you mean 'cosine'"):
        ScheduleCallback("cosin")


def test_parameters_beside_a_schedule_object_are_refused() -> None:
    with pytest.raises(TypeError, match="alpha"):
        ScheduleCallback(make("cosine"), alpha=0.1)


@pytest.mark.parametrize("options", [{"warmup": 1.0}, {"warmup": -0.1}, {"learning_rate": 0.0}])
def test_numbers_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"but got"):
        ScheduleCallback("cosine", **options)  # type: ignore[arg-type]


def test_a_training_of_unknown_length_is_refused() -> None:
    def endless() -> Any:
        while True:
            yield np.ones((1, 1), dtype=np.float32), np.ones((1, 1), dtype=np.float32)

    schedule = ScheduleCallback("cosine", 0.1)
    schedule.set_params({"epochs": 3, "steps": None})
    schedule.set_model(OneWeight().model)
    schedule.on_train_begin()
    with pytest.raises(ValueError, match="steps_per_epoch"):
        schedule.on_epoch_begin(0)


def test_the_base_rate_must_be_given_where_the_optimizer_has_another_schedule() -> None:
    decay = keras.optimizers.schedules.CosineDecay(0.1, 10)
    with pytest.raises(ValueError, match="give learning_rate"):
        OneWeight(decay).fit(ScheduleCallback("linear"))
    weight = OneWeight(decay)
    weight.fit(ScheduleCallback("linear", 0.3))
    np.testing.assert_allclose(weight.moves, LINEAR, rtol=FLOAT32)


def test_a_closed_loop_schedule_needs_a_rate_that_can_be_assigned() -> None:
    with pytest.raises(ValueError, match="compile the model with a float"):
        OneWeight(keras.optimizers.schedules.CosineDecay(0.1, 10)).fit(ScheduleCallback("reduce_on_plateau"))


def test_a_closed_loop_warmup_needs_a_call_before_every_step() -> None:
    with pytest.raises(ValueError, match="steps_per_execution=8"):
        OneWeight(steps_per_execution=8).fit(ScheduleCallback("reduce_on_plateau", warmup=0.2, monitor="loss"))


def test_weights_are_restored_by_a_metric_only() -> None:
    with pytest.raises(ValueError, match="watches no metric"):
        ScheduleCallback("cosine", restore_best_weights=True)
