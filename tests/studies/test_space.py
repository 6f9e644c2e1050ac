"""Domains and spaces: how a point of the unit cube becomes values."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import stats

from studies.definition import StudyDefinition, read_definition
from studies.parameters import write_domain
from studies.schedules import CATALOGUE
from studies.space import POINT_DIMENSIONS, Choice, Fixed, FlatSpace, JointSpace, Range, read_domain

ALMOST_1 = math.nextafter(1.0, 0.0)
DRAWS = np.random.default_rng(0).random(20_000)


def definition(**changes: Any) -> StudyDefinition:
    return read_definition({"name": "a-study", "tasks": ["digits-mlp"], **changes})


# --- one domain

RANGES = [
    Range(low=0.001, high=1.0),
    Range(low=0.001, high=1.0, log=True),
    Range(low=1e-5, high=3e-2, log=True),
    Range(low=-2.0, high=5.0),
    Range(low=1, high=6, integer=True),
    Range(low=-3, high=3, integer=True),
    Range(low=1, high=1000, log=True, integer=True),
    Range(low=16, high=17, log=True, integer=True),
]


@pytest.mark.parametrize("domain", RANGES, ids=str)
def test_range_goes_from_its_low_to_its_high_end(domain: Range) -> None:
    assert domain.at(0.0) == pytest.approx(domain.low, rel=1e-12)
    assert domain.at(ALMOST_1) == pytest.approx(domain.high, rel=1e-12)
    values = [domain.at(float(u)) for u in np.sort(DRAWS)]
    assert all(domain.low <= float(value) <= domain.high for value in values)
    assert values == sorted(values, key=float)
    assert {type(value) for value in values} == {int if domain.integer else float}


@given(
    ends=st.tuples(st.floats(1e-12, 1e6), st.floats(1e-12, 1e6)).filter(lambda ends: ends[0] != ends[1]),
    log=st.booleans(),
    u=st.floats(0, 1, exclude_max=True),
)
def test_range_never_leaves_its_ends(ends: tuple[float, float], log: bool, u: float) -> None:
    domain = Range(low=min(ends), high=max(ends), log=log)
    assert domain.low <= float(domain.at(u)) <= domain.high


def test_uniform_range_is_uniform() -> None:
    values = [Range(low=-2.0, high=5.0).at(float(u)) for u in DRAWS]
    assert stats.kstest(values, stats.uniform(-2, 7).cdf).pvalue > 0.01


@pytest.mark.parametrize(("low", "high"), [(1e-3, 1.0), (1e-5, 3e-2), (0.1, 1000.0)])
def test_log_range_is_log_uniform(low: float, high: float) -> None:
    values = [Range(low=low, high=high, log=True).at(float(u)) for u in DRAWS]
    assert stats.kstest(values, stats.loguniform(low, high).cdf).pvalue > 0.01
    assert stats.kstest(values, stats.uniform(low, high - low).cdf).pvalue < 1e-9


@pytest.mark.parametrize(("low", "high"), [(1, 6), (0, 1), (-3, 3), (2, 100)])
def test_integers_of_a_range_are_equally_likely(low: int, high: int) -> None:
    drawn = Counter(Range(low=low, high=high, integer=True).at(float(u)) for u in DRAWS)
    assert sorted(drawn, key=int) == list(range(low, high + 1))
    assert stats.chisquare(list(drawn.values())).pvalue > 0.01


def test_integers_of_a_log_range_are_as_likely_as_their_share_of_the_log_scale() -> None:
    low, high = 4, 32
    drawn = Counter(Range(low=low, high=high, log=True, integer=True).at(float(u)) for u in DRAWS)
    whole = range(low, high + 1)
    shares = [math.log((n + 0.5) / (n - 0.5)) / math.log((high + 0.5) / (low - 0.5)) for n in whole]
    assert stats.chisquare([drawn[n] for n in whole], [share * len(DRAWS) for share in shares]).pvalue > 0.01


@pytest.mark.parametrize("values", [(0.1,), (True, False), (0, 3, 5, 10, 20), ("a", "b", "c")], ids=str)
def test_choices_are_equally_likely_and_keep_their_types(values: tuple[Any, ...]) -> None:
    domain = Choice(values=values)
    drawn = Counter(domain.at(float(u)) for u in DRAWS)
    assert {(type(value), value) for value in drawn} == {(type(value), value) for value in values}
    assert stats.chisquare(list(drawn.values())).pvalue > 0.01 or len(values) == 1
    assert domain.at(0.0) is values[0]
    assert domain.at(ALMOST_1) is values[-1]


@pytest.mark.parametrize("value", [0.1, 3, True, "val_loss"])
def test_fixed_value_is_the_same_everywhere(value: Any) -> None:
    assert all(Fixed(value=value).at(u) is value for u in (0.0, 0.5, ALMOST_1))


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ({"low": 1.0, "high": 0.0}, r"`low < high` must hold, but got \(low=1.0, high=0.0\)"),
        ({"low": 1, "high": 1}, "`low < high` must hold"),
        ({"low": 0.0, "high": 1.0, "log": True}, r"`low > 0` must hold on a log scale, but got \(low=0.0\)"),
        ({"low": -1, "high": 1, "log": True}, "`low > 0` must hold"),
        ({"low": 0.0, "high": math.inf}, "finite"),
        ({"low": math.nan, "high": 1.0}, "finite"),
    ],
)
def test_impossible_range_is_refused_with_what_it_got(made: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Range(**made)


@pytest.mark.parametrize("values", [(), (1, 1), ("a", "b", "a"), tuple(range(101))])
def test_impossible_choice_is_refused(values: tuple[Any, ...]) -> None:
    with pytest.raises(ValidationError):
        Choice(values=values)


def test_true_and_1_are_different_choices() -> None:
    assert [type(value) for value in Choice(values=(True, 1, 1.0)).values] == [bool, int, float]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (0.1, {"kind": "fixed", "value": 0.1}),
        ("min", {"kind": "fixed", "value": "min"}),
        ([1, 2], {"kind": "choice", "values": [1, 2]}),
        ({"low": 1, "high": 2}, {"kind": "range", "low": 1, "high": 2}),
        ({"low": 1, "high": 2, "log": True}, {"kind": "range", "low": 1, "high": 2, "log": True}),
    ],
)
def test_domain_is_read_as_people_write_it(written: Any, expected: dict[str, Any]) -> None:
    assert read_domain(written) == expected


@pytest.mark.parametrize(
    ("domain", "written"),
    [
        (Fixed(value=True), True),
        (Choice(values=(1, "a")), [1, "a"]),
        (Range(low=0.1, high=1.0), {"low": 0.1, "high": 1.0}),
        (Range(low=0.1, high=1.0, log=True), {"low": 0.1, "high": 1.0, "log": True}),
        (Range(low=1, high=4, integer=True), {"low": 1, "high": 4}),
    ],
    ids=str,
)
def test_domain_is_written_as_people_write_it(domain: Any, written: Any) -> None:
    assert write_domain(domain) == written
    assert read_domain(domain) == domain.model_dump()


# --- flat and joint spaces


def test_point_of_a_flat_space_uses_one_coordinate_per_searched_parameter_in_order() -> None:
    space = FlatSpace(
        schedule="cosine",
        domains={
            "a": Range(low=0.0, high=10.0),
            "b": Fixed(value="still"),
            "c": Choice(values=("x", "y")),
            "d": Range(low=1, high=4, integer=True),
        },
    )
    assert space.at([0.25, 0.75, 0.5, 0.9]) == {"a": 2.5, "b": "still", "c": "y", "d": 3}
    assert space.at(np.array([0.25, 0.75, 0.5])) == {"a": 2.5, "b": "still", "c": "y", "d": 3}


def joint_space(study: StudyDefinition) -> JointSpace:
    """As the director makes it, from the spaces of the arms."""
    return JointSpace(branches=tuple(study.arm_space(entry.type) for entry in study.schedules))


def test_point_of_a_joint_space_chooses_the_schedule_first() -> None:
    space = JointSpace(
        branches=tuple(
            FlatSpace(schedule=name, domains={"learning_rate": Range(low=0.0, high=1.0), name: Fixed(value=1)})
            for name in ("constant", "cosine", "step")
        )
    )
    assert space.at([0.0, 0.5]) == ("constant", {"learning_rate": 0.5, "constant": 1})
    assert space.at([0.34, 0.25]) == ("cosine", {"learning_rate": 0.25, "cosine": 1})
    assert space.at([ALMOST_1, 0.75]) == ("step", {"learning_rate": 0.75, "step": 1})
    drawn = Counter(space.at([float(u), 0.5])[0] for u in DRAWS)
    assert stats.chisquare(list(drawn.values())).pvalue > 0.01
    assert space.branch("cosine").schedule == "cosine"


CONTENDERS = [name for name, model in CATALOGUE.items() if model.alias_of is None]
"""All types that one study may hold at their default ranges."""

EVERYTHING_SEARCHED: dict[str, Any] = {
    "schedules": CONTENDERS,
    "optimizer": {"type": "sgd", "momentum": {"low": 0.0, "high": 0.99}, "nesterov": [True, False]},
    "warmup": {"low": 0.0, "high": 0.3},
    "batch_size": [32, 64, 128],
    "weight_decay": {"low": 1e-6, "high": 1e-2, "log": True},
}


@pytest.mark.parametrize("changes", [{"schedules": CONTENDERS}, EVERYTHING_SEARCHED], ids=["least", "most"])
def test_base_rate_is_the_first_coordinate_so_that_all_arms_share_its_points(changes: dict[str, Any]) -> None:
    study = definition(**changes)
    for point in np.random.default_rng(1).random((20, POINT_DIMENSIONS)):
        expected = math.exp(math.log(1e-3) + point[0] * math.log(1e3))
        arms = [study.arm_space(schedule).at(point) for schedule in CONTENDERS]
        assert [arm["learning_rate"] for arm in arms] == pytest.approx([expected] * len(CONTENDERS))
        shared = ["warmup", "batch_size", "weight_decay", "optimizer.momentum", "optimizer.nesterov"]
        assert all(arm[name] == arms[0][name] for arm in arms for name in shared)


def test_explore_has_a_branch_per_schedule_each_with_its_own_parameters_and_base_rate() -> None:
    study = definition(**EVERYTHING_SEARCHED)
    joint = joint_space(study)
    assert [branch.schedule for branch in joint.branches] == CONTENDERS
    for branch in joint.branches:
        assert branch == study.arm_space(branch.schedule)
        own = {name.removeprefix("schedule.") for name in branch.domains if name.startswith("schedule.")}
        assert own == set(CATALOGUE[branch.schedule](type=branch.schedule).parameters)
        assert next(iter(branch.domains)) == "learning_rate"


def test_no_arm_searches_more_parameters_than_a_point_has_coordinates() -> None:
    for branch in joint_space(definition(**EVERYTHING_SEARCHED)).branches:
        assert len(branch.domains) + 1 <= POINT_DIMENSIONS
