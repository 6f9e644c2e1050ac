"""The catalogue: what it says of every schedule, and which parameters it lets through.

The defaults, bounds and search domains of the open-loop schedules are written out here once more, from the
documents.
"""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
from pydantic import ValidationError

from studies.errors import NotFound
from studies.parameters import ParameterInfo
from studies.schedules import CATALOGUE, DEFAULT_SCHEDULES, describe, make
from tests.studies.curves import OPEN_LOOP, table


def between(low: float, high: float) -> dict[str, Any]:
    return {"low": low, "high": high}


def decades(low: float, high: float) -> dict[str, Any]:
    return {"low": low, "high": high, "log": True}


ALPHA = ("[0, 1]", 0.0, [0.0, 1e-4, 1e-3, 0.01, 0.1])
STAIRS = ("[0, 1000]", 0, [0, 3, 5, 10, 20])
BREAK = ("(0, 1)", 0.5, between(0.1, 0.9))
RATIO = ("(0, 1]", 0.1, decades(0.05, 1.0))
LINEAR_COSINE = {
    "periods": ("(0, 1000]", 0.5, [0.5, 1.5, 2.5]),
    "alpha": ("[0, 1]", 0.0, 0.0),
    "beta": ("[0, 1]", 0.001, decades(1e-4, 0.1)),
}
KAPPA = ("(0, inf)", 10.0, decades(0.1, 1000.0))

DOCUMENTED: dict[str, dict[str, tuple[Any, Any, Any]]] = {
    # type: parameter: bounds or options, default, what is searched (the default: nothing)
    "constant": {},
    "step": {
        "factor": ("(0, 1)", 0.1, [0.1, 0.2, 0.25, 0.5]),
        "drops": ("[1, 1000]", 2, between(1, 6)),
        "every": ("[0, 1000000]", 0, 0),
    },
    "piecewise_constant": {
        "boundaries": ("[1, 4]", 2, between(1, 4)),
        **{f"break_{i}": BREAK for i in (1, 2, 3, 4)},
        **{f"ratio_{i}": RATIO for i in (1, 2, 3, 4)},
    },
    "time_decay": {"final_ratio": ("(0, 1]", 0.1, decades(1e-3, 0.5))},
    "exponential": {"final_ratio": ("(0, 1]", 0.01, decades(1e-4, 0.5)), "stairs": STAIRS},
    "natural_exponential": {"kappa": ("(0, 100]", math.log(100), between(0.693, 9.21)), "stairs": STAIRS},
    "inverse_time": {"kappa": KAPPA, "stairs": STAIRS},
    "inverse_time_power": {"kappa": KAPPA, "power": ("[0.01, 10]", 0.75, between(0.25, 2.0))},
    "inverse_sqrt": {"tau": ("(0, 100]", 0.1, decades(1e-3, 1.0))},
    "polynomial": {
        "power": ("(0, 100]", 2.0, decades(0.3, 8.0)),
        "alpha": ALPHA,
        "cycles": ("[1, 100]", 1, 1),
    },
    "linear": {"alpha": ALPHA},
    "cosine": {"alpha": ALPHA, "power": ("(0, 100]", 1.0, 1.0)},
    "cosine_restarts": {
        "cycles": ("[1, 100]", 3, between(1, 5)),
        "t_mul": ("[1, 10]", 2.0, [1.0, 1.5, 2.0, 3.0]),
        "m_mul": ("(0, 1]", 1.0, between(0.3, 1.0)),
        "alpha": ALPHA,
    },
    "linear_cosine": LINEAR_COSINE,
    "noisy_linear_cosine": {
        **LINEAR_COSINE,
        "initial_variance": ("[0, 10]", 1.0, decades(1e-3, 1.0)),
        "variance_decay": ("[0, 10]", 0.55, between(0.3, 1.0)),
    },
    "one_cycle": {
        "pct_start": ("(0, 1)", 0.3, between(0.05, 0.5)),
        "div": ("[1, 1e+12]", 25.0, decades(5.0, 100.0)),
        "final_div": ("[1, 1e+12]", 1e4, decades(100.0, 1e5)),
        "anneal": (["cosine", "linear"], "cosine", ["cosine", "linear"]),
    },
    "cyclical": {
        "cycles": ("[1, 1000]", 4, between(1, 8)),
        "span": ("(1, 1e+12]", 10.0, decades(3.0, 100.0)),
        "mode": (["triangular", "triangular2", "exp_range"], "triangular", ["triangular", "triangular2", "exp_range"]),
        "final_ratio": ("(0, 1]", 0.1, 0.1),
    },
    "wsd": {
        "cooldown": ("(0, 1]", 0.2, between(0.05, 0.5)),
        "shape": (["linear", "1-sqrt", "cosine"], "1-sqrt", "1-sqrt"),
        "alpha": ALPHA,
    },
    "rex": {"beta": ("(0, 100]", 0.5, decades(0.1, 3.0))},
    "k_decay": {
        "k": ("(0, 100]", 1.5, decades(0.5, 5.0)),
        "shape": (["cosine", "polynomial"], "cosine", "cosine"),
        "power": ("(0, 100]", 1.0, 1.0),
        "alpha": ALPHA,
    },
    "tanh": {"lower": ("[-20, 0]", -7.0, between(-9.0, -2.0)), "upper": ("[0, 20]", 3.0, between(1.0, 5.0))},
    "hold_then_decay": {
        "hold": ("[0, 0.99]", 0.5, between(0.0, 0.9)),
        "shape": (["exponential", "linear", "cosine"], "cosine", ["exponential", "linear", "cosine"]),
        "alpha": ("(0, 1]", 0.01, decades(1e-4, 0.1)),
    },
    "spline": {
        "x0": ("[0, 0.99]", 0.1, between(0.0, 0.9)),
        "gap_1": ("[0.01, 0.99]", 0.4, between(0.05, 0.95)),
        "gap_2": ("[0.01, 0.99]", 0.5, between(0.05, 0.95)),
        "y1": ("[0, 1]", 0.6, between(0.0, 1.0)),
        "drop": ("[0, 1]", 0.3, between(0.0, 1.0)),
    },
}
PARAMETERS = [(name, parameter) for name, parameters in DOCUMENTED.items() for parameter in parameters]


def info(name: str, parameter: str) -> ParameterInfo:
    (found,) = [info for info in describe(name).parameters if info.name == parameter]
    return found


def bounds_in_words(info: ParameterInfo) -> str:
    low = f"{'[' if info.low_included else '('}{info.low:.7g}"
    return f"{low}, inf)" if info.high is None else f"{low}, {info.high:.7g}{']' if info.high_included else ')'}"


def test_the_catalogue_has_at_least_29_types() -> None:
    assert len(CATALOGUE) >= 29
    assert set(DOCUMENTED) <= set(OPEN_LOOP)
    assert {"reduce_on_plateau", "plateau_with_revert", "adaptive_validation", "greedy"} <= set(CATALOGUE)
    assert {"expression", "custom"} <= set(OPEN_LOOP)


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_schedule_of_the_catalogue_is_described_and_made_at_its_defaults(name: str) -> None:
    info = describe(name)
    assert info.type == name == make(name).type
    assert info.loop == CATALOGUE[name].loop
    assert info.summary.endswith(".")
    assert info.formula
    assert info.source
    assert info.helps.endswith(".")
    assert info.pitfalls.endswith(".")
    for parameter in info.parameters:
        assert parameter.default is not None, parameter.name
        assert parameter.description, parameter.name
        assert make(name, **{parameter.name: parameter.default}).parameters == make(name).parameters


@pytest.mark.parametrize("name", DOCUMENTED)
def test_the_parameters_of_a_schedule_are_those_of_the_documents(name: str) -> None:
    assert [parameter.name for parameter in describe(name).parameters] == list(DOCUMENTED[name])


@pytest.mark.parametrize(("name", "parameter"), PARAMETERS)
def test_the_catalogue_states_default_bounds_and_search_of_a_parameter(name: str, parameter: str) -> None:
    found = info(name, parameter)
    bounds, default, search = DOCUMENTED[name][parameter]
    assert (found.options or bounds_in_words(found)) == bounds
    if isinstance(bounds, list):
        assert (found.default, found.search) == (default, search)
    else:
        assert found.default == pytest.approx(default, rel=1e-12)
        assert found.search == pytest.approx(search, rel=1e-3)


@pytest.mark.parametrize(("name", "parameter"), PARAMETERS)
def test_a_parameter_takes_what_is_within_its_bounds_and_nothing_else(name: str, parameter: str) -> None:
    bounds, default, _ = DOCUMENTED[name][parameter]
    good, bad = [default], [math.nan, math.inf, "much", None]
    if isinstance(bounds, list):
        good, bad = [*bounds], [*bad, 1, "Cosine", ""]
    else:
        match = re.fullmatch(r"([\[(])(\S+), (\S+)([\])])", bounds)
        assert match
        opens, low, high, closes = match[1], float(match[2]), float(match[3]), match[4]
        whole = isinstance(default, int)
        (good if opens == "[" else bad).append(int(low) if whole else low)
        bad += [low - (1 if whole else 1e-9), *([default + 0.5] if whole else [])]
        if high < math.inf:
            (good if closes == "]" else bad).append(int(high) if whole else high)
            bad.append(high + (1 if whole else max(1e-9, 1e-9 * high)))
        else:
            good.append(1e12)
    for value in good:
        assert make(name, **{parameter: value}).parameters[parameter] == value
    for value in bad:
        with pytest.raises(ValidationError, match=parameter):
            make(name, **{parameter: value})


def test_unknown_schedule_is_refused_with_the_closest_name() -> None:
    with pytest.raises(NotFound, match="no schedule 'cosine_restart'; did you mean 'cosine_restarts'"):
        make("cosine_restart")


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("cosine", {"name": 1}),
        ("constant", {"rate": 0.1}),
        ("reduce_on_plateau", {"factor": 1.0}),
        ("reduce_on_plateau", {"patience": 0}),
        ("reduce_on_plateau", {"mode": "up"}),
        ("plateau_with_revert", {"min_ratio": 1.5}),
    ],
)
def test_schedule_with_an_impossible_parameter_is_refused(name: str, parameters: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(parameters))):
        make(name, **parameters)


def test_default_schedules_are_in_the_catalogue_and_no_two_give_the_same_rates() -> None:
    assert set(DEFAULT_SCHEDULES) <= set(CATALOGUE)
    assert len(set(DEFAULT_SCHEDULES)) == len(DEFAULT_SCHEDULES)
    assert "linear" not in DEFAULT_SCHEDULES, "linear is polynomial with power 1"
    curves = [tuple(table(name, 1.0, 100, 10)) for name in DEFAULT_SCHEDULES if name in OPEN_LOOP]
    assert len(set(curves)) == len(curves)
