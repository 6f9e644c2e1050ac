"""The rates of a whole training, one per optimizer step, with the warm-up prefix."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from studies.errors import ScheduleError
from studies.schedules.base import OpenLoop, Rates, Timeline


def rate_table(
    schedule: OpenLoop, base_rate: float, *, warmup: float, steps: int, steps_per_epoch: int, seed: int = 0
) -> NDArray[np.float32]:
    """The learning rate at each optimizer step: float32 (steps,), computed in float64.

    The first w = `warmup_steps(warmup, steps)` steps rise linearly, eta0 (s + 1) / w; the schedule
    spans the T - w steps that are left, its step 0 at s = w. seed: for schedules with noise.
    Raises ScheduleError where a rate is not a finite number, at least 0: see `checked`.
    """
    rates = rates_at(
        schedule, base_rate, np.arange(steps), warmup=warmup, steps=steps, steps_per_epoch=steps_per_epoch, seed=seed
    )
    w = warmup_steps(warmup, steps)
    return checked(schedule, base_rate, rates, np.arange(steps) - w, steps_per_epoch=steps_per_epoch, warmed_up=w > 0)


def checked(
    schedule: OpenLoop,
    base_rate: float,
    rates: Rates,
    step: NDArray[np.int64],
    *,
    steps_per_epoch: int,
    warmed_up: bool = False,
) -> NDArray[np.float32]:
    """The rates of these steps as float32. Raises ScheduleError for the first that is not finite, or is below 0.

    step: the schedule's own, from the end of the warm-up; warmed_up: whether there is one, for the message.
    """
    with np.errstate(over="ignore", under="ignore"):
        table = rates.astype(np.float32)
    bad = ~(np.isfinite(table) & (table >= 0))
    if bad.any():
        first = int(np.argmax(bad))
        own = "".join(f"{name} {value!r}, " for name, value in schedule.parameters.items())
        counted = ", counted from the end of the warm-up" if warmed_up else ""
        raise ScheduleError(
            f"{schedule.type} ({own}learning rate {base_rate:g}) gives the rate {rates[first]:g} at step {step[first]} "
            f"(epoch {step[first] // steps_per_epoch}{counted}); a rate must be a finite number, at least 0"
        )
    return table


def rates_at(
    schedule: OpenLoop,
    base_rate: float,
    step: NDArray[np.int64],
    *,
    warmup: float,
    steps: int,
    steps_per_epoch: int,
    seed: int = 0,
) -> Rates:
    """The learning rate at the given optimizer steps, also past the end: float64, the shape of `step`."""
    w = warmup_steps(warmup, steps)
    timeline = Timeline(np.maximum(step - w, 0), steps - w, steps_per_epoch, seed)
    rates = schedule.rates(base_rate, timeline)
    return np.where(step < w, warmup_rates(base_rate, step, w), rates)


def warmup_rates(base_rate: float, step: NDArray[np.int64], w: int) -> Rates:
    """eta0 (s + 1) / w: the last warm-up step has the base rate, the first is above zero."""
    return base_rate * (step + 1) / max(w, 1)


def warmup_steps(warmup: float, steps: int) -> int:
    """The whole number of warm-up steps: a fraction of all, leaving at least one to the schedule."""
    return min(round(warmup * steps), steps - 1)
