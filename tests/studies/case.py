"""What an entry of the table of formulas is made of."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal

from hypothesis import strategies as st

from studies.space import Value

Ratio = Callable[[int, int, int], float]
"""(step after the warm-up, number of such steps, steps per epoch) -> what the schedule makes of the base rate."""


@dataclass(frozen=True)
class Case:
    """One type: `formula(**parameters)` is its curve.

    first, at_end: the rates that the documents promise at step 0 and one past the last step, as fractions of
    the base rate. parameters: what to try. trained: parameters that models are trained with. highest: the
    greatest rate that it may reach. past_the_end: whether the rate stays there, falls on, or does neither.
    """

    formula: Callable[..., Ratio]
    at_end: Callable[..., float]
    parameters: dict[str, st.SearchStrategy[Any]]
    trained: tuple[dict[str, Value], ...] = ({},)
    first: Callable[..., float] = field(default=lambda **_: 1.0)
    highest: Callable[..., float] = field(default=lambda **_: 1.0)
    past_the_end: Literal["stays", "falls", "neither"] = "stays"


def progress(step: int, total: int) -> float:
    """u: 0 at the first step, 1 one past the last and ever after."""
    return min(step / total, 1.0)


def decimal(number: float) -> Fraction:
    """The number that was meant: 0.3 is three tenths."""
    return Fraction(str(number))


def half_wave(v: float) -> float:
    """(1 + cos pi v)/2 for v in [0, 1], as cos^2(pi v/2)."""
    return math.cos(math.pi / 2 * v) ** 2 if v < 1 else 0.0


def tidy(low: float, high: float) -> st.SearchStrategy[float]:
    """Thousandths: fractions of a training that meet whole steps."""
    return st.integers(math.ceil(low * 1000), math.floor(high * 1000)).map(lambda n: n / 1000)


def over_decades(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(math.log(low), math.log(high)).map(lambda x: min(max(math.exp(x), low), high))


ALPHA = st.one_of(st.sampled_from([0.0, 1e-4, 0.01, 1.0]), st.floats(0, 1))
STAIRS = st.one_of(st.just(0), st.integers(1, 60), st.just(1000))
