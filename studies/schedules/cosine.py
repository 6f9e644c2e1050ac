"""Cosine annealing, once or with warm restarts."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from studies.parameters import Search
from studies.schedules.base import Alpha, OpenLoop, Rates, Timeline
from studies.space import Choice, Range


class Cosine(OpenLoop):
    """Half a cosine from the base rate to the floor.

    eta(s) = eta0 * ((1 - alpha) (1 + cos(pi u)) / 2 + alpha), u = s / T.
    First step eta0; eta0 * alpha is reached at s = T, one past the last step.
    """

    formula: ClassVar[str] = "eta0 * ((1 - alpha) * (1 + cos(pi*s/T))/2 + alpha)"
    source: ClassVar[str] = "Loshchilov and Hutter 2017, arXiv:1608.03983; keras CosineDecay"

    type: Literal["cosine"] = "cosine"
    alpha: Alpha = 0.0

    def rates(self, base_rate: float, timeline: Timeline) -> Rates:
        """See the class."""
        wave = 0.5 * (1.0 + np.cos(np.pi * timeline.progress))
        return base_rate * ((1.0 - self.alpha) * wave + self.alpha)


class CosineRestarts(OpenLoop):
    """Cosine annealing with warm restarts (SGDR), cycles fitted so that training ends with one.

    Cycle i has length T0 * t_mul^i and peak eta0 * m_mul^i, where T0 is such that the `cycles` lengths
    add up to T. Within a cycle, v from 0 to 1:
    eta = eta0 * ((1 - alpha) m_mul^i (1 + cos(pi v)) / 2 + alpha).
    First step eta0; the last cycle's floor eta0 * alpha is reached at s = T, one past the last step.
    """

    formula: ClassVar[str] = "eta0 * ((1 - alpha) * m_mul^i * (1 + cos(pi*v))/2 + alpha) in cycle i"
    source: ClassVar[str] = "Loshchilov and Hutter 2017, arXiv:1608.03983; keras CosineDecayRestarts"

    type: Literal["cosine_restarts"] = "cosine_restarts"
    cycles: Annotated[
        int,
        Field(ge=1, le=100, description="how many cycles there are in a training; 1 is cosine"),
        Search(Range(low=1, high=5, integer=True)),
    ] = 3
    t_mul: Annotated[
        float,
        Field(ge=1, le=10, description="how much longer each cycle is than the one before"),
        Search(Choice(values=(1.0, 1.5, 2.0, 3.0))),
    ] = 2.0
    m_mul: Annotated[
        float,
        Field(gt=0, le=1, description="each cycle's peak, as a fraction of the peak before"),
        Search(Range(low=0.3, high=1.0)),
    ] = 1.0
    alpha: Alpha = 0.0

    def rates(self, base_rate: float, timeline: Timeline) -> Rates:
        """See the class."""
        lengths = self.t_mul ** np.arange(self.cycles, dtype=np.float64)
        ends = np.cumsum(lengths) / lengths.sum()
        ends[-1] = 1.0
        starts = np.concatenate(([0.0], ends[:-1]))
        u = timeline.progress
        cycle = np.minimum(np.searchsorted(ends, u * (1.0 + _BOUNDARY), side="right"), self.cycles - 1)
        v = np.clip((u - starts[cycle]) / (ends[cycle] - starts[cycle]), 0.0, 1.0)
        wave = 0.5 * (1.0 + np.cos(np.pi * v))
        peak: Rates = np.float64(self.m_mul) ** cycle
        rates: Rates = base_rate * ((1.0 - self.alpha) * peak * wave + self.alpha)
        return rates


_BOUNDARY = 1e-12
"""A step within this fraction of its own number before a restart is at the restart: rounding must not delay it."""
