"""Polynomial decay, and its plain case, linear."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from studies.parameters import Search
from studies.schedules.base import Alpha, OpenLoop, Rates, Timeline
from studies.space import Range


def polynomial_rates(base_rate: float, timeline: Timeline, power: float, alpha: float) -> Rates:
    """eta0 * ((1 - alpha) (1 - u)^power + alpha)."""
    return base_rate * ((1.0 - alpha) * (1.0 - timeline.progress) ** power + alpha)


class Polynomial(OpenLoop):
    """Falls to the floor as a power of the time that is left.

    eta(s) = eta0 * ((1 - alpha) (1 - u)^power + alpha), u = s / T.
    First step eta0; eta0 * alpha is reached at s = T, one past the last step.
    Keras' PolynomialDecay takes the end as an absolute rate (1e-4 by default, which makes a smaller
    base rate rise); here it is a fraction.
    """

    formula: ClassVar[str] = "eta0 * ((1 - alpha) * (1 - s/T)^power + alpha)"
    source: ClassVar[str] = "tf.train.polynomial_decay; keras PolynomialDecay"

    type: Literal["polynomial"] = "polynomial"
    power: Annotated[
        float,
        Field(gt=0, le=100, description="1 is linear; larger falls early, smaller falls late"),
        Search(Range(low=0.3, high=8.0, log=True)),
    ] = 2.0
    alpha: Alpha = 0.0

    def rates(self, base_rate: float, timeline: Timeline) -> Rates:
        """See the class."""
        return polynomial_rates(base_rate, timeline, self.power, self.alpha)


class Linear(OpenLoop):
    """Falls to the floor in a straight line.

    eta(s) = eta0 * ((1 - alpha) (1 - u) + alpha), u = s / T.
    First step eta0; eta0 * alpha is reached at s = T, one past the last step.
    """

    formula: ClassVar[str] = "eta0 * ((1 - alpha) * (1 - s/T) + alpha)"
    source: ClassVar[str] = "arXiv:1905.04753, arXiv:2310.07831, arXiv:2502.15938 (linear to zero)"

    type: Literal["linear"] = "linear"
    alpha: Alpha = 0.0

    def rates(self, base_rate: float, timeline: Timeline) -> Rates:
        """See the class."""
        return polynomial_rates(base_rate, timeline, 1.0, self.alpha)
