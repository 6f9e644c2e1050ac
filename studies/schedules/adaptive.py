"""Schedules that answer every epoch of the validation metric, not only a plateau."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from studies.parameters import EpochRange, Search
from studies.schedules.base import ClosedLoop, RateState
from studies.schedules.plateau import ROUNDING, WatchedMode, as_float32, direction, improves, watched
from studies.space import Choice, Range


class AdaptiveState(RateState):
    """What `adaptive_validation` remembers between epochs.

    best: the best value of the watched metric in this descent, None before the first; wait: epochs
    without improvement, counted anew when the rate reaches the floor; convergences: 0, 1 or 2.
    """

    best: float | None = None
    wait: int = 0
    convergences: int = 0


class AdaptiveValidation(ClosedLoop):
    """Holds the rate while validation improves, cuts it the faster the longer it does not, and stops in the end.

    After an epoch: an improvement is a value better than the best by more than `min_delta`; with one
    the rate is held. From the `patience`-th epoch in a row without one, every such epoch cuts:
    eta <- max(factor^n * eta, floor), n = 1 for the first cut of the row, 2 for the second, and so on.
    The training has converged after `patience` epochs in a row without improvement at the floor. The
    first time, a second descent begins at max(factor * eta0, floor), measured against itself: the best
    value so far is forgotten. The second time the training ends, and the weights of its best epoch
    are put back.
    First epoch eta0; never below the floor, min_ratio * eta0, where each descent ends.

    Rates are rounded to float32 at each cut, as an optimizer holds them, and metrics are compared in
    float32. A NaN is never an improvement.
    """

    formula: ClassVar[str] = (
        "eta <- max(factor^n * eta, floor) in the n-th epoch of decline; stops when converged twice"
    )
    source: ClassVar[str] = (
        'what tutorials call "auto learning rate decay"; they give no rule, so this one is our own, '
        "and TensorFlow has no function of that name"
    )
    helps: ClassVar[str] = (
        "Where nobody wants to say how long to train: the number of epochs becomes a limit, and the training ends "
        "by itself. A larger patience suits a noisy metric."
    )
    pitfalls: ClassVar[str] = (
        "With patience 1 one unlucky epoch is a decline, and the exponents of its cuts add up (1 + 2 + 3 ...): the "
        "floor is reached within a few epochs, and held until it has converged. The last epoch is by design one of "
        "the worse ones: score it at the best epoch."
    )
    keeps_best_weights: ClassVar[bool] = True
    stops_early: ClassVar[bool] = True

    type: Literal["adaptive_validation"] = "adaptive_validation"
    mode: WatchedMode = "auto"
    factor: Annotated[
        float,
        Field(gt=0, lt=1, description="what the first cut of a decline multiplies the rate by; the n-th: factor^n"),
        Search(Range(low=0.3, high=0.9, log=True)),
    ] = 0.5
    patience: Annotated[
        int,
        Field(ge=1, le=10_000, description="epochs without improvement before the first cut, and at the floor"),
        Search(EpochRange(low=1, fraction=1 / 8)),
    ] = 3
    min_delta: Annotated[
        float,
        Field(ge=0, description="by how much a value must be better to count as an improvement"),
        Search(Range(low=1e-5, high=1e-2, log=True)),
    ] = 1e-4
    min_ratio: Annotated[
        float,
        Field(gt=0, le=1, description="the floor as a fraction of the base rate"),
        Search(Range(low=1e-4, high=0.3, log=True)),
    ] = 0.01

    def start(self, base_rate: float) -> AdaptiveState:
        """The state before the first epoch: the base rate, nothing seen."""
        return AdaptiveState(base_rate=base_rate, rate=as_float32(base_rate))

    def advance(self, state: RateState, metrics: Mapping[str, float]) -> AdaptiveState:
        """The state after an epoch with these metrics; one that has stopped stays as it is."""
        assert isinstance(state, AdaptiveState)
        value = watched(metrics, self.monitor)
        if state.stopped:
            return state
        if improves(value, state.best, self.min_delta, direction(self.monitor, self.mode)):
            return state.model_copy(update={"best": value, "wait": 0})
        wait = state.wait + 1
        if wait < self.patience:
            return state.model_copy(update={"wait": wait})
        floor = as_float32(self.min_ratio * state.base_rate)
        if state.rate > floor:
            rate = self._no_lower_than(floor, state.rate * self.factor ** (wait - self.patience + 1))
            return state.model_copy(update={"rate": rate, "wait": wait if rate > floor else 0})
        if state.convergences == 1:
            return state.model_copy(update={"wait": 0, "convergences": 2, "stopped": True})
        rate = self._no_lower_than(floor, self.factor * state.base_rate)
        return state.model_copy(update={"rate": rate, "best": None, "wait": 0, "convergences": 1})

    def _no_lower_than(self, floor: float, rate: float) -> float:
        return as_float32(rate) if rate > floor * (1.0 + ROUNDING) else floor


class GreedyState(RateState):
    """What `greedy` remembers between epochs.

    recent: the last values of the watched metric, as many as are averaged, finite ones only; run: how
    many epochs in a row have improved, or, below 0, have not; counted anew after every change.
    """

    recent: tuple[float, ...] = ()
    run: int = 0


class Greedy(ClosedLoop):
    """Raises the rate while validation improves and lowers it while it does not.

    After an epoch: m is the mean of the metric's last `smoothing` values. If m is better than it was
    an epoch before, eta <- eta / factor; if not, be it equal, eta <- eta * factor; either only at
    every `patience`-th such epoch in a row; and always clipped to [min_ratio * eta0, max_ratio * eta0].
    The first value has nothing to be compared with and changes nothing. A value that is NaN or
    infinite counts as worse and is left out of the mean.
    First epoch eta0.

    This is the rule that the paper analyses, loss against the loss before, taken epoch by epoch where
    the paper goes by steps. The authors' code in transformers differs: it compares with the best value
    by a threshold, and waits for more than `patience` evaluations. Rates are rounded to float32 at each
    change, as an optimizer holds them, and means are compared in float32.
    """

    formula: ClassVar[str] = "eta <- eta / factor if better, else eta * factor; in [min_ratio, max_ratio] * eta0"
    source: ClassVar[str] = "Subramanian, Krishnamoorthy and Murthy 2025 (GreedyLR), arXiv:2512.14527"
    helps: ClassVar[str] = (
        "Where the base rate is uncertain, above all when it may be too low: the rate finds its own level, "
        "and comes back after a bad spell."
    )
    pitfalls: ClassVar[str] = (
        "On a noisy metric it is a random walk: smooth, or be patient. On an accuracy over few examples equal values "
        "are common, and count as worse. It does not anneal: a training that improves to its end ends at a high rate. "
        "The paper goes by steps; epochs give far fewer occasions to change, so that a factor "
        "near 1, as in the paper, hardly moves the rate."
    )

    type: Literal["greedy"] = "greedy"
    mode: WatchedMode = "auto"
    factor: Annotated[
        float,
        Field(gt=0, lt=1, description="the rate is divided by it after an improvement, multiplied by it after none"),
        Search(Range(low=0.5, high=0.95)),
    ] = 0.9
    patience: Annotated[
        int,
        Field(ge=1, le=10_000, description="epochs in a row, all better or all not, for one change"),
        Search(Choice(values=(1, 2, 3))),
    ] = 1
    smoothing: Annotated[
        int,
        Field(ge=1, le=1000, description="over how many epochs the metric is averaged; 1: not at all"),
        Search(Choice(values=(1, 3, 5))),
    ] = 1
    min_ratio: Annotated[
        float,
        Field(gt=0, le=1, description="the lowest rate, as a fraction of the base rate"),
        Search(Choice(values=(0.001, 0.01, 0.1))),
    ] = 0.01
    max_ratio: Annotated[
        float,
        Field(ge=1, le=1000, description="the highest rate, in base rates"),
        Search(Choice(values=(1.0, 3.0, 10.0))),
    ] = 10.0

    def start(self, base_rate: float) -> GreedyState:
        """The state before the first epoch: the base rate, nothing seen."""
        return GreedyState(base_rate=base_rate, rate=as_float32(base_rate))

    def advance(self, state: RateState, metrics: Mapping[str, float]) -> GreedyState:
        """The state after an epoch with these metrics."""
        assert isinstance(state, GreedyState)
        value = watched(metrics, self.monitor)
        better = False
        if math.isfinite(value):
            before, recent = state.recent, (*state.recent, value)[-self.smoothing :]
            state = state.model_copy(update={"recent": recent})
            if not before:
                return state.model_copy(update={"run": 0})
            better = self._better(_mean(recent), _mean(before))
        run = max(state.run, 0) + 1 if better else min(state.run, 0) - 1
        if abs(run) < self.patience:
            return state.model_copy(update={"run": run})
        rate = state.rate / self.factor if better else state.rate * self.factor
        low, high = self.min_ratio * state.base_rate, self.max_ratio * state.base_rate
        return state.model_copy(update={"rate": as_float32(min(max(rate, low), high)), "run": 0})

    def _better(self, mean: float, before: float) -> bool:
        if direction(self.monitor, self.mode) == "max":
            return as_float32(mean) > as_float32(before)
        return as_float32(mean) < as_float32(before)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
