"""The catalogue of schedules: one small model each, a file per family, one table of them all."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any, Literal

from pydantic import BaseModel, Field

from studies.errors import NotFound
from studies.optimizers import OPTIMIZERS
from studies.parameters import OwnParameters, ParameterInfo, describe_parameters, write_domain
from studies.schedules import (
    adaptive,
    constant,
    cosine,
    custom,
    cycles,
    decays,
    expression,
    holds,
    plateau,
    polynomial,
    shapes,
    steps,
)
from studies.schedules.base import ClosedLoop, OpenLoop, RateState, Schedule, Timeline

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

FAMILIES: tuple[ModuleType, ...] = (
    constant,
    steps,
    decays,
    polynomial,
    cosine,
    cycles,
    holds,
    shapes,
    expression,
    custom,
    plateau,
    adaptive,
)
"""The files of schedules, in the order in which the catalogue shows them."""


def _schedules_of(family: ModuleType) -> Iterator[tuple[str, type[Schedule]]]:
    """The types that a file defines, with their models, in the order in which they stand there."""
    for model in vars(family).values():
        if isinstance(model, type) and issubclass(model, Schedule) and model.__module__ == family.__name__:
            yield model.model_fields["type"].default, model


CATALOGUE: dict[str, type[Schedule]] = {name: model for family in FAMILIES for name, model in _schedules_of(family)}
"""Every schedule by its type."""

DEFAULT_SCHEDULES = (
    "constant",
    "step",
    "exponential",
    "inverse_time",
    "polynomial",
    "cosine",
    "cosine_restarts",
    "wsd",
    "reduce_on_plateau",
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
    helps: str
    pitfalls: str
    parameters: list[ParameterInfo]
    own_parameters: bool = Field(description="whether it takes parameters under names of one's own, beside these")
    learning_rate: dict[str, Any] = Field(description="per optimizer, the base rates that are searched by default")


def schedule_class(name: str) -> type[Schedule]:
    """The model of a schedule type. Raises NotFound, with the closest known type."""
    try:
        return CATALOGUE[name]
    except KeyError:
        raise NotFound("schedule", name, CATALOGUE) from None


def make(name: str, /, **parameters: Any) -> Schedule:
    """A schedule from its type and parameters; what is left out takes its default.

    Raises NotFound for an unknown type and pydantic.ValidationError for a bad parameter.

    >>> make("linear", alpha=0.1).parameters
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
        helps=model.helps,
        pitfalls=model.pitfalls,
        parameters=describe_parameters(model),
        own_parameters=issubclass(model, OwnParameters),
        learning_rate={
            optimizer: write_domain(optimizer_model.learning_rate) for optimizer, optimizer_model in OPTIMIZERS.items()
        },
    )
