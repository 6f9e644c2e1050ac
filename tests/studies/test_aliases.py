"""A schedule that is another one in other words is no second contender of the same study."""

from __future__ import annotations

import math
from typing import Any

import pytest

from studies.definition import read_definition
from studies.errors import InvalidDefinition
from studies.schedules import CATALOGUE


def refused(*schedules: Any) -> list[tuple[str, str]]:
    """The fields that a study of these schedules is refused for, with the messages."""
    try:
        read_definition({"name": "aliases", "tasks": ["digits-mlp"], "schedules": list(schedules)})
    except InvalidDefinition as error:
        return [(field.field, field.message) for field in error.fields]
    return []


PAIRS = [("linear", "polynomial"), ("natural_exponential", "exponential"), ("time_decay", "inverse_time")]


def test_every_alias_of_the_catalogue_is_tried_here() -> None:
    assert {(name, model.alias_of) for name, model in CATALOGUE.items() if model.alias_of} == set(PAIRS)


@pytest.mark.parametrize(("alias", "general"), PAIRS)
def test_an_alias_beside_the_schedule_that_covers_it_is_refused(alias: str, general: str) -> None:
    ((field, message),) = refused("constant", general, alias)
    assert field == "schedules[2]"
    assert f"{alias} is {general} in other words" in message
    assert refused(alias, "constant", general)[0][0] == "schedules[0]"
    assert not refused("constant", alias)
    assert not refused("constant", general)


@pytest.mark.parametrize(
    ("alias", "general"),
    [
        ({"type": "linear", "alpha": 0.0}, {"type": "polynomial", "power": 5.0}),
        ({"type": "linear", "alpha": 0.5}, {"type": "polynomial", "power": 1.0, "alpha": [0.0, 0.1]}),
        ({"type": "natural_exponential", "kappa": 3.0, "stairs": 0}, {"type": "exponential", "final_ratio": 0.01}),
        ({"type": "natural_exponential", "stairs": 0}, {"type": "exponential", "stairs": [3, 5]}),
        ({"type": "time_decay", "final_ratio": 0.5}, {"type": "inverse_time", "kappa": {"low": 2, "high": 9}}),
        ({"type": "time_decay"}, {"type": "inverse_time", "stairs": 10}),
    ],
)
def test_an_alias_is_welcome_where_the_two_differ(alias: Any, general: Any) -> None:
    assert not refused(alias, general)


@pytest.mark.parametrize(
    ("alias", "general"),
    [
        ({"type": "linear", "alpha": [0.0, 0.1]}, {"type": "polynomial", "power": [1.0, 5.0], "alpha": 0.1}),
        (
            {"type": "natural_exponential", "kappa": math.log(100)},
            {"type": "exponential", "final_ratio": [0.5, 0.01]},
        ),
        (
            {"type": "natural_exponential", "kappa": {"low": 1.0, "high": 2.0}},
            {"type": "exponential", "final_ratio": {"low": 0.2, "high": 0.9}},
        ),
        ({"type": "time_decay", "final_ratio": 0.25}, {"type": "inverse_time", "kappa": 3, "stairs": [0, 5]}),
    ],
)
def test_an_alias_is_refused_where_one_point_is_in_both_spaces(alias: Any, general: Any) -> None:
    assert refused(alias, general)
