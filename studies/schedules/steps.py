"""Schedules that stand still between drops: step, piecewise constant."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from studies.parameters import Search
from studies.schedules.base import OpenLoop, Rates, Timeline
from studies.space import Choice, Range


class Step(OpenLoop):
    """Drops the rate by a factor at equally spaced epochs.

    eta(e) = eta0 * factor^floor(e / k), where e is the epoch and k = every, or, where that is 0,
    k = E / (drops + 1) with E the number of epochs; after a warm-up both count from its end. The rate
    changes only where such an epoch begins, never in epoch 0.
    First epoch eta0; last epoch eta0 * factor^drops (if there are more epochs than drops), or
    eta0 * factor^floor((E - 1) / every).
    """

    formula: ClassVar[str] = "eta0 * factor^floor(e / k), k = every or E/(drops + 1)"
    source: ClassVar[str] = "He et al. 2016, arXiv:1512.03385 (divides the rate by 10 twice)"
    helps: ClassVar[str] = "The classic of image classification: long stretches at a high rate, then a sharp fall."
    pitfalls: ClassVar[str] = (
        "Published versions drop in epoch 0 already (e % k == 0), or an epoch early (floor((1 + e)/k)), or multiply "
        "the optimizer's rate in place, so that drops compound. Where to drop must be found for each task."
    )

    type: Literal["step"] = "step"
    factor: Annotated[
        float,
        Field(gt=0, lt=1, description="what each drop multiplies the rate by"),
        Search(Choice(values=(0.1, 0.2, 0.25, 0.5))),
    ] = 0.1
    drops: Annotated[
        int,
        Field(ge=1, le=1000, description="how many drops there are in a training; not used if `every` is given"),
        Search(Range(low=1, high=6, integer=True)),
    ] = 2
    every: int = Field(default=0, ge=0, le=1_000_000, description="epochs from drop to drop; 0: as `drops` says")

    def rates(self, base_rate: float, timeline: Timeline) -> Rates:
        """See the class."""
        if self.every:
            drops = timeline.epoch // self.every
        else:
            epoch_start = timeline.epoch * timeline.steps_per_epoch
            drops = np.clip(epoch_start * (self.drops + 1) // timeline.total, 0, self.drops)
        return base_rate * self.factor ** drops.astype(np.float64)


_Break = Annotated[
    float,
    Field(gt=0, lt=1, description="where this boundary is, as a fraction of the way from the one before to the end"),
    Search(Range(low=0.1, high=0.9)),
]
_Ratio = Annotated[
    float,
    Field(gt=0, le=1, description="the rate after this boundary, as a fraction of the one before it"),
    Search(Range(low=0.05, high=1.0, log=True)),
]


class PiecewiseConstant(OpenLoop):
    """Steps down at boundaries of one's own: up to four, each with its own factor.

    eta(s) = eta0 * ratio_1 * ... * ratio_m, where m of the boundaries B_1 < B_2 < ... lie before s (s > B_i: at
    a boundary the old value still holds, as in Keras). Boundaries come by stick-breaking, so that every
    point of the search space is in order: B_1 = break_1 * T, B_i = B_(i-1) + break_i * (T - B_(i-1)).
    First step eta0; the last step has the ratios of all boundaries before it.
    """

    formula: ClassVar[str] = "eta0 * product of ratio_i over the boundaries i with s > B_i"
    source: ClassVar[str] = "tf.train.piecewise_constant; keras PiecewiseConstantDecay"
    helps: ClassVar[str] = "Where the places of the drops matter and may be searched, or are known from a paper."
    pitfalls: ClassVar[str] = (
        "Keras' boundary is inclusive: the step of that number still has the old rate, which few expect. "
        "Boundaries count steps, not epochs. With fewer boundaries than four the other breaks and ratios do nothing."
    )

    type: Literal["piecewise_constant"] = "piecewise_constant"
    boundaries: Annotated[
        int,
        Field(ge=1, le=4, description="how many boundaries there are"),
        Search(Range(low=1, high=4, integer=True)),
    ] = 2
    break_1: _Break = 0.5
    break_2: _Break = 0.5
    break_3: _Break = 0.5
    break_4: _Break = 0.5
    ratio_1: _Ratio = 0.1
    ratio_2: _Ratio = 0.1
    ratio_3: _Ratio = 0.1
    ratio_4: _Ratio = 0.1

    def rates(self, base_rate: float, timeline: Timeline) -> Rates:
        """See the class."""
        breaks = (self.break_1, self.break_2, self.break_3, self.break_4)[: self.boundaries]
        ratios = (self.ratio_1, self.ratio_2, self.ratio_3, self.ratio_4)[: self.boundaries]
        rates = np.full(timeline.step.shape, base_rate, dtype=np.float64)
        boundary = 0.0
        for fraction, ratio in zip(breaks, ratios, strict=True):
            boundary += fraction * (1.0 - boundary)
            last_before = boundary * timeline.total * (1.0 + _ROUNDING)
            rates = np.where(timeline.step > last_before, rates * ratio, rates)
        return rates


_ROUNDING = 1e-12
"""A step within this fraction of its own number past a boundary is at the boundary: 0.3 of 10 steps are 3."""
