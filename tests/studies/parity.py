"""Random trainings, as another library and as we compute their rates, up to their end and past it.

The other library is asked in float64 where it takes that: in float32 it is off near zero by more than ours
(Keras' cosine by 1e-5 relative, TensorFlow 1's by 1.5e-4).
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from studies.schedules.table import rate_table, rates_at
from tests.studies.curves import open_loop

STEPS_PER_EPOCH = 7


def double(number: float) -> Any:
    """As float64: a plain float would become a float32 over there."""
    return tf.constant(number, tf.float64)


@dataclass
class Training:
    """A base rate and a number of steps; `rng` gives the parameters.

    Rates are compared beyond the last step, too, to 1.5 times the training and at a few steps far out.
    """

    rng: random.Random
    base: float
    steps: int

    @property
    def lr(self) -> Any:
        return double(self.base)

    @property
    def at(self) -> NDArray[np.int64]:
        """The steps at which rates are compared."""
        end = self.steps + self.steps // 2 + 2
        return np.array([*range(end), 2 * self.steps, 3 * self.steps + 1, 10 * self.steps])

    @cached_property
    def s(self) -> Any:
        return tf.constant(self.at, tf.float64)

    @cached_property
    def single(self) -> Any:
        return tf.constant(self.at, tf.float32)

    def assert_same(self, theirs: Any, name: str, *, where: Any = True, **parameters: Any) -> None:
        """Within 1e-6 of the base rate at every step (or only where the other's rounding does not decide)."""
        schedule, theirs = open_loop(name, **parameters), np.asarray(theirs)
        assert theirs.shape == self.at.shape
        compared = np.broadcast_to(where, self.at.shape)
        ours = rates_at(schedule, self.base, self.at, warmup=0.0, steps=self.steps, steps_per_epoch=STEPS_PER_EPOCH)
        message, tolerance = f"{self}, {name} {parameters}", 1e-6 * self.base
        np.testing.assert_allclose(ours[compared], theirs[compared], rtol=0, atol=tolerance, err_msg=message)
        table = rate_table(schedule, self.base, warmup=0.0, steps=self.steps, steps_per_epoch=STEPS_PER_EPOCH)
        within = compared[: self.steps]
        np.testing.assert_allclose(table[within], theirs[: self.steps][within], rtol=0, atol=tolerance, err_msg=message)


def trainings(seed: int, *, longest: int = 500) -> Iterator[Training]:
    """50 random trainings."""
    rng = random.Random(seed)
    for _ in range(50):
        yield Training(rng, 10 ** rng.uniform(-5, 0.5), rng.randint(2, longest))


# --- parameters


def some_alpha(rng: random.Random) -> float:
    return rng.choice([0.0, 1.0, 10 ** rng.uniform(-4, -1)])


def stairs_off_the_steps(training: Training) -> int:
    """A number of stairs whose boundaries fall on no whole step of the training: there the other's rounding decides."""
    return training.rng.choice([n for n in range(2, 30) if math.gcd(n, training.steps) == 1])


def off_the_stairs(training: Training, stairs: int) -> NDArray[np.bool_]:
    """The steps at which no stair begins; at the end of the training one always does."""
    begins: NDArray[np.bool_] = training.at * stairs % training.steps == 0
    return ~begins | (training.at == 0)


def off_the_restarts(training: Training, first: float, t_mul: float) -> NDArray[np.bool_]:
    """The steps that are no restart, of cycles of `first` steps, then t_mul times as many, and so on."""
    off = np.full(training.at.shape, True)
    restart, length = first, first
    while restart <= training.at.max() + 1:
        off &= np.abs(training.at - restart) > 1e-6 * restart
        length *= t_mul
        restart += length
    return off


def some_pieces(rng: random.Random) -> tuple[list[float], dict[str, Any]]:
    """Boundaries of a piecewise constant as fractions of the training, and our parameters for them."""
    count = rng.randint(1, 4)
    ends = sorted(rng.uniform(0.01, 0.99) for _ in range(count))
    breaks = [(end - before) / (1 - before) for before, end in zip([0.0, *ends], ends, strict=False)]
    parameters: dict[str, Any] = {"boundaries": count}
    for i, fraction in enumerate(breaks, 1):
        parameters |= {f"break_{i}": fraction, f"ratio_{i}": rng.uniform(0.05, 1)}
    return ends, parameters


def piece_values(base: float, parameters: dict[str, Any]) -> list[float]:
    """The rates of the pieces, from the first to the last."""
    values = [base]
    for i in range(1, parameters["boundaries"] + 1):
        values.append(values[-1] * parameters[f"ratio_{i}"])
    return values


def some_restarts(training: Training) -> tuple[float, dict[str, Any]]:
    """The length of the first cycle and the other parameters; the training grows until no restart is on a step."""
    rng = training.rng
    t_mul, cycles = rng.choice([1.0, 1.5, 2.0, 3.0]), rng.randint(1, 5)
    lengths = [t_mul**cycle for cycle in range(cycles)]

    def on_a_whole_step(restart: float) -> bool:
        return abs(restart - round(restart)) < 1e-6

    while any(on_a_whole_step(training.steps * sum(lengths[:n]) / sum(lengths)) for n in range(1, cycles)):
        training.steps += 1
    shape = {"cycles": cycles, "t_mul": t_mul, "m_mul": rng.uniform(0.3, 1.0), "alpha": some_alpha(rng)}
    return training.steps / sum(lengths), shape
