"""Families of shapes from the base rate to (nearly) nothing: rex, k-decay, tanh, and a free-form spline."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from studies.parameters import Search
from studies.schedules.base import Alpha, OpenLoop, Rates, Timeline
from studies.schedules.cosine import half_cosine
from studies.space import Range


class Rex(OpenLoop):
    """Reflected exponential: stays high, then falls ever faster.

    eta(s) = eta0 * (1 - u) / (1 - (1 - beta) u), u = s / T. beta 0.5 is the paper's
    (1 - u) / (1/2 + (1 - u)/2); beta 1 is linear; below 1 the rate stays above the line.
    First step eta0; 0 is reached at s = T, one past the last step.
    """

    formula: ClassVar[str] = "eta0 * (1 - s/T) / (1 - (1 - beta)*s/T)"
    source: ClassVar[str] = "Chen et al. 2021, arXiv:2107.04197 (beta 0.5)"
    helps: ClassVar[str] = "Made to do well for both short and long trainings, without a choice of shape."
    pitfalls: ClassVar[str] = "Ports differ: some give beta another place in the formula. This is the form above."

    type: Literal["rex"] = "rex"
    beta: Annotated[
        float,
        Field(gt=0, le=100, description="1 is linear; smaller stays high for longer"),
        Search(Range(low=0.1, high=3.0, log=True)),
    ] = 0.5

    def rates(self, base_rate: float, timeline: Timeline) -> Rates:
        """See the class."""
        u = timeline.progress
        return base_rate * (1.0 - u) / (1.0 - (1.0 - self.beta) * u)


class KDecay(OpenLoop):
    """A cosine or a polynomial over a bent time, u^k.

    eta(s) = eta0 * ((1 - alpha) f + alpha), u = s / T, where f is (1 + cos(pi u^k)) / 2 (cosine) or
    (1 - u^k)^power (polynomial). k above 1 stays high for longer.
    First step eta0; eta0 * alpha is reached at s = T, one past the last step.
    """

    formula: ClassVar[str] = "eta0 * ((1 - alpha) * (1 + cos(pi*(s/T)^k))/2 + alpha), or with (1 - (s/T)^k)^power"
    source: ClassVar[str] = "Zhang and Li 2020, arXiv:2004.05909; timm CosineLRScheduler(k_decay)"
    helps: ClassVar[str] = "Where cosine is good but should stay high for longer, or fall earlier."
    pitfalls: ClassVar[str] = "With k = 1 it is plain cosine, or polynomial. `power` acts on the polynomial alone."

    type: Literal["k_decay"] = "k_decay"
    k: Annotated[
        float,
        Field(gt=0, le=100, description="the power of time: above 1 stays high for longer"),
        Search(Range(low=0.5, high=5.0, log=True)),
    ] = 1.5
    shape: Literal["cosine", "polynomial"] = Field(default="cosine", description="the curve over the bent time")
    power: float = Field(default=1.0, gt=0, le=100, description="of the polynomial")
    alpha: Alpha = 0.0

    def rates(self, base_rate: float, timeline: Timeline) -> Rates:
        """See the class."""
        bent = timeline.progress**self.k
        wave = half_cosine(bent) if self.shape == "cosine" else (1.0 - bent) ** self.power
        return base_rate * ((1.0 - self.alpha) * wave + self.alpha)


class Tanh(OpenLoop):
    """A hyperbolic tangent from near the base rate to near zero.

    eta(s) = eta0 * (1 - tanh(lower (1 - u) + upper u)) / 2, u = s / T.
    First step eta0 * (1 - tanh(lower)) / 2, just below the base rate; eta0 * (1 - tanh(upper)) / 2, above zero, is
    reached at s = T, one past the last step.
    """

    formula: ClassVar[str] = "eta0 * (1 - tanh(lower*(1 - s/T) + upper*s/T)) / 2"
    source: ClassVar[str] = "Hsueh et al. 2019, arXiv:1806.01593; timm TanhLRScheduler"
    helps: ClassVar[str] = "A long hold, a fall and a tail in one smooth curve; lower and upper say how long each is."
    pitfalls: ClassVar[str] = "It ends above zero: at 2.5 per mille of the base rate for upper 3, at 12 % for upper 1."

    type: Literal["tanh"] = "tanh"
    lower: Annotated[
        float,
        Field(ge=-20, le=0, description="where on the tangent training starts: smaller holds for longer"),
        Search(Range(low=-9.0, high=-2.0)),
    ] = -7.0
    upper: Annotated[
        float,
        Field(ge=0, le=20, description="where on the tangent training ends: larger ends lower"),
        Search(Range(low=1.0, high=5.0)),
    ] = 3.0

    def rates(self, base_rate: float, timeline: Timeline) -> Rates:
        """See the class."""
        u = timeline.progress
        return base_rate * 0.5 * (1.0 - np.tanh(self.lower * (1.0 - u) + self.upper * u))


_Gap = Annotated[
    float,
    Field(ge=0.01, le=0.99, description="where this knot is, as a fraction of the way from the one before to the end"),
    Search(Range(low=0.05, high=0.95)),
]


class Spline(OpenLoop):
    """A curve of free form that never rises: a monotone cubic through four knots.

    eta0 while u <= x0; then eta0 * P(u), where P is the PCHIP interpolant through (x0, 1), (x1, y1), (x2, y2) and
    (1, 0), with x1 = x0 + gap_1 (1 - x0), x2 = x1 + gap_2 (1 - x1), y2 = y1 * drop; u = s / T. So every point of the
    search space has its knots in order.
    First step eta0; 0 is reached at s = T, one past the last step.
    """

    formula: ClassVar[str] = "eta0 * PCHIP through (x0, 1), (x1, y1), (x2, y2), (1, 0) at s/T"
    source: ClassVar[str] = "Fritsch and Butland 1984 (PCHIP); arXiv:2603.10301 (free-form schedules)"
    helps: ClassVar[str] = "To see whether any of the usual families is near the best shape for a task."
    pitfalls: ClassVar[str] = "Five parameters need more trials than the other families do."

    type: Literal["spline"] = "spline"
    x0: Annotated[
        float,
        Field(ge=0, le=0.99, description="the fraction of training at the base rate"),
        Search(Range(low=0.0, high=0.9)),
    ] = 0.1
    gap_1: _Gap = 0.4
    gap_2: _Gap = 0.5
    y1: Annotated[
        float,
        Field(ge=0, le=1, description="the rate at the first inner knot, as a fraction of the base rate"),
        Search(Range(low=0.0, high=1.0)),
    ] = 0.6
    drop: Annotated[
        float,
        Field(ge=0, le=1, description="the rate at the second inner knot, as a fraction of that at the first"),
        Search(Range(low=0.0, high=1.0)),
    ] = 0.3

    def rates(self, base_rate: float, timeline: Timeline) -> Rates:
        """See the class."""
        from scipy.interpolate import PchipInterpolator  # takes a while to load, and no other schedule needs it

        x1 = self.x0 + self.gap_1 * (1.0 - self.x0)
        x2 = x1 + self.gap_2 * (1.0 - x1)
        with np.errstate(over="ignore"):  # a slope of next to nothing, whose reciprocal SciPy takes: then it is zero
            curve = PchipInterpolator([self.x0, x1, x2, 1.0], [1.0, self.y1, self.y1 * self.drop, 0.0])
        rates: Rates = base_rate * np.clip(curve(np.maximum(timeline.progress, self.x0)), 0.0, 1.0)
        return rates
