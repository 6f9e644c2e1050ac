"""The range test in Keras: whose losses it notes, what it leaves behind."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest

from studies.configuration import Configuration
from studies.optimizers import OPTIMIZERS
from studies.range_test import RangeCurve, sweep_rates
from studies.seeds import derive, permutation
from tests.workers.problems import BATCH, EXAMPLES, line, trial
from workers.compiling import compiled
from workers.control import Control
from workers.range_test import endless_batches, range_test, sweep
from workers.tasks import Problem
from workers.tasks.problem import Data


def configuration(**changes: Any) -> Configuration:
    return trial(**changes).configuration


def batches_of(problem: Problem, size: int = BATCH, seed: int = 3) -> Iterator[Any]:
    return endless_batches(problem.train, examples=problem.examples, batch_size=size, seed=seed)


def weighted_line() -> Problem:
    plain = line()
    weights = np.random.default_rng(1).uniform(0.0, 2.0, size=EXAMPLES).astype(np.float32)
    return Problem(**{**vars(plain), "train": (*plain.train, weights)})


# --- losses


@pytest.mark.parametrize("make", [line, weighted_line])
@pytest.mark.parametrize("steps_per_execution", [1, 8])
def test_every_loss_is_the_batchs_own_at_the_weights_that_the_rates_before_have_made(
    make: Any, steps_per_execution: int
) -> None:
    problem = make()
    rates = sweep_rates(12, 1e-3, 0.2)
    model = compiled(problem, configuration(optimizer={"type": "sgd", "momentum": 0.9}))
    model.compile(model.optimizer, loss=problem.loss, steps_per_execution=steps_per_execution)
    kernel, bias = (np.array(weight, dtype=np.float64) for weight in model.get_weights())
    losses = sweep(model, batches_of(problem), rates, Control())
    # The mean of w (x k + b - y)^2 over the batch, its gradient, and Keras' momentum: v = 0.9 v - rate g.
    expected, speed_kernel, speed_bias = [], np.zeros_like(kernel), np.zeros_like(bias)
    for rate, (x, y, *weight) in zip(rates, batches_of(problem), strict=False):
        w = weight[0][:, None] if weight else np.ones_like(y)
        error = x @ kernel + bias - y
        expected.append(float(np.mean(w * error**2)))
        speed_kernel = 0.9 * speed_kernel - rate * (x.T @ (2 * w * error)) / len(x)
        speed_bias = 0.9 * speed_bias - rate * np.sum(2 * w * error, axis=0) / len(x)
        kernel, bias = kernel + speed_kernel, bias + speed_bias
    np.testing.assert_allclose(np.array(losses), np.array(expected), rtol=1e-4)


def test_a_loss_that_is_not_finite_is_the_last() -> None:
    losses = sweep(compiled(line(), configuration()), batches_of(line()), np.full(100, 1e15), Control())
    assert losses is not None
    assert 1 < len(losses) < 100
    assert [math.isfinite(loss) for loss in losses] == [True] * (len(losses) - 1) + [False]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_can_be_swept(name: str) -> None:
    model = compiled(line(), configuration(optimizer={"type": name}, weight_decay=0.01, learning_rate=0.25))
    losses = sweep(model, batches_of(line()), sweep_rates(3), Control())
    assert losses is not None
    assert np.all(np.isfinite(losses))
    assert model.optimizer.get_config()["learning_rate"] == 0.25


# --- what is left behind


X, Y = line().train[:2]


def trained() -> Any:
    """A model with all kinds of state, after an epoch of four steps."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(4),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(1),
        ]
    )
    model.compile(keras.optimizers.Adam(0.05), loss="mean_squared_error", metrics=["mae"])
    model.fit(X, Y, batch_size=BATCH, verbose=0, shuffle=False)
    return model


@pytest.fixture(scope="module")
def model() -> Any:
    """Shared by tests that find it as it was, each."""
    return trained()


def state(model: Any) -> list[Any]:
    return [np.array(variable.numpy()) for variable in (*model.variables, *model.optimizer.variables)]


def test_weights_seeds_slots_iterations_and_rate_are_what_they_were(model: Any) -> None:
    before = state(model)
    assert any("seed" in variable.path for variable in model.variables)
    assert any("momentum" in variable.path for variable in model.optimizer.variables)
    losses = sweep(model, batches_of(line()), sweep_rates(20), Control())
    assert losses is not None
    assert len(set(losses)) > 10
    for was, now in zip(before, state(model), strict=True):
        np.testing.assert_array_equal(now, was)
    assert int(model.optimizer.iterations) == 4
    assert float(model.optimizer.learning_rate) == pytest.approx(0.05)


def test_everything_is_put_back_after_an_error_and_after_a_wish_for_the_end(model: Any) -> None:
    before = state(model)

    def broken() -> Iterator[Data]:
        yield from itertools.islice(batches_of(line()), 5)
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        sweep(model, broken(), sweep_rates(20, 1e-2, 1.0), Control())
    control = Control()

    def dropped() -> Iterator[Data]:
        yield from itertools.islice(batches_of(line()), 5)
        control.drop()
        yield X, Y

    assert sweep(model, dropped(), sweep_rates(20, 1e-2, 1.0), control) is None
    for was, now in zip(before, state(model), strict=True):
        np.testing.assert_array_equal(now, was)


def test_training_goes_on_as_if_there_had_been_no_test(model: Any) -> None:
    sweep(model, batches_of(line()), sweep_rates(20), Control())
    for ours, other in zip(_more_training(model), _more_training(trained()), strict=True):
        np.testing.assert_allclose(ours, other, rtol=1e-6)


def _more_training(model: Any) -> list[list[float]]:
    before = state(model)
    history = model.fit(X, Y, epochs=2, batch_size=BATCH, verbose=0, shuffle=False).history
    for variable, value in zip((*model.variables, *model.optimizer.variables), before, strict=True):
        variable.assign(value)
    return [history["loss"], history["mae"]]


def test_an_optimizer_with_a_schedule_is_refused() -> None:
    model = line().model()
    model.compile(keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)), loss="mse")
    with pytest.raises(ValueError, match="already holds a schedule: compile the model with a float"):
        sweep(model, batches_of(line()), sweep_rates(5), Control())


def test_a_model_without_weights_is_refused() -> None:
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), loss="mse")
    with pytest.raises(ValueError, match="has none yet: call it on some inputs first"):
        sweep(model, batches_of(line()), sweep_rates(5), Control())


# --- batches


@pytest.mark.parametrize("size", [1, 7, 10, 38, 1000])
def test_batches_of_one_size_hold_every_example_once_per_epoch_in_its_order(size: int) -> None:
    numbers = np.arange(EXAMPLES)
    taken: list[Any] = list(
        itertools.islice(endless_batches((numbers, -numbers), examples=EXAMPLES, batch_size=size, seed=5), 100)
    )
    assert {len(x) for x, _ in taken} == {min(size, EXAMPLES)}
    order = np.concatenate([x for x, _ in taken])
    expected = np.concatenate([permutation(5, epoch, EXAMPLES) for epoch in range(len(order) // EXAMPLES + 1)])
    np.testing.assert_array_equal(order, expected[: len(order)])
    np.testing.assert_array_equal(np.concatenate([y for _, y in taken]), -order)


# --- the whole test


def test_the_curve_is_the_mean_of_three_sweeps_a_function_of_the_seed() -> None:
    told: list[tuple[int, int]] = []
    settings = configuration(optimizer={"type": "sgd", "momentum": 0.9})
    first = range_test(line(), settings, 7, Control(), lambda done, planned: told.append((done, planned)))
    assert first is not None
    assert range_test(line(), settings, 7, Control()) == first
    assert told == [(done, 300) for done in sorted(done for done, _ in told)]
    assert told[-1] == (300, 300)
    np.testing.assert_allclose(first.rates, sweep_rates()[: len(first.rates)], rtol=1e-12)
    assert RangeCurve.of(first.rates, [math.inf if loss is None else loss for loss in first.losses]) == first

    # The first losses are those of fresh models, whose weights no step has changed yet.
    own = []
    for number in range(3):
        seed = derive(7, "range_test", number)
        keras.utils.set_random_seed(seed)
        kernel, bias = compiled(line(), settings).get_weights()
        x, y = next(batches_of(line(), seed=seed))
        own.append(np.mean((x @ kernel + bias - y) ** 2))
    assert len(set(own)) == 3
    assert first.losses[0] == pytest.approx(np.mean(own), rel=1e-5)


def test_a_dropped_test_has_no_curve() -> None:
    control = Control()

    def drop_in_the_second_sweep(done: int, planned: int) -> None:
        if done == 105:
            control.drop()

    assert range_test(line(), configuration(), 7, control, drop_in_the_second_sweep) is None
