"""Polynomial decay, and its plain case, linear."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from studies.parameters import Search
from studies.schedules.base import Alpha, OpenLoop, Rates, Timeline
from studies.space import Fixed, Range, Space


class Polynomial(OpenLoop):
    """Falls to the floor as a power of the time that is left.

    eta(s) = eta0 * ((1 - alpha) (1 - u)^power + alpha), u = s / T, held at 1 after the end.
    With cycles c > 1, as TensorFlow's cycle=True with decay_steps k = T / c: u = s / (k m), where
    m = max(1, ceil(s / k)); each time the floor is reached, the decay is stretched by another k.
    First step eta0; eta0 * alpha is reached at s = T, one past the last step.
    Keras' PolynomialDecay takes the end as an absolute rate (1e-4 by default, which makes a smaller
    base rate rise); here it is a fraction.
    """

    formula: ClassVar[str] = "eta0 * ((1 - alpha) * (1 - s/T)^power + alpha)"
    source: ClassVar[str] = "tf.train.polynomial_decay; keras PolynomialDecay"
    helps: ClassVar[str] = "One family from late falls (power below 1) over linear to early ones; a good one to search."
    pitfalls: ClassVar[str] = (
        "Keras' default end of 1e-4 makes the rate rise where the base rate is below that. A power of 5, as in some "
        "tutorials, spends half of the training below 3.2 % of the base rate."
    )

    type: Literal["polynomial"] = "polynomial"
    power: Annotated[
        float,
        Field(gt=0, le=100, description="1 is linear; larger falls early, smaller falls late"),
        Search(Range(low=0.3, high=8.0, log=True)),
    ] = 2.0
    alpha: Alpha = 0.0
    cycles: int = Field(default=1, ge=1, le=100, description="how often the floor is reached; 1: at the end alone")

    def rates(self, base_rate: float, timeline: Timeline) -> Rates:
        """See the class."""
        u = timeline.progress
        if self.cycles > 1:
            cycled = timeline.step * self.cycles
            u = cycled / (timeline.total * np.maximum(-(-cycled // timeline.total), 1))
        return base_rate * ((1.0 - self.alpha) * (1.0 - u) ** self.power + self.alpha)


class Linear(OpenLoop):
    """Falls to the floor in a straight line: polynomial with power 1.

    eta(s) = eta0 * ((1 - alpha) (1 - u) + alpha), u = s / T.
    First step eta0; eta0 * alpha is reached at s = T, one past the last step.
    """

    formula: ClassVar[str] = "eta0 * ((1 - alpha) * (1 - s/T) + alpha)"
    source: ClassVar[str] = "arXiv:1905.04753, arXiv:2310.07831, arXiv:2502.15938 (linear to zero)"
    helps: ClassVar[str] = (
        "The strongest simple default in the literature: linear to zero from a tuned peak, after a warm-up."
    )
    pitfalls: ClassVar[str] = (
        "The length of training must be known; one that is stopped early has never been at the low rates."
    )

    alias_of: ClassVar[str | None] = "polynomial"

    type: Literal["linear"] = "linear"
    alpha: Alpha = 0.0

    def rates(self, base_rate: float, timeline: Timeline) -> Rates:
        """See the class."""
        return base_rate * ((1.0 - self.alpha) * (1.0 - timeline.progress) + self.alpha)

    @classmethod
    def in_terms_of_alias(cls, space: Space) -> Space:
        """power = 1."""
        return {"power": Fixed(value=1.0), "alpha": space["alpha"], "cycles": Fixed(value=1)}
