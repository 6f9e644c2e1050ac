"""The weights of the best epoch so far, in memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from studies.tasks import Direction
from studies.trial import is_better


class BestWeights:
    """A model's weights at the epoch with the best value: the first of equals, finite values only.

    The rule is that of `studies.trial.score`. `weights`, `epoch` and `value` are None until there was a finite value.
    """

    def __init__(self, direction: Direction) -> None:
        self._direction = direction
        self.value: float | None = None
        self.epoch: int | None = None
        self.weights: Sequence[NDArray[Any]] | None = None

    def see(self, epoch: int, value: float, model: Any) -> None:
        """Copy the model's weights if this epoch's value is the best so far."""
        if not math.isfinite(value):
            return
        if self.value is None or is_better(value, self.value, self._direction):
            self.value, self.epoch = value, epoch
            self.weights = [np.array(array) for array in model.get_weights()]
