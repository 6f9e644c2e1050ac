"""The catalogue of schedules: one small model each, a file per family, one table of them all."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from studies.errors import NotFound
from studies.parameters import ParameterInfo, describe_parameters
from studies.schedules.base import ClosedLoop, OpenLoop, RateState, Schedule, Timeline
from studies.schedules.constant import Constant
from studies.schedules.cosine import Cosine, CosineRestarts
from studies.schedules.decays import Exponential, InverseTime, Step
from studies.schedules.plateau import PlateauWithRevert, ReduceOnPlateau
from studies.schedules.polynomial import Linear, Polynomial

__all__ = [
    "CATALOGUE",
    "DEFAULT_SCHEDULES",
    "ClosedLoop",
    "OpenLoop",
    "RateState",
    "Schedule",
    "ScheduleInfo",
    "Timeline",
    "describe",
    "make",
    "schedule_class",
]

CATALOGUE: dict[str, type[Schedule]] = {
    "constant": Constant,
    "step": Step,
    "exponential": Exponential,
    "inverse_time": InverseTime,
    "polynomial": Polynomial,
    "linear": Linear,
    "cosine": Cosine,
    "cosine_restarts": CosineRestarts,
    "reduce_on_plateau": ReduceOnPlateau,
    "plateau_with_revert": PlateauWithRevert,
}

DEFAULT_SCHEDULES = (
    "constant",
    "step",
    "exponential",
    "inverse_time",
    "polynomial",
    "cosine",
    "cosine_restarts",
    "reduce_on_plateau",
    "plateau_with_revert",
)
"""What a study compares when it names no schedules: no one is a special case of another."""


class ScheduleInfo(BaseModel):
    """A schedule, as the catalogue shows it."""

    type: str
    loop: Literal["open", "closed"]
    summary: str
    description: str
    formula: str
    source: str
    parameters: list[ParameterInfo]


def schedule_class(name: str) -> type[Schedule]:
    """The model of a schedule type. Raises NotFound, with the closest known type."""
    try:
        return CATALOGUE[name]
    except KeyError:
        raise NotFound("schedule", name, CATALOGUE) from None


def make(name: str, /, **parameters: Any) -> Schedule:
    """A schedule from its type and parameters; what is left out takes its default.

    Raises NotFound for an unknown type and pydantic.ValidationError for a bad parameter.

    >>> make("cosine", alpha=0.1).parameters
    {'alpha': 0.1}
    """
    return schedule_class(name)(type=name, **parameters)


def describe(name: str) -> ScheduleInfo:
    """A schedule's catalogue entry."""
    model = schedule_class(name)
    doc = (model.__doc__ or "").strip()
    return ScheduleInfo(
        type=name,
        loop=model.loop,
        summary=doc.splitlines()[0],
        description="\n".join(line.strip() for line in doc.splitlines()),
        formula=model.formula,
        source=model.source,
        parameters=describe_parameters(model),
    )
