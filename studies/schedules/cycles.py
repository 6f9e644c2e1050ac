"""Schedules that rise before they fall: one cycle, and several."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from studies.parameters import Search
from studies.schedules.base import OpenLoop, Rates, Timeline
from studies.schedules.cosine import half_cosine
from studies.space import Choice, Range


class OneCycle(OpenLoop):
    """Rises to the base rate, then falls far below where it began.

    With p = pct_start: from eta0 / div to eta0 while u < p, with v = u / p; then down to eta0 / final_div, with
    v = (u - p) / (1 - p); u = s / T. From a to b: a + (b - a) v, or in half a cosine b + (a - b) (1 + cos(pi v)) / 2.
    First step eta0 / div; eta0 / final_div is reached at s = T, one past the last step.
    As in fastai both divide the peak; PyTorch's final_div_factor divides the first rate.
    """

    formula: ClassVar[str] = "eta0/div -> eta0 over pct_start of training, then -> eta0/final_div"
    source: ClassVar[str] = "Smith and Topin 2018, arXiv:1708.07120; fastai fit_one_cycle; PyTorch OneCycleLR"
    helps: ClassVar[str] = "Short trainings at a high peak rate (super-convergence); its own warm-up."
    pitfalls: ClassVar[str] = (
        "The peak must be found by a search or a range test. A warm-up in front of it rises to a rate that it "
        "leaves at once: keep `warmup` at 0. fastai also moves the momentum against the rate; this one does not."
    )

    type: Literal["one_cycle"] = "one_cycle"
    pct_start: Annotated[
        float,
        Field(gt=0, lt=1, description="the fraction of training in which the rate rises"),
        Search(Range(low=0.05, high=0.5)),
    ] = 0.3
    div: Annotated[
        float,
        Field(ge=1, le=1e12, description="the peak over the first rate"),
        Search(Range(low=5.0, high=100.0, log=True)),
    ] = 25.0
    final_div: Annotated[
        float,
        Field(ge=1, le=1e12, description="the peak over the last rate"),
        Search(Range(low=1e2, high=1e5, log=True)),
    ] = 1e4
    anneal: Annotated[
        Literal["cosine", "linear"],
        Field(description="the shape of rise and fall"),
        Search(Choice(values=("cosine", "linear"))),
    ] = "cosine"

    def rates(self, base_rate: float, timeline: Timeline) -> Rates:
        """See the class."""
        u = timeline.progress
        rise = self._between(1.0 / self.div, 1.0, np.clip(u / self.pct_start, 0.0, 1.0))
        fall = self._between(
            1.0, 1.0 / self.final_div, np.clip((u - self.pct_start) / (1.0 - self.pct_start), 0.0, 1.0)
        )
        return base_rate * np.where(u < self.pct_start, rise, fall)

    def _between(self, first: float, last: float, v: Rates) -> Rates:
        return last + (first - last) * (half_cosine(v) if self.anneal == "cosine" else 1.0 - v)


class Cyclical(OpenLoop):
    """Goes up and down between a low rate and the base rate, ending low.

    With w = cycles * u, i = floor(w), v = w - i, u = s / T, and low = 1 / span:
    eta = eta0 * (low + (1 - low) (1 - |2v - 1|) a), where a is 1 (triangular), 2^-i (triangular2) or
    final_ratio^u (exp_range).
    First step eta0 / span; eta0 / span is reached again at s = T, one past the last step.
    """

    formula: ClassVar[str] = "eta0 * (1/span + (1 - 1/span) * (1 - |2v - 1|) * a)"
    source: ClassVar[str] = "Smith 2017, arXiv:1506.01186 (cyclical learning rates)"
    helps: ClassVar[str] = "Where a good rate is not known: every cycle passes through a whole range of rates."
    pitfalls: ClassVar[str] = (
        "A training must end at a trough, or the last epochs are spent at a high rate; here it always does."
    )

    type: Literal["cyclical"] = "cyclical"
    cycles: Annotated[
        int,
        Field(ge=1, le=1000, description="how many cycles there are in a training"),
        Search(Range(low=1, high=8, integer=True)),
    ] = 4
    span: Annotated[
        float,
        Field(gt=1, le=1e12, description="the highest rate over the lowest; the highest is the base rate"),
        Search(Range(low=3.0, high=100.0, log=True)),
    ] = 10.0
    mode: Annotated[
        Literal["triangular", "triangular2", "exp_range"],
        Field(description="equal peaks, peaks that halve, or peaks that fall evenly to final_ratio"),
        Search(Choice(values=("triangular", "triangular2", "exp_range"))),
    ] = "triangular"
    final_ratio: float = Field(
        default=0.1, gt=0, le=1, description="in exp_range: what is left of a peak at the end of training"
    )

    def rates(self, base_rate: float, timeline: Timeline) -> Rates:
        """See the class."""
        u = timeline.progress
        cycled = np.minimum(timeline.step, timeline.total) * self.cycles
        cycle, within = np.divmod(cycled, timeline.total)
        triangle = 1.0 - np.abs(2.0 * within / timeline.total - 1.0)
        height: Rates = np.ones_like(u)
        if self.mode == "triangular2":
            height = 0.5**cycle
        elif self.mode == "exp_range":
            height = self.final_ratio**u
        low = 1.0 / self.span
        return base_rate * (low + (1.0 - low) * triangle * height)
