"""Smooth decays without an end of their own: time, exponential, inverse time, inverse square root.

Past the end of training they go on falling, as Keras' and TensorFlow 1's do.
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from studies.parameters import Search
from studies.schedules.base import OpenLoop, Rates, Stairs, Timeline
from studies.space import Choice, Fixed, Range, Space, mapped

FinalRatio = Annotated[
    float,
    Field(gt=0, le=1, description="the rate at the end of training, as a fraction of the base rate"),
]
_SomeStairs = Search(Choice(values=(0, 3, 5, 10, 20)))


class TimeDecay(OpenLoop):
    """Divides the rate by a number that grows with every batch: Keras' old `decay=` argument.

    eta(s) = eta0 / (1 + d s), where d = (1/final_ratio - 1) / T: the same curve as smooth inverse_time
    with kappa = 1/final_ratio - 1, told by where it ends.
    First step eta0; eta0 * final_ratio is reached at s = T, one past the last step.
    """

    formula: ClassVar[str] = "eta0 / (1 + (1/final_ratio - 1)*s/T)"
    source: ClassVar[str] = "the argument `decay` of Keras' optimizers up to 2.x"
    helps: ClassVar[str] = (
        "To compare with older code that says SGD(lr, decay=...): d = (1/final_ratio - 1)/T per batch."
    )
    pitfalls: ClassVar[str] = (
        "Articles say that it acts per epoch; it acted per batch. Keras 3 ignores the argument, with a warning. "
        "It falls fastest when the rate should still be high."
    )

    alias_of: ClassVar[str | None] = "inverse_time"

    type: Literal["time_decay"] = "time_decay"
    final_ratio: Annotated[FinalRatio, Search(Range(low=1e-3, high=0.5, log=True))] = 0.1

    def rates(self, base_rate: float, timeline: Timeline) -> Rates:
        """See the class."""
        return base_rate / (1.0 + (1.0 / self.final_ratio - 1.0) * timeline.elapsed)

    @classmethod
    def in_terms_of_alias(cls, space: Space) -> Space:
        """kappa = 1/final_ratio - 1, smooth."""
        return {"kappa": mapped(space["final_ratio"], lambda ratio: 1.0 / ratio - 1.0), "stairs": Fixed(value=0)}


class Exponential(OpenLoop):
    """Multiplies the rate by the same factor at every step, or at every stair.

    eta(s) = eta0 * final_ratio^x, x = s / T; with stairs n: x = floor(n s / T) / n.
    First step eta0; eta0 * final_ratio is reached at s = T, one past the last step.
    In the terms of Keras' ExponentialDecay: decay_steps T and decay_rate final_ratio, or with stairs
    decay_steps T / n and decay_rate final_ratio^(1/n).
    """

    formula: ClassVar[str] = "eta0 * final_ratio^(s/T), or in stairs eta0 * final_ratio^(floor(n*s/T)/n)"
    source: ClassVar[str] = "tf.train.exponential_decay; keras ExponentialDecay"
    helps: ClassVar[str] = "A steady fall over orders of magnitude, where the best last rate is not known."
    pitfalls: ClassVar[str] = (
        "With a small final ratio most of the training runs at a rate too low to move. "
        "Raw decay_steps that fit one task are far off on another; here the end is a ratio."
    )

    type: Literal["exponential"] = "exponential"
    final_ratio: Annotated[FinalRatio, Search(Range(low=1e-4, high=0.5, log=True))] = 0.01
    stairs: Annotated[Stairs, _SomeStairs] = 0

    def rates(self, base_rate: float, timeline: Timeline) -> Rates:
        """See the class."""
        return base_rate * self.final_ratio ** timeline.stairs(self.stairs)


class NaturalExponential(OpenLoop):
    """An alias of exponential: the same curve, told by its exponent, final_ratio = e^-kappa.

    eta(s) = eta0 * e^(-kappa x), x = s / T; with stairs n: x = floor(n s / T) / n.
    First step eta0; eta0 * e^-kappa is reached at s = T, one past the last step.
    """

    formula: ClassVar[str] = "eta0 * e^(-kappa*s/T), or in stairs eta0 * e^(-kappa*floor(n*s/T)/n)"
    source: ClassVar[str] = "tf.train.natural_exp_decay"
    helps: ClassVar[str] = "Where older code gives the exponent; else use exponential, which is the same."
    pitfalls: ClassVar[str] = (
        "Beside exponential in one study it would be the same contender twice; that is refused, unless their "
        "parameters keep them apart."
    )

    alias_of: ClassVar[str | None] = "exponential"

    type: Literal["natural_exponential"] = "natural_exponential"
    kappa: Annotated[
        float,
        Field(gt=0, le=100, description="the rate ends at e^-kappa of the base rate"),
        Search(Range(low=0.693, high=9.21)),
    ] = math.log(100.0)
    stairs: Annotated[Stairs, _SomeStairs] = 0

    def rates(self, base_rate: float, timeline: Timeline) -> Rates:
        """See the class."""
        return base_rate * np.exp(-self.kappa * timeline.stairs(self.stairs))

    @classmethod
    def in_terms_of_alias(cls, space: Space) -> Space:
        """final_ratio = e^-kappa."""
        return {"final_ratio": mapped(space["kappa"], lambda kappa: math.exp(-kappa)), "stairs": space["stairs"]}


class InverseTime(OpenLoop):
    """Divides the rate by a number that grows linearly with the step.

    eta(s) = eta0 / (1 + kappa x), x = s / T; with stairs n: x = floor(n s / T) / n.
    First step eta0; eta0 / (1 + kappa) is reached at s = T, one past the last step.
    In the terms of Keras' InverseTimeDecay: decay_steps T and decay_rate kappa, or with stairs
    decay_steps T / n and decay_rate kappa / n.
    """

    formula: ClassVar[str] = "eta0 / (1 + kappa*s/T), or in stairs eta0 / (1 + kappa*floor(n*s/T)/n)"
    source: ClassVar[str] = "Robbins and Monro 1951; tf.train.inverse_time_decay; keras InverseTimeDecay"
    helps: ClassVar[str] = "The decay that theory asks of stochastic gradient descent; a long, slow tail."
    pitfalls: ClassVar[str] = "A large kappa throws the rate away in the first per cent of training."

    type: Literal["inverse_time"] = "inverse_time"
    kappa: Annotated[
        float,
        Field(gt=0, description="at the end of training the rate has been divided by 1 + kappa"),
        Search(Range(low=0.1, high=1000.0, log=True)),
    ] = 10.0
    stairs: Annotated[Stairs, _SomeStairs] = 0

    def rates(self, base_rate: float, timeline: Timeline) -> Rates:
        """See the class."""
        return base_rate / (1.0 + self.kappa * timeline.stairs(self.stairs))


class InverseTimePower(OpenLoop):
    """Inverse time to a power: Caffe's `inv`.

    eta(s) = eta0 * (1 + kappa x)^-power, x = s / T.
    First step eta0; eta0 * (1 + kappa)^-power is reached at s = T, one past the last step.
    In the terms of Caffe: gamma = kappa / T.
    """

    formula: ClassVar[str] = "eta0 * (1 + kappa*s/T)^-power"
    source: ClassVar[str] = "Caffe's learning-rate policy `inv`"
    helps: ClassVar[str] = "Between a constant rate and inverse time; power 0.75 is what Caffe's examples use."
    pitfalls: ClassVar[str] = "kappa and power trade off against each other: many pairs give nearly the same curve."

    type: Literal["inverse_time_power"] = "inverse_time_power"
    kappa: Annotated[
        float,
        Field(gt=0, description="how fast the base of the power grows: 1 + kappa at the end of training"),
        Search(Range(low=0.1, high=1000.0, log=True)),
    ] = 10.0
    power: Annotated[
        float,
        Field(ge=0.01, le=10, description="1 is inverse_time; smaller falls less"),
        Search(Range(low=0.25, high=2.0)),
    ] = 0.75

    def rates(self, base_rate: float, timeline: Timeline) -> Rates:
        """See the class."""
        return base_rate * (1.0 + self.kappa * timeline.elapsed) ** -self.power


class InverseSqrt(OpenLoop):
    """Falls with the root of the step, as after the warm-up of the Transformer.

    eta(s) = eta0 * sqrt(tau / (tau + x)), x = s / T.
    First step eta0; eta0 * sqrt(tau / (tau + 1)) is reached at s = T, one past the last step.
    """

    formula: ClassVar[str] = "eta0 * sqrt(tau / (tau + s/T))"
    source: ClassVar[str] = "Vaswani et al. 2017, arXiv:1706.03762 (Noam)"
    helps: ClassVar[str] = "Trainings whose length is not known in advance; with a warm-up, the Transformer's schedule."
    pitfalls: ClassVar[str] = "It never anneals to zero: where the length is known, a linear or cosine end does better."

    type: Literal["inverse_sqrt"] = "inverse_sqrt"
    tau: Annotated[
        float,
        Field(gt=0, le=100, description="the time scale, as a fraction of training; at x = 3 tau the rate has halved"),
        Search(Range(low=1e-3, high=1.0, log=True)),
    ] = 0.1

    def rates(self, base_rate: float, timeline: Timeline) -> Rates:
        """See the class."""
        return base_rate * np.sqrt(self.tau / (self.tau + timeline.elapsed))
