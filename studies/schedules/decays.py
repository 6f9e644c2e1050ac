"""The classic decays: step, exponential, inverse time."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from studies.parameters import Search
from studies.schedules.base import OpenLoop, Rates, Stairs, Timeline
from studies.space import Choice, Range


class Step(OpenLoop):
    """Drops the rate by a factor at equally spaced epochs.

    eta(e) = eta0 * factor^floor(e / k) with k = E / (drops + 1), where e is the epoch and E the number
    of epochs; after a warm-up both count from its end. The rate changes only where such an epoch begins.
    First epoch eta0, last epoch eta0 * factor^drops (if there are more epochs than drops).
    Source: He et al. 2016 (ResNet divides the rate by 10 twice).
    """

    formula: ClassVar[str] = "eta0 * factor^floor(e * (drops + 1) / E)"
    source: ClassVar[str] = "He et al. 2016, arXiv:1512.03385"

    type: Literal["step"] = "step"
    factor: Annotated[
        float,
        Field(gt=0, lt=1, description="what each drop multiplies the rate by"),
        Search(Choice(values=(0.1, 0.2, 0.25, 0.5))),
    ] = 0.1
    drops: Annotated[
        int,
        Field(ge=1, le=1000, description="how many drops there are in a training"),
        Search(Range(low=1, high=6, integer=True)),
    ] = 2

    def rates(self, base_rate: float, timeline: Timeline) -> Rates:
        """See the class."""
        epoch_start = timeline.step // timeline.steps_per_epoch * timeline.steps_per_epoch
        drops = np.clip(epoch_start * (self.drops + 1) // timeline.total, 0, self.drops)
        return base_rate * self.factor ** drops.astype(np.float64)


class Exponential(OpenLoop):
    """Multiplies the rate by the same factor at every step, or at every stair.

    eta(s) = eta0 * final_ratio^u, u = s / T; with stairs n: u = floor(n s / T) / n.
    First step eta0; eta0 * final_ratio is reached at s = T, one past the last step.
    In the terms of Keras' ExponentialDecay: decay_steps T and decay_rate final_ratio, or with stairs
    decay_steps T / n and decay_rate final_ratio^(1/n).
    """

    formula: ClassVar[str] = "eta0 * final_ratio^(s/T), or in stairs eta0 * final_ratio^(floor(n*s/T)/n)"
    source: ClassVar[str] = "tf.train.exponential_decay; keras ExponentialDecay"

    type: Literal["exponential"] = "exponential"
    final_ratio: Annotated[
        float,
        Field(gt=0, le=1, description="the rate at the end of training, as a fraction of the base rate"),
        Search(Range(low=1e-4, high=0.5, log=True)),
    ] = 0.01
    stairs: Annotated[Stairs, Search(Choice(values=(0, 3, 5, 10, 20)))] = 0

    def rates(self, base_rate: float, timeline: Timeline) -> Rates:
        """See the class."""
        return base_rate * self.final_ratio ** timeline.stairs(self.stairs)


class InverseTime(OpenLoop):
    """Divides the rate by a number that grows linearly with the step.

    eta(s) = eta0 / (1 + kappa u), u = s / T; with stairs n: u = floor(n s / T) / n.
    First step eta0; eta0 / (1 + kappa) is reached at s = T, one past the last step.
    In the terms of Keras' InverseTimeDecay: decay_steps T and decay_rate kappa, or with stairs
    decay_steps T / n and decay_rate kappa / n.
    """

    formula: ClassVar[str] = "eta0 / (1 + kappa*s/T), or in stairs eta0 / (1 + kappa*floor(n*s/T)/n)"
    source: ClassVar[str] = "Robbins and Monro 1951; tf.train.inverse_time_decay; keras InverseTimeDecay"

    type: Literal["inverse_time"] = "inverse_time"
    kappa: Annotated[
        float,
        Field(gt=0, description="how often the rate is divided: 1 + kappa at the end of training"),
        Search(Range(low=0.1, high=1000.0, log=True)),
    ] = 10.0
    stairs: Annotated[Stairs, Search(Choice(values=(0, 3, 5, 10, 20)))] = 0

    def rates(self, base_rate: float, timeline: Timeline) -> Rates:
        """See the class."""
        return base_rate / (1.0 + self.kappa * timeline.stairs(self.stairs))
