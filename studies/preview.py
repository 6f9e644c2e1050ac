"""What a schedule does, before anything is trained: its rates, step by step, at given parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from studies.errors import FieldError, InvalidMessage, TaskError
from studies.parameters import in_our_words
from studies.schedules import ClosedLoop, OpenLoop, Schedule, schedule_class
from studies.schedules.base import Rates
from studies.schedules.table import rate_table, warmup_rates, warmup_steps

MAX_STEPS = 100_000
"""The most steps, epochs times steps per epoch, that are worked out at once; a formula in both `lr` and `step`, which
has to be followed step by step, takes some 4 s for them."""
MAX_POINTS = 100_000
"""The most points that are given back."""


class PreviewRequest(BaseModel):
    """A schedule and a training to try it on.

    schedule: `{type: cosine, alpha: 0.01}`, or its type alone. epochs, steps_per_epoch: the length of training.
    points: at most so many of the steps are given back, evenly spread, the first and the last among them.
    metrics: for a closed-loop schedule, the metric it watches, one value per epoch (null: not a number), as many
    as there are epochs. seed: for schedules with noise.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    schedule: str | dict[str, Any]
    learning_rate: float = Field(gt=0, le=1e4)
    warmup: float = Field(default=0.0, ge=0, le=0.9)
    epochs: int = Field(ge=1, le=MAX_STEPS)
    steps_per_epoch: int = Field(default=100, ge=1, le=MAX_STEPS)
    points: int = Field(default=1000, ge=2, le=MAX_POINTS)
    metrics: dict[str, list[float | None]] | None = None
    seed: int = Field(default=0, ge=0, lt=2**63)


class Preview(BaseModel):
    """Rates at some steps of a training; `steps` are 0-based optimizer steps.

    parameters: all of the schedule's, defaults filled in. total_steps: of the training, or up to where the schedule
    ended it. stopped_after_epoch: the epoch after which a closed-loop schedule ended the training.
    """

    type: str
    loop: Literal["open", "closed"]
    parameters: dict[str, Any]
    total_steps: int
    steps: list[int]
    rates: list[float]
    stopped_after_epoch: int | None = None


def preview(request: PreviewRequest) -> Preview:
    """The rates of a training that was never run. Raises InvalidMessage, naming each bad field, and NotFound."""
    total = request.epochs * request.steps_per_epoch
    if total > MAX_STEPS:
        raise _bad(
            "steps_per_epoch", request.steps_per_epoch, f"epochs * steps_per_epoch must be at most {MAX_STEPS:,}"
        )
    schedule = _schedule(request.schedule)
    stopped: int | None = None
    if isinstance(schedule, ClosedLoop):
        metrics = _metrics(schedule, request)
        rates, stopped = trace(
            schedule,
            request.learning_rate,
            metrics,
            warmup=request.warmup,
            steps_per_epoch=request.steps_per_epoch,
        )
    else:
        assert isinstance(schedule, OpenLoop)
        if request.metrics is not None:
            raise _bad("metrics", sorted(request.metrics), f"{schedule.type} watches no metric: leave them out")
        try:
            rates = rate_table(
                schedule,
                request.learning_rate,
                warmup=request.warmup,
                steps=total,
                steps_per_epoch=request.steps_per_epoch,
                seed=request.seed,
            ).astype(np.float64)
        except TaskError as error:
            raise _bad("schedule", schedule.parameters, str(error)) from None
    shown = np.unique(np.linspace(0, len(rates) - 1, min(request.points, len(rates))).round().astype(np.int64))
    return Preview(
        type=schedule.type,
        loop=schedule.loop,
        parameters=schedule.parameters,
        total_steps=len(rates),
        steps=shown.tolist(),
        rates=rates[shown].tolist(),
        stopped_after_epoch=stopped,
    )


def trace(
    schedule: ClosedLoop,
    base_rate: float,
    metrics: Sequence[Mapping[str, float]],
    *,
    warmup: float,
    steps_per_epoch: int,
) -> tuple[Rates, int | None]:
    """The rates of a training in which a closed-loop schedule sees these metrics, epoch after epoch.

    Returns the rate at each step, float64 (steps,), and the epoch after which the schedule ended the training, or
    None. In the warm-up the rate rises to the base rate, and an epoch that ends before it does is not shown to
    the schedule. Raises KeyError if the watched metric is missing.
    """
    steps = len(metrics) * steps_per_epoch
    w = warmup_steps(warmup, steps)
    state = schedule.start(base_rate)
    rates = np.empty(steps)
    for epoch, seen in enumerate(metrics):
        first, end = epoch * steps_per_epoch, (epoch + 1) * steps_per_epoch
        rates[first:end] = state.rate
        if end >= w:
            state = schedule.advance(state, seen)
        if state.stopped:
            rates = rates[:end]
            break
    rates[:w] = warmup_rates(base_rate, np.arange(w), w)[: len(rates)]
    return rates, epoch if state.stopped else None


def _schedule(given: str | Mapping[str, Any]) -> Schedule:
    described = {"type": given} if isinstance(given, str) else given
    name = described.get("type")
    if not isinstance(name, str):
        raise _bad("schedule", described, "must be a type, such as cosine, or {type: ..., parameters}")
    model = schedule_class(name)
    try:
        return model.model_validate(described)
    except ValidationError as error:
        raise InvalidMessage(
            [
                FieldError(".".join(["schedule", *map(str, item["loc"])]), item["input"], in_our_words(item["msg"]))
                for item in error.errors(include_url=False)
            ]
        ) from None


def _metrics(schedule: ClosedLoop, request: PreviewRequest) -> list[dict[str, float]]:
    watched = schedule.monitor
    values = (request.metrics or {}).get(watched)
    if values is None or len(values) != request.epochs:
        got = "none" if values is None else len(values)
        raise _bad(
            f"metrics.{watched}",
            got,
            f"{schedule.type} reacts to this metric: give one value for each of the {request.epochs} epochs, got {got}",
        )
    return [{watched: math.nan if value is None else value} for value in values]


def _bad(field: str, value: Any, message: str) -> InvalidMessage:
    return InvalidMessage([FieldError(field, value, message)])
