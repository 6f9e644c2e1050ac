"""The rates of a whole training, one per optimizer step, with the warm-up prefix."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from studies.schedules.base import OpenLoop, Rates, Timeline


def rate_table(
    schedule: OpenLoop, base_rate: float, *, warmup: float, steps: int, steps_per_epoch: int
) -> NDArray[np.float32]:
    """The learning rate at each optimizer step: float32 (steps,), computed in float64.

    The first w = `warmup_steps(warmup, steps)` steps rise linearly, eta0 (s + 1) / w; the schedule
    spans the T - w steps that are left, its step 0 at s = w.
    """
    return rates_at(
        schedule, base_rate, np.arange(steps), warmup=warmup, steps=steps, steps_per_epoch=steps_per_epoch
    ).astype(np.float32)


def rates_at(
    schedule: OpenLoop,
    base_rate: float,
    step: NDArray[np.int64],
    *,
    warmup: float,
    steps: int,
    steps_per_epoch: int,
) -> Rates:
    """The learning rate at the given optimizer steps, also past the end: float64, the shape of `step`."""
    w = warmup_steps(warmup, steps)
    timeline = Timeline(np.maximum(step - w, 0), steps - w, steps_per_epoch)
    rates = schedule.rates(base_rate, timeline)
    return np.where(step < w, warmup_rates(base_rate, step, w), rates)


def warmup_rates(base_rate: float, step: NDArray[np.int64], w: int) -> Rates:
    """eta0 (s + 1) / w: the last warm-up step has the base rate, the first is above zero."""
    return base_rate * (step + 1) / max(w, 1)


def warmup_steps(warmup: float, steps: int) -> int:
    """The whole number of warm-up steps: a fraction of all, leaving at least one to the schedule."""
    return min(round(warmup * steps), steps - 1)
