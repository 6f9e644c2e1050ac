"""Schedules that hold the base rate, then fall."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from studies.parameters import Search
from studies.schedules.base import Alpha, OpenLoop, Rates, Timeline
from studies.schedules.cosine import half_cosine
from studies.space import Choice, Range


class WarmupStableDecay(OpenLoop):
    """Holds the base rate and cools down in the last part of training; with `warmup`, warmup-stable-decay.

    With c = cooldown: eta0 while u < 1 - c; then v = (u - (1 - c)) / c and
    eta = eta0 * ((1 - alpha) f(v) + alpha), where f is 1 - v (linear), 1 - sqrt(v) (1-sqrt) or
    (1 + cos(pi v)) / 2 (cosine); u = s / T.
    First step eta0; eta0 * alpha is reached at s = T, one past the last step.
    """

    formula: ClassVar[str] = "eta0 while u < 1 - cooldown, then eta0 * ((1 - alpha) * f(v) + alpha)"
    source: ClassVar[str] = "Hu et al. 2024, arXiv:2404.06395 (MiniCPM); Hägele et al. 2024, arXiv:2405.18392 (1-sqrt)"
    helps: ClassVar[str] = (
        "As good as a cosine where tuned, and the length of training may be decided late: cool down when it is time."
    )
    pitfalls: ClassVar[str] = (
        "The warm-up is not part of it: set `warmup`. Too short a cool-down leaves most of the gain behind."
    )

    type: Literal["wsd"] = "wsd"
    cooldown: Annotated[
        float,
        Field(gt=0, le=1, description="the fraction of training in which the rate falls"),
        Search(Range(low=0.05, high=0.5)),
    ] = 0.2
    shape: Literal["linear", "1-sqrt", "cosine"] = Field(default="1-sqrt", description="how it falls")
    alpha: Alpha = 0.0

    def rates(self, base_rate: float, timeline: Timeline) -> Rates:
        """See the class."""
        v = np.clip((timeline.progress - (1.0 - self.cooldown)) / self.cooldown, 0.0, 1.0)
        shapes = {"linear": lambda: 1.0 - v, "1-sqrt": lambda: 1.0 - np.sqrt(v), "cosine": lambda: half_cosine(v)}
        return base_rate * ((1.0 - self.alpha) * shapes[self.shape]() + self.alpha)


class HoldThenDecay(OpenLoop):
    """Holds the base rate for a part of training, then decays to the floor: "knee", "flat-cos".

    eta0 while u < hold; then v = (u - hold) / (1 - hold) and eta = eta0 * f(v), where f is alpha^v (exponential),
    1 - (1 - alpha) v (linear) or alpha + (1 - alpha) (1 + cos(pi v)) / 2 (cosine); u = s / T.
    First step eta0; eta0 * alpha is reached at s = T, one past the last step.
    """

    formula: ClassVar[str] = "eta0 while u < hold, then eta0 * f(v) down to eta0 * alpha"
    source: ClassVar[str] = "fastai fit_flat_cos; Iyer et al. 2020, arXiv:2003.03977 (knee schedule)"
    helps: ClassVar[str] = "A long search at a high rate for a wide minimum, then a descent into it."
    pitfalls: ClassVar[str] = "alpha must be above zero in every shape, since an exponential never reaches zero."

    type: Literal["hold_then_decay"] = "hold_then_decay"
    hold: Annotated[
        float,
        Field(ge=0, le=0.99, description="the fraction of training at the base rate"),
        Search(Range(low=0.0, high=0.9)),
    ] = 0.5
    shape: Annotated[
        Literal["exponential", "linear", "cosine"],
        Field(description="how it falls"),
        Search(Choice(values=("exponential", "linear", "cosine"))),
    ] = "cosine"
    alpha: Annotated[
        float,
        Field(gt=0, le=1, description="the last rate, as a fraction of the base rate"),
        Search(Range(low=1e-4, high=0.1, log=True)),
    ] = 0.01

    def rates(self, base_rate: float, timeline: Timeline) -> Rates:
        """See the class."""
        v = np.clip((timeline.progress - self.hold) / (1.0 - self.hold), 0.0, 1.0)
        if self.shape == "exponential":
            return base_rate * self.alpha**v
        return base_rate * (self.alpha + (1.0 - self.alpha) * (half_cosine(v) if self.shape == "cosine" else 1.0 - v))
