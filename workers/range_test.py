"""The learning-rate range test in Keras: train for a moment while the rate rises, note every batch's loss."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from studies.configuration import Configuration
from studies.range_test import BATCHES, Floats, RangeCurve, sweep_rates
from studies.seeds import derive, permutation
from workers.compiling import compiled
from workers.control import Control
from workers.tasks.problem import Data, Problem, take

SWEEPS = 3
"""Sweeps that a range test averages: with one alone, a range missed the best base rate a little more often."""

Progress = Callable[[int, int], None]
"""Told how many batches of how many are done."""


def range_test(
    problem: Problem,
    configuration: Configuration,
    seed: int,
    control: Control,
    progress: Progress = lambda done, planned: None,
) -> RangeCurve | None:
    """The mean of three sweeps over a problem's own model, smoothed; None if the test was told to end.

    Each sweep has a fresh model and an order of the examples of its own, both from the seed. The optimizer
    and the batch size are the configuration's; its schedule, base rate and warm-up play no part.
    A loss of the curve is the mean of the three models' losses on their batches at that rate.
    """
    rates = sweep_rates(BATCHES)
    sweeps: list[list[float]] = []
    for number in range(SWEEPS):
        sweep_seed = derive(seed, "range_test", number)
        keras.utils.set_random_seed(sweep_seed)
        model = compiled(problem, configuration)
        batches = endless_batches(
            problem.train, examples=problem.examples, batch_size=configuration.batch_size, seed=sweep_seed
        )
        done = number * BATCHES
        losses = sweep(model, _told(batches, done, progress), rates, control)
        if losses is None:
            return None
        # What lies beyond a loss that is not finite is not asked of the next one.
        rates = rates[: len(losses)]
        sweeps.append(losses)
    progress(SWEEPS * BATCHES, SWEEPS * BATCHES)
    return RangeCurve.of(rates.tolist(), np.mean([losses[: len(rates)] for losses in sweeps], axis=0).tolist())


def sweep(model: Any, batches: Iterator[Data], rates: Floats, control: Control) -> list[float] | None:
    """Train a compiled model for one batch at each rate: the loss of every batch, before its step.

    Ends with the first loss that is not finite; None if it was told to end. Weights, seeds, the
    optimizer's slots, its `iterations` and its rate are afterwards what they were.
    Raises ValueError if the model has no weights yet, or its optimizer holds a schedule.
    """
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    if not isinstance(optimizer.learning_rate, keras.Variable):
        raise ValueError(
            "a range test assigns the rate, and this optimizer already holds a schedule: "
            "compile the model with a float as its learning_rate"
        )
    if not model.built:
        raise ValueError(
            "a range test puts the weights back, and this model has none yet: call it on some inputs first"
        )
    losses: list[float] = []
    with restored(model):
        for rate, batch in zip(rates, batches, strict=False):
            if control.wish is not None:
                return None
            x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
            # Through the model each time: on the JAX backend other references are silently ignored.
            model.optimizer.learning_rate = float(rate)
            # Keras resets its metrics before each of these calls, so that the loss is the batch's own.
            logs = model.train_on_batch(x, y, sample_weight=sample_weight, return_dict=True)
            losses.append(float(logs["loss"]))
            control.batch_ended()
            if not math.isfinite(losses[-1]):
                break
    return losses


@contextlib.contextmanager
def restored(model: Any) -> Iterator[None]:
    """Put every variable of a built model and of its optimizer back at the end, whatever happens."""
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    variables = [*model.variables, *model.optimizer.variables]
    # Copies: on the JAX backend the next step may take over the memory that is looked at here.
    values = [np.array(variable.numpy()) for variable in variables]
    try:
        yield
    finally:
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        model.reset_metrics()


def endless_batches(data: Data, *, examples: int, batch_size: int, seed: int) -> Iterator[Data]:
    """Batches without end, all of one size: the shuffled examples of epoch after epoch, one after another.

    A batch may hold the end of one epoch and the beginning of the next. The size is `batch_size`, or the
    number of examples where that is less. Epoch e has the order `studies.seeds.permutation(seed, e)`.
    """
    size = min(batch_size, examples)
    rows = np.zeros(0, dtype=np.int64)
    for epoch in itertools.count():
        rows = np.concatenate([rows, permutation(seed, epoch, examples)])
        while len(rows) >= size:
            yield take(data, rows[:size])
            rows = rows[size:]


def _told(batches: Iterator[Data], done: int, progress: Progress) -> Iterator[Data]:
    """The batches, telling of each when it is asked for; `done` is how many went before."""
    for number, batch in enumerate(batches, start=done):
        progress(number, SWEEPS * BATCHES)
        yield batch
