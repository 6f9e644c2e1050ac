"""What holds for every open-loop schedule, and the warm-up prefix that composes with each.

The formulas stand in formulas.py; stories about single families in test_schedules_decays.py and its
neighbours; the closed-loop ones in test_plateau.py and test_adaptive.py; other libraries' own classes in
test_keras_parity.py and test_tensorflow_parity.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studies.parameters import ParameterInfo
from studies.schedules import describe
from studies.schedules.table import rate_table
from tests.studies.curves import (
    OPEN_LOOP,
    SIZES,
    TRAINED,
    assert_whole_curve,
    expected_rates,
    open_loop,
    random_parameters,
    rates_of,
    table,
    trainings,
)
from tests.studies.formulas import CASES

STAY = [name for name, case in CASES.items() if case.past_the_end == "stays"]
FALL = [name for name, case in CASES.items() if case.past_the_end == "falls"]


def test_every_open_loop_schedule_has_its_formula_in_the_table() -> None:
    assert set(CASES) == set(OPEN_LOOP)
    for name, case in CASES.items():
        own = set(case.parameters) - set(open_loop(name).parameters)
        assert set(open_loop(name).parameters) <= set(case.parameters), name
        assert not own or describe(name).own_parameters, name


# --- the curves


@pytest.mark.parametrize("name", OPEN_LOOP)
@settings(max_examples=60)
@given(data=st.data())
def test_every_open_loop_schedule_equals_its_formula_on_random_trainings(name: str, data: st.DataObject) -> None:
    """With warm-ups, broken last epochs, and far past the end."""
    training, parameters = data.draw(trainings()), data.draw(random_parameters(name))
    assert_whole_curve(name, **training, **parameters)


@pytest.mark.parametrize(("name", "parameters"), [*((name, {}) for name in OPEN_LOOP), *TRAINED], ids=str)
def test_every_open_loop_schedule_equals_its_formula_in_trainings_of_every_size(
    name: str, parameters: dict[str, Any]
) -> None:
    if name == "noisy_linear_cosine":
        parameters = {**parameters, "initial_variance": 0.0}
    for steps, per_epoch in SIZES:
        assert_whole_curve(name, 0.1, steps, per_epoch, **parameters)


@pytest.mark.parametrize("name", OPEN_LOOP)
@settings(max_examples=30)
@given(data=st.data())
def test_every_open_loop_schedule_starts_and_ends_where_its_documents_say(name: str, data: st.DataObject) -> None:
    training, parameters = data.draw(trainings()), data.draw(random_parameters(name))
    base, steps = training["base"], training["steps"]
    first, at_end = rates_of(open_loop(name, **parameters), base, [0, steps], steps, training["per_epoch"])
    assert first == pytest.approx(base * CASES[name].first(**parameters), rel=1e-9)
    promised = CASES[name].at_end(**parameters)
    assert np.isnan(promised) or at_end == pytest.approx(base * promised, rel=1e-9, abs=1e-12 * base)


@pytest.mark.parametrize("name", STAY)
@settings(max_examples=30)
@given(data=st.data())
def test_a_schedule_that_reached_its_end_stays_there(name: str, data: st.DataObject) -> None:
    parameters = data.draw(random_parameters(name))
    # Cycles of a polynomial, and drops every so many epochs, go on.
    parameters |= {"step": {"every": 0}, "polynomial": {"cycles": 1}}.get(name, {})
    steps, per_epoch = data.draw(st.integers(1, 300)), data.draw(st.integers(1, 50))
    end = steps + per_epoch  # from here on no whole epoch is broken
    after = [end, end + 1, end + 17, 1000 * end]
    assert len(set(rates_of(open_loop(name, **parameters), 0.1, after, steps, per_epoch))) == 1


@pytest.mark.parametrize("name", FALL)
@settings(max_examples=30)
@given(data=st.data())
def test_a_decay_without_an_end_goes_on_falling(name: str, data: st.DataObject) -> None:
    parameters, steps = data.draw(random_parameters(name)), data.draw(st.integers(1, 300))
    rates = rates_of(open_loop(name, **parameters), 0.1, [steps, 2 * steps, 3 * steps, 50 * steps], steps)
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < rates[0] or parameters.get("final_ratio") == 1


# --- for all values that the parameters may have


def whole_domain(parameter: ParameterInfo) -> st.SearchStrategy[Any]:
    """All that the bounds of the catalogue let through; where there is none, twelve decades.

    A float begins no lower than 1e-30: nobody means less, and dividing by less is no number.
    """
    if parameter.options is not None:
        return st.sampled_from(parameter.options)
    low, high = parameter.low, parameter.high
    assert low is not None
    if parameter.kind == "int":
        return st.integers(int(low), 10**6 if high is None else int(high))
    if low == 0 and not parameter.low_included:
        low = 1e-30
    return st.floats(
        low,
        1e12 if high is None else high,
        exclude_min=not parameter.low_included and low != 1e-30,
        exclude_max=not parameter.high_included,
        allow_subnormal=False,
    )


def whole_space(name: str) -> st.SearchStrategy[dict[str, Any]]:
    if describe(name).own_parameters:
        return random_parameters(name)
    return st.fixed_dictionaries({parameter.name: whole_domain(parameter) for parameter in describe(name).parameters})


@pytest.mark.parametrize("name", OPEN_LOOP)
@settings(max_examples=50)
@given(
    data=st.data(),
    base=st.floats(1e-6, 1e4),
    steps=st.integers(1, 300),
    per_epoch=st.integers(1, 50),
    warmup=st.one_of(st.just(0.0), st.floats(0, 0.9)),
    seed=st.integers(0, 2**31 - 1),
)
def test_every_open_loop_table_is_finite_never_negative_and_never_above_the_base_rate(
    name: str, data: st.DataObject, base: float, steps: int, per_epoch: int, warmup: float, seed: int
) -> None:
    parameters = data.draw(whole_space(name))
    schedule = open_loop(name, **parameters)
    rates = rate_table(schedule, base, warmup=warmup, steps=steps, steps_per_epoch=per_epoch, seed=seed)
    highest = np.float32(base * max(1.0, CASES[name].highest(**parameters)))
    assert rates.dtype == np.float32
    assert rates.shape == (steps,)
    assert np.all(np.isfinite(rates))
    assert np.all(rates >= 0)
    assert np.all(rates <= np.nextafter(highest, np.float32(np.inf)))


@pytest.mark.parametrize("name", [name for name in OPEN_LOOP if name != "noisy_linear_cosine"])
@settings(max_examples=30)
@given(
    data=st.data(),
    base=st.floats(1e-6, 1e4),
    steps=st.integers(1, 300),
    per_epoch=st.integers(1, 50),
    warmup_steps=st.integers(0, 250),
)
def test_every_open_loop_table_starts_at_its_first_rate_or_with_the_first_share_of_the_warm_up(
    name: str, data: st.DataObject, base: float, steps: int, per_epoch: int, warmup_steps: int
) -> None:
    parameters = data.draw(whole_space(name))
    w = min(warmup_steps, int(0.9 * steps))
    rates = rate_table(open_loop(name, **parameters), base, warmup=w / steps, steps=steps, steps_per_epoch=per_epoch)
    first = base * CASES[name].first(**parameters)
    assert rates[0] == pytest.approx(base / w if w else first, rel=1e-6)
    assert rates[w] == pytest.approx(first, rel=1e-6)


# --- the warm-up prefix


def test_warm_up_prefix_rises_linearly_and_its_first_step_is_not_zero() -> None:
    rates = table("constant", 0.5, steps=10, warmup=0.4)
    assert rates == [0.125, 0.25, 0.375, 0.5] + [0.5] * 6


def test_warm_up_prefix_moves_the_schedule_to_the_steps_that_are_left() -> None:
    assert table("linear", 1.0, steps=8, warmup=0.5) == [0.25, 0.5, 0.75, 1.0, 1.0, 0.75, 0.5, 0.25]


@pytest.mark.parametrize(
    ("warmup", "steps", "expected"),
    [
        (0.0, 50, 0),
        (0.1, 100, 10),
        (0.25, 97, 24),
        (0.3, 7, 2),
        (0.001, 100, 0),
        (0.9, 10, 9),
        (0.9, 4, 3),
        (0.9, 1, 0),
    ],
)
def test_warm_up_prefix_is_a_fraction_of_training_that_leaves_a_step_to_the_schedule(
    warmup: float, steps: int, expected: int
) -> None:
    rates = table("constant", 1.0, steps, warmup=warmup)
    assert sum(rate < 1.0 for rate in rates) == max(expected - 1, 0)
    if expected:
        assert rates[0] == pytest.approx(1 / expected, rel=1e-7)
    assert rates[-1] == 1.0


@pytest.mark.parametrize("name", OPEN_LOOP)
@pytest.mark.parametrize(("steps", "per_epoch", "warmup_steps"), [(60, 10, 20), (97, 8, 13), (10, 10, 9), (33, 1, 1)])
def test_warm_up_prefix_composes_with_every_open_loop_schedule(
    name: str, steps: int, per_epoch: int, warmup_steps: int
) -> None:
    rates = table(name, 0.3, steps, per_epoch, warmup_steps / steps)
    rise = [0.3 * (step + 1) / warmup_steps for step in range(warmup_steps)]
    assert rates[:warmup_steps] == pytest.approx(rise, rel=1e-7)
    assert rates[warmup_steps:] == table(name, 0.3, steps - warmup_steps, per_epoch)


def test_formulas_of_the_tests_have_the_warm_up_too() -> None:
    assert expected_rates("linear", {}, 1.0, 8, 1, 4) == [0.25, 0.5, 0.75, 1.0, 1.0, 0.75, 0.5, 0.25]
