"""The constant rate: the baseline in every comparison."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from studies.schedules.base import OpenLoop, Rates, Timeline


class Constant(OpenLoop):
    """The base rate at every step.

    eta(s) = eta0; first step eta0, last step eta0.
    """

    formula: ClassVar[str] = "eta0"
    source: ClassVar[str] = "Robbins and Monro 1951; the default of every optimizer"
    helps: ClassVar[str] = (
        "The baseline. With the weights of the best validation epoch kept it is harder to beat than many expect, "
        "above all in short trainings."
    )
    pitfalls: ClassVar[str] = (
        "At a rate high enough to learn fast the loss never settles, and the last epoch may score badly."
    )

    type: Literal["constant"] = "constant"

    def rates(self, base_rate: float, timeline: Timeline) -> Rates:
        """See the class."""
        return np.full(timeline.step.shape, base_rate, dtype=np.float64)
