"""Cosine annealing: once, with warm restarts, or on a line that falls, with or without noise."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from studies.parameters import Search
from studies.schedules.base import Alpha, OpenLoop, Rates, Timeline
from studies.space import Choice, Range

Periods = Annotated[
    float,
    Field(gt=0, le=1000, description="how many waves there are in a training"),
    Search(Choice(values=(0.5, 1.5, 2.5))),
]
LineAlpha = Annotated[float, Field(ge=0, le=1, description="what the falling line is raised by")]
Beta = Annotated[
    float,
    Field(ge=0, le=1, description="what is added to every rate, as a fraction of the base rate"),
    Search(Range(low=1e-4, high=0.1, log=True)),
]


def half_cosine(v: Rates) -> Rates:
    """(1 + cos(pi v)) / 2: from 1 at v = 0 to 0 at v = 1."""
    wave: Rates = 0.5 * (1.0 + np.cos(np.pi * v))
    return wave


class Cosine(OpenLoop):
    """Half a cosine from the base rate to the floor.

    eta(s) = eta0 * ((1 - alpha) ((1 + cos(pi u)) / 2)^power + alpha), u = s / T.
    First step eta0; eta0 * alpha is reached at s = T, one past the last step.
    """

    formula: ClassVar[str] = "eta0 * ((1 - alpha) * ((1 + cos(pi*s/T))/2)^power + alpha)"
    source: ClassVar[str] = "Loshchilov and Hutter 2017, arXiv:1608.03983; keras CosineDecay"
    helps: ClassVar[str] = "Stays high for long and ends gently; no parameter needs tuning but the base rate."
    pitfalls: ClassVar[str] = (
        "The length of training must be known: a cosine cut off before its end, or one that goes past it, is worse "
        "than one that was made for that length."
    )

    type: Literal["cosine"] = "cosine"
    alpha: Alpha = 0.0
    power: float = Field(
        default=1.0, gt=0, le=100, description="of the wave: 1 is the plain cosine; 0.3 to 4 is worth a search"
    )

    def rates(self, base_rate: float, timeline: Timeline) -> Rates:
        """See the class."""
        wave = half_cosine(timeline.progress) ** self.power
        return base_rate * ((1.0 - self.alpha) * wave + self.alpha)


class CosineRestarts(OpenLoop):
    """Cosine annealing with warm restarts (SGDR), cycles fitted so that training ends with one.

    Cycle i has length T0 * t_mul^i and peak eta0 * m_mul^i, where T0 is such that the `cycles` lengths
    add up to T. Within a cycle, v from 0 to 1:
    eta = eta0 * ((1 - alpha) m_mul^i (1 + cos(pi v)) / 2 + alpha).
    First step eta0; the last cycle's floor eta0 * alpha is neared at the last step. At s = T, past the end, the next
    cycle would begin, as in Keras.
    """

    formula: ClassVar[str] = "eta0 * ((1 - alpha) * m_mul^i * (1 + cos(pi*v))/2 + alpha) in cycle i"
    source: ClassVar[str] = "Loshchilov and Hutter 2017, arXiv:1608.03983; keras CosineDecayRestarts"
    helps: ClassVar[str] = "Several good snapshots in one training, and an escape from a poor minimum at each restart."
    pitfalls: ClassVar[str] = (
        "A training that ends in the middle of a cycle is ruined by the last restart; Keras' class takes the first "
        "cycle's length in steps and leaves that to chance. Here the cycles are fitted to the training."
    )

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
        x = timeline.elapsed
        ends = self._ends(float(x.max(initial=0.0)))
        starts = np.concatenate(([0.0], ends[:-1]))
        cycle = np.searchsorted(ends, x * (1.0 + _BOUNDARY), side="right")
        v = np.clip((x - starts[cycle]) / (ends[cycle] - starts[cycle]), 0.0, 1.0)
        wave = half_cosine(v)
        peak: Rates = np.float64(self.m_mul) ** cycle
        rates: Rates = base_rate * ((1.0 - self.alpha) * peak * wave + self.alpha)
        return rates

    def _ends(self, last: float) -> Rates:
        """Where each cycle ends, as x: those of the training, the last of them 1, and on until one is past `last`."""
        lengths = self.t_mul ** np.arange(self.cycles, dtype=np.float64)
        length = lengths / lengths.sum()
        ends = np.cumsum(length)
        ends[-1] = 1.0
        further, end, next_length = [], 1.0, float(length[-1])
        while end <= last * (1.0 + _BOUNDARY):
            next_length *= self.t_mul
            end += next_length
            further.append(end)
        return np.concatenate((ends, further))


_BOUNDARY = 1e-12
"""A step within this fraction of its own number before a restart is at the restart: rounding must not delay it."""


class LinearCosine(OpenLoop):
    """A cosine wave on a falling line.

    eta(s) = eta0 * ((alpha + 1 - u) (1 + cos(2 pi periods u)) / 2 + beta), u = s / T.
    First step eta0 * (1 + alpha + beta), a little above the base rate; with half a period and alpha 0, eta0 * beta
    is reached at s = T, one past the last step; in general eta0 * (alpha (1 + cos(2 pi periods)) / 2 + beta).
    """

    formula: ClassVar[str] = "eta0 * ((alpha + 1 - s/T) * (1 + cos(2*pi*periods*s/T))/2 + beta)"
    source: ClassVar[str] = "Bello et al. 2017, arXiv:1709.07417; tf.train.linear_cosine_decay; not in Keras 3"
    helps: ClassVar[str] = (
        "A cosine that falls faster; with more than one period the rate rises again, less high each time. It comes "
        "from a search over update rules by a program."
    )
    pitfalls: ClassVar[str] = (
        "The first rate is above the base rate, by alpha + beta of it. With alpha above 0, whole periods end at "
        "alpha + beta and half ones at beta."
    )

    type: Literal["linear_cosine"] = "linear_cosine"
    periods: Periods = 0.5
    alpha: LineAlpha = 0.0
    beta: Beta = 0.001

    def rates(self, base_rate: float, timeline: Timeline) -> Rates:
        """See the class."""
        u = timeline.progress
        return base_rate * ((self.alpha + 1.0 - u) * half_cosine(2.0 * self.periods * u) + self.beta)


class NoisyLinearCosine(OpenLoop):
    """linear_cosine with noise on the line, less of it with every step.

    eta(s) = eta0 * max(0, (alpha + 1 - u + eps) (1 + cos(2 pi periods u)) / 2 + beta), u = s / T, where eps is normal
    with mean 0 and variance initial_variance / (1 + s)^variance_decay, drawn anew at each step from the
    trial's seed. The first rate is random; after the end the variance stays.
    """

    formula: ClassVar[str] = "eta0 * max(0, (alpha + 1 - s/T + eps) * (1 + cos(2*pi*periods*s/T))/2 + beta)"
    source: ClassVar[str] = "Bello et al. 2017, arXiv:1709.07417; tf.train.noisy_linear_cosine_decay; not in Keras 3"
    helps: ClassVar[str] = (
        "Noise in the rate may lead out of poor minima; compare it with linear_cosine, which is the same without."
    )
    pitfalls: ClassVar[str] = (
        "With TensorFlow's defaults the first rates are far off, some below zero; here they are clipped at 0. "
        "Each seed has another curve."
    )

    type: Literal["noisy_linear_cosine"] = "noisy_linear_cosine"
    periods: Periods = 0.5
    alpha: LineAlpha = 0.0
    beta: Beta = 0.001
    initial_variance: Annotated[
        float,
        Field(ge=0, le=10, description="of the noise at the first step"),
        Search(Range(low=1e-3, high=1.0, log=True)),
    ] = 1.0
    variance_decay: Annotated[
        float,
        Field(ge=0, le=10, description="the power of the step by which the variance falls"),
        Search(Range(low=0.3, high=1.0)),
    ] = 0.55

    def rates(self, base_rate: float, timeline: Timeline) -> Rates:
        """See the class."""
        u = timeline.progress
        spread = np.sqrt(
            self.initial_variance / (1.0 + np.minimum(timeline.step, timeline.total)) ** self.variance_decay
        )
        line = self.alpha + 1.0 - u + spread * _noise(timeline)
        return base_rate * np.maximum(line * half_cosine(2.0 * self.periods * u) + self.beta, 0.0)


def _noise(timeline: Timeline) -> Rates:
    """Standard normal noise, a function of (seed, step): float64, the shape of `timeline.step`."""
    length = int(timeline.step.max(initial=0)) + 1
    return np.random.default_rng(timeline.seed).standard_normal(length)[timeline.step]
