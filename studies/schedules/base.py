"""What every schedule is: a small model of its parameters that says what the learning rate does.

An *open-loop* schedule is a function of the step. A *closed-loop* schedule is a state machine that
is fed the metrics at the end of each epoch. Both are pure: no Keras here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from studies.parameters import Search
from studies.space import Choice, Space

Rates = NDArray[np.float64]

Alpha = Annotated[
    float,
    Field(ge=0, le=1, description="the last rate, as a fraction of the base rate"),
    Search(Choice(values=(0.0, 0.0001, 0.001, 0.01, 0.1))),
]
Stairs = Annotated[
    int,
    Field(ge=0, le=1000, description="0: smooth; n: the same curve taken in n equal stairs (1 is constant)"),
]


@dataclass(frozen=True)
class Timeline:
    """The optimizer steps at which rates are asked for, counted from the end of the warm-up.

    step: int64 (n,), 0-based; total: the number of steps that the schedule spans;
    steps_per_epoch: optimizer steps in one epoch; seed: of the trial, for schedules with noise.
    """

    step: NDArray[np.int64]
    total: int
    steps_per_epoch: int
    seed: int = 0

    @property
    def elapsed(self) -> Rates:
        """x = step / total, growing past 1 after the end: float64 (n,)."""
        return self.step / self.total

    @property
    def progress(self) -> Rates:
        """u = step / total, clipped to [0, 1]: float64 (n,). 0 at the first step, 1 one past the last."""
        return np.clip(self.elapsed, 0.0, 1.0)

    @property
    def epoch(self) -> NDArray[np.int64]:
        """The epoch of each step, 0-based, counted from the end of the warm-up: int64 (n,)."""
        return self.step // self.steps_per_epoch

    def stairs(self, count: int) -> Rates:
        """x in equal stairs, `count` of them to a training, floor(x * count) / count; x itself if `count` is 0.

        Integer arithmetic: a stair starts at the first whole step at or past its boundary.
        """
        return self.elapsed if count == 0 else (self.step * count) // self.total / count


class Schedule(BaseModel, ABC):
    """A rule for the learning rate over training, at fixed parameters."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    loop: ClassVar[Literal["open", "closed"]]
    formula: ClassVar[str]
    source: ClassVar[str]
    helps: ClassVar[str]
    """When it is worth a try, in a sentence or two."""
    pitfalls: ClassVar[str]
    """What goes wrong with it, here or in other libraries."""
    stops_early: ClassVar[bool] = False
    """Whether a training may end before its last epoch because the schedule says so."""
    alias_of: ClassVar[str | None] = None
    """The type that this one is a special case of, in other words."""

    type: str

    @property
    def parameters(self) -> dict[str, object]:
        """The parameters without the type."""
        return self.model_dump(exclude={"type"})

    @classmethod
    def in_terms_of_alias(cls, space: Space) -> Space:
        """The same search space in the parameters of the type that this one is an alias of."""
        raise TypeError(f"{cls.__name__} is no alias")


class OpenLoop(Schedule):
    """A schedule that is a function of the optimizer step alone."""

    loop: ClassVar[Literal["open", "closed"]] = "open"

    @abstractmethod
    def rates(self, base_rate: float, timeline: Timeline) -> Rates:
        """The learning rate at each step of the timeline: float64, the shape of `timeline.step`."""


class ClosedLoop(Schedule):
    """A schedule that reacts to the metrics of each epoch."""

    loop: ClassVar[Literal["open", "closed"]] = "closed"
    keeps_best_weights: ClassVar[bool] = False

    monitor: str = Field(default="val_loss", description="the metric that is watched, as Keras names it")

    @abstractmethod
    def start(self, base_rate: float) -> RateState:
        """The state before the first epoch."""

    @abstractmethod
    def advance(self, state: RateState, metrics: Mapping[str, float]) -> RateState:
        """The state after an epoch with these metrics; its `rate` is the one of the next epoch.

        Raises KeyError, naming the metrics there are, if the watched one is not among them.
        """


class RateState(BaseModel):
    """The state of a closed-loop schedule between two epochs; plain data, so that a checkpoint can hold it."""

    # JSON has no infinity; a loss may.
    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")

    base_rate: float
    rate: float
    stopped: bool = False
    """Whether the schedule ends the training here."""
