"""Rates of the open-loop schedules as our tables have them, beside those that the formulas of the tests give."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from studies.schedules import CATALOGUE, OpenLoop, make
from studies.schedules.table import rate_table, rates_at
from studies.space import Value
from tests.studies.case import Ratio
from tests.studies.formulas import CASES

OPEN_LOOP = [name for name, model in CATALOGUE.items() if model.loop == "open"]

SIZES = [(1, 1), (1, 8), (2, 1), (5, 20), (7, 3), (10, 10), (10, 4), (97, 8), (100, 10), (240, 12), (1000, 33)]
"""(steps, steps per epoch): whole epochs, broken last epochs, fewer steps than an epoch has, a single step."""

TRAINED: list[tuple[str, dict[str, Value]]] = [
    (name, parameters) for name, case in CASES.items() for parameters in case.trained
]
"""Every open-loop type at the parameters that models are trained with."""


def open_loop(name: str, **parameters: Any) -> OpenLoop:
    schedule = make(name, **parameters)
    assert isinstance(schedule, OpenLoop)
    return schedule


def formula(name: str, **parameters: Any) -> Ratio:
    """The type's formula of the tests; parameters that are left out have their defaults."""
    return CASES[name].formula(**open_loop(name, **parameters).parameters)


def table(
    name: str, base: float, steps: int, per_epoch: int = 1, warmup: float = 0.0, **parameters: Any
) -> list[float]:
    rates = rate_table(open_loop(name, **parameters), base, warmup=warmup, steps=steps, steps_per_epoch=per_epoch)
    assert rates.dtype == np.float32
    assert rates.shape == (steps,)
    return [float(rate) for rate in rates]


def rates_of(schedule: OpenLoop, base: float, step: list[int], steps: int, per_epoch: int = 1) -> list[float]:
    """The rates at some steps of a training without a warm-up, before the table rounds them."""
    rates = rates_at(schedule, base, np.array(step), warmup=0.0, steps=steps, steps_per_epoch=per_epoch)
    assert rates.dtype == np.float64
    return [float(rate) for rate in rates]


def past_the_end(name: str, base: float, steps: int, per_epoch: int = 1, **parameters: Any) -> list[float]:
    later = [steps, steps + 1, 2 * steps, 100 * steps + 7]
    return rates_of(open_loop(name, **parameters), base, later, steps, per_epoch)


def expected_rates(
    name: str,
    parameters: dict[str, Any],
    base: float,
    steps: int,
    per_epoch: int,
    warmup_steps: int = 0,
    at: range | list[int] | None = None,
) -> list[float]:
    """The rates that the formula of the tests gives at these steps, by default of the whole training."""
    ratio, total = formula(name, **parameters), steps - warmup_steps

    def rate(step: int) -> float:
        if step < warmup_steps:
            return base * (step + 1) / warmup_steps
        return base * ratio(step - warmup_steps, total, per_epoch)

    return [rate(step) for step in (range(steps) if at is None else at)]


def assert_whole_curve(
    name: str, base: float, steps: int, per_epoch: int, warmup_steps: int = 0, **parameters: Any
) -> None:
    """The table is the formula's to float32 precision; so are the rates far past the end, to float64's."""
    warmup = warmup_steps / steps
    at = [*range(steps + steps // 2 + 2), 2 * steps, 3 * steps + 1, 100 * steps + 7]
    expected = np.array(expected_rates(name, parameters, base, steps, per_epoch, warmup_steps, at))
    rates = table(name, base, steps, per_epoch, warmup, **parameters)
    one_rounding, message = 2.0**-23, f"{name} {parameters}"
    np.testing.assert_allclose(rates, expected[:steps], rtol=one_rounding, atol=1e-14 * base, err_msg=message)
    further = rates_at(
        open_loop(name, **parameters),
        base,
        np.array(at),
        warmup=warmup,
        steps=steps,
        steps_per_epoch=per_epoch,
    )
    np.testing.assert_allclose(further, expected, rtol=1e-9, atol=1e-12 * base, err_msg=message)


@st.composite
def trainings(draw: st.DrawFn, longest: int = 120) -> dict[str, Any]:
    """Random trainings: base rate, steps, steps per epoch, warm-up."""
    steps = draw(st.integers(1, longest))
    return {
        "base": draw(st.floats(1e-6, 10)),
        "steps": steps,
        "per_epoch": draw(st.integers(1, 40)),
        "warmup_steps": draw(st.one_of(st.just(0), st.integers(0, int(0.9 * steps)))),
    }


def random_parameters(name: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(CASES[name].parameters)
