"""Formulas as schedules: the rates they give, and what a definition may ask for."""

from __future__ import annotations

import builtins
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from studies.configuration import Configuration
from studies.definition import StudyDefinition, read_definition
from studies.errors import FieldError, InvalidDefinition, InvalidMessage, ScheduleError
from studies.preview import PreviewRequest, preview
from studies.schedules import describe, make
from studies.space import Choice, Fixed, Range
from tests.studies.curves import rates_of, table
from tests.studies.hostile import HOSTILE


def rates(expr: str, base: float = 0.1, steps: int = 12, per_epoch: int = 4, warmup: float = 0.0, **own: Any) -> Any:
    return pytest.approx(table("expression", base, steps, per_epoch, warmup, expr=expr, **own), rel=1e-7)


def definition(expression: dict[str, Any], **changes: Any) -> StudyDefinition:
    schedules = ["constant", {"type": "expression", **expression}]
    return read_definition({"name": "a-study", "tasks": ["digits-mlp"], "schedules": schedules, **changes})


def refused(expression: dict[str, Any], **changes: Any) -> list[FieldError]:
    with pytest.raises(InvalidDefinition) as caught:
        definition(expression, **changes)
    return caught.value.fields


# --- the rates


def test_a_formula_in_epochs_holds_over_each_epoch() -> None:
    assert rates("lr0 * g ** (epoch // k)", steps=40, per_epoch=4, g=0.5, k=3) == [
        0.1 * 0.5 ** (epoch // 3) for epoch in range(10) for _ in range(4)
    ]


def test_a_formula_with_step_in_it_changes_at_every_step() -> None:
    wave = [0.1 * (1 + math.cos(math.pi * step / 12)) / 2 for step in range(12)]
    assert rates("lr0 * (1 + cos(pi * step / steps)) / 2") == wave
    mixed = [0.1 / (1 + step) + epoch for epoch in range(3) for step in range(4 * epoch, 4 * epoch + 4)]
    assert rates("lr0 / (1 + step) + epoch") == mixed


def test_lr_is_the_rate_before_so_that_a_formula_in_it_falls_in_epoch_0_already() -> None:
    assert rates("lr * 0.9") == [0.09] * 4 + [0.081] * 4 + [0.0729] * 4
    assert rates("lr * 0.5 if epoch == 2 else lr") == [0.1] * 8 + [0.05] * 4
    assert rates("lr * 0.9 + step * 0", steps=3) == [0.09, 0.081, 0.0729]


def test_everything_counts_from_the_end_of_the_warm_up() -> None:
    # 5 of 15 steps warm up: 10 are left, 2.5 epochs of 4.
    rise = [0.02, 0.04, 0.06, 0.08, 0.1]
    assert rates("steps / 100 + step * 0", steps=15, warmup=1 / 3) == [*rise, *[0.1] * 10]
    assert rates("epochs / 25", steps=15, warmup=1 / 3) == [*rise, *[0.1] * 10]
    assert rates("step / 10", steps=15, warmup=1 / 3) == [*rise, *(step / 10 for step in range(10))]
    assert rates("epoch", steps=15, warmup=1 / 3) == [*rise, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2]
    assert rates("lr * 0.5", steps=15, warmup=1 / 3) == [*rise, *[0.05] * 4, *[0.025] * 4, *[0.0125] * 2]


def test_a_formula_without_names_is_a_constant_rate() -> None:
    assert rates("0.025", steps=5) == [0.025] * 5
    assert rates("0.025 + lr * 0", steps=5) == [0.025] * 5


def test_a_formula_goes_on_past_the_end() -> None:
    schedule: Any = make("expression", expr="lr0 / (1 + epoch)")
    assert rates_of(schedule, 1.0, [0, 10, 20, 1000], steps=20, per_epoch=10) == pytest.approx(
        [1, 1 / 2, 1 / 3, 1 / 101]
    )


@given(
    parts=st.lists(st.sampled_from(["lr0", "epoch", "step", "g", "0.5", "3"]), min_size=2, max_size=6),
    operators=st.lists(
        st.sampled_from([" + ", " * ", " / (1 + 7 * ", " ** -(", " if epoch > 1 else (1 + "]), min_size=5
    ),
    steps=st.integers(1, 40),
    per_epoch=st.integers(1, 12),
)
def test_evaluated_one_after_the_other_and_all_at_once_a_formula_gives_the_same_rates(
    parts: list[str], operators: list[str], steps: int, per_epoch: int
) -> None:
    """`+ 0 * (lr == lr0)` adds nothing, but has the formula evaluated one by one, as one in `lr` must be."""
    text = parts[0] + "".join(operator + part for operator, part in zip(operators, parts[1:], strict=False))
    text += ")" * (text.count("(") - text.count(")")) + " + g * 0"
    at = list(range(steps + 5))
    at_once: Any = make("expression", expr=text, g=0.25)
    stepwise: Any = make("expression", expr=f"({text}) + 0 * (lr == lr0)", g=0.25)
    one, other = (rates_of(schedule, 0.1, at, steps, per_epoch) for schedule in (at_once, stepwise))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("expr", "words"),
    [
        ("lr0 - 0.03 * epoch", "learning rate 0.1) gives the rate -0.02 at step 16 (epoch 4); a rate must be"),
        ("lr0 / (epoch - 3)", "gives the rate -0.0333333 at step 0 (epoch 0)"),
        ("lr0 / (3 - epoch)", "gives the rate inf at step 12 (epoch 3)"),
        ("sqrt(5 - step)", "gives the rate nan at step 6 (epoch 1)"),
        ("10 ** (step + 20)", "gives the rate 1e+39 at step 19 (epoch 4)"),
        ("lr * 1e300", "gives the rate 1e+299 at step 0 (epoch 0)"),
    ],
)
def test_a_rate_that_no_training_can_have_is_an_error_with_formula_place_and_value(expr: str, words: str) -> None:
    with pytest.raises(ScheduleError) as caught:
        table("expression", 0.1, 20, 4, expr=expr)
    assert words in str(caught.value)
    assert f"expression (expr '{expr}', " in str(caught.value)


def test_the_place_of_a_bad_rate_is_the_formulas_own() -> None:
    with pytest.raises(ScheduleError, match=r"-0.02 at step 8 \(epoch 2, counted from the end of the warm-up\)"):
        table("expression", 0.1, 20, 4, warmup=0.4, expr="lr0 - 0.06 * epoch")


def test_a_preview_of_a_formula_that_gives_no_rate_says_so() -> None:
    request = {"learning_rate": 0.1, "epochs": 5, "steps_per_epoch": 2}
    shown = preview(PreviewRequest(schedule={"type": "expression", "expr": "lr0 / k", "k": 2}, **request))  # type: ignore[arg-type]
    assert shown.rates == pytest.approx([0.05] * 10)
    assert shown.parameters == {"expr": "lr0 / k", "k": 2}
    for bad, field, words in (
        ({"expr": "lr0 - epoch"}, "schedule", "gives the rate -0.9 at step 2"),
        ({"expr": "lr0.x"}, "schedule.expr", "attribute access is not allowed: 'lr0.x'"),
        ({"expr": "lr0 * g", "g": True}, "schedule.g", "must be a number"),
        ({"expr": "lr0 * g"}, "schedule", "unknown name 'g'"),
    ):
        with pytest.raises(InvalidMessage) as caught:
            preview(PreviewRequest(schedule={"type": "expression", **bad}, **request))  # type: ignore[arg-type]
        (found,) = caught.value.fields
        assert found.field == field
        assert words in found.message


# --- in a definition

OWN: dict[str, Any] = {
    "expr": "lr0 * g ** (epoch // k) * (1 - 0.1 * h)",
    "g": {"low": 0.1, "high": 0.9, "log": True},
    "k": [5, 10],
    "h": {"low": 1, "high": 3},
}


def test_parameters_of_ones_own_are_searched_like_any_others() -> None:
    study = definition(OWN)
    assert study.schedules[1].parameters == {
        "expr": Fixed(value=OWN["expr"]),
        "g": Range(low=0.1, high=0.9, log=True),
        "k": Choice(values=(5, 10)),
        "h": Range(low=1, high=3, integer=True),
    }
    space = study.arm_space("expression")
    assert [name for name in space.domains if name.startswith("schedule.")] == [
        "schedule.expr",
        "schedule.g",
        "schedule.k",
        "schedule.h",
    ]
    point = space.at([0.5] * 64)
    configuration = Configuration.from_flat("expression", "sgd", point)
    assert configuration.schedule["g"] == pytest.approx(0.3)
    assert (configuration.schedule["k"], configuration.schedule["h"]) == (10, 2)
    assert configuration.make_schedule().parameters == {name: point[f"schedule.{name}"] for name in OWN}
    assert Configuration.model_validate_json(configuration.model_dump_json()) == configuration


@pytest.mark.parametrize(
    ("written", "whole"),
    [
        ({"low": 2, "high": 9}, True),
        ({"low": 2.0, "high": 9.0}, False),
        ({"low": 2, "high": 9.5}, False),
        ({"low": 1.5, "high": 9}, False),
        ({"low": 1, "high": 100, "log": True}, True),
    ],
)
def test_a_range_is_of_whole_numbers_if_both_of_its_ends_are(written: dict[str, Any], whole: bool) -> None:
    study = definition({"expr": "lr0 / k", "k": written})
    domain = study.schedules[1].parameters["k"]
    assert isinstance(domain, Range)
    assert domain.integer is whole
    drawn = [domain.at(u) for u in np.random.default_rng(0).random(50)]
    assert all(isinstance(value, int) is whole for value in drawn)
    assert read_definition(json.loads(study.model_dump_json())) == study


def test_a_definition_with_a_formula_survives_a_round_trip_through_json() -> None:
    study = definition(OWN, learning_rate={"low": 0.01, "high": 0.1, "log": True})
    again = read_definition(json.loads(study.model_dump_json()))
    assert again == study
    assert again.model_dump(mode="json")["schedules"][1] == {"type": "expression", **OWN}


def test_formulas_may_be_a_choice_with_the_same_parameters() -> None:
    study = definition({"expr": ["lr0 * g ** epoch", "lr0 * (1 - g * epoch / epochs)"], "g": {"low": 0.1, "high": 0.9}})
    assert {study.arm_space("expression").at([u] * 64)["schedule.expr"] for u in (0.1, 0.9)} == {
        "lr0 * g ** epoch",
        "lr0 * (1 - g * epoch / epochs)",
    }


def test_a_bare_expression_is_its_default_formula() -> None:
    configuration = Configuration.from_flat("expression", "sgd", definition({}).arm_space("expression").at([0.5] * 64))
    assert configuration.schedule == {"type": "expression", "expr": "lr0 * 0.1 ** (epoch // 30)"}


EXPR = "schedules[1].expr"
BROKEN: list[tuple[dict[Any, Any], str, str]] = [
    ({"expr": "lr0.real"}, EXPR, "attribute access is not allowed: 'lr0.real'"),
    ({"expr": ["lr0", "lr0 * print(1)"]}, EXPR, "choice 2: unknown function in 'print(1)'"),
    ({"expr": 0.1}, EXPR, "valid string"),
    ({"expr": {"low": 0, "high": 1}}, EXPR, "list its values"),
    ({"expr": {"formula": "lr0"}}, EXPR, "{low: ..., high: ...}"),
    ({"expr": []}, EXPR, "at least one"),
    ({"expr": ["lr0", "lr0"]}, EXPR, "'lr0' is repeated"),
    ({"expr": [["lr0"]]}, EXPR, "choice 1: "),
    ({"expr": "lr0 * 0.9 ** epoc"}, EXPR, "unknown name 'epoc' in the formula; did you mean 'epoch'?"),
    (
        {"expr": "lr0 * q"},
        EXPR,
        "unknown name 'q' in the formula: it is none of epoch, step, epochs, steps, lr, lr0, pi, and no param",
    ),
    ({"expr": ["lr0 * g", "lr0 * g * h"], "g": 1}, EXPR, "unknown name 'h' in choice 2"),
    ({"expr": "lr0", "g": 0.5}, "schedules[1].g", "the formula has no g in it: 'lr0'"),
    ({"expr": ["lr0 * g", "lr0"], "g": 0.5}, "schedules[1].g", "choice 2 has no g in it: 'lr0'"),
    ({"g": 0.5}, "schedules[1].g", "the formula has no g in it: 'lr0 * 0.1 ** (epoch // 30)'"),
    ({"epxr": "lr0"}, "schedules[1].epxr", "must be a number; did you mean 'expr'?"),
    ({"expr": "lr0 * g", "g": "a"}, "schedules[1].g", "must be a number"),
    ({"expr": "lr0 * g", "g": True}, "schedules[1].g", "must be a number"),
    ({"expr": "lr0 * g", "g": [0.5, "b"]}, "schedules[1].g", "choice 2: must be a number"),
    ({"expr": "lr0 * g", "g": math.inf}, "schedules[1].g", "finite number"),
    ({"expr": "lr0 * g", "g": math.nan}, "schedules[1].g", "finite number"),
    ({"expr": "lr0 * g", "g": 10**400}, "schedules[1].g", "finite number"),
    ({"expr": "lr0 * g", "g": {"low": 0, "high": 10**400}}, "schedules[1].g", "high: must be a finite number"),
    ({"expr": "lr0 * g", "g": {"low": 1, "high": 0}}, "schedules[1].g", "`low < high` must hold"),
    ({"expr": "lr0 * g", "g": {"low": 0, "high": 1, "log": True}}, "schedules[1].g", "`low > 0` must hold"),
    ({"expr": "lr0 * lr", "lr": 0.5}, "schedules[1].lr", "lr has a meaning already"),
    ({"expr": "lr0 * pi", "pi": 3}, "schedules[1].pi", "pi has a meaning already"),
    ({"expr": "exp(1)", "exp": 3}, "schedules[1].exp", "exp has a meaning already"),
    ({"expr": "lr0 * warmup", "warmup": 3}, "schedules[1].warmup", "warmup has a meaning already"),
    ({"expr": "lr0", "lambda": 3}, "schedules[1].lambda", "lambda has a meaning already"),
    ({"expr": "lr0", "a-b": 3}, "schedules[1].a-b", "letters, digits and _"),
    ({"expr": "lr0", "": 3}, "schedules[1].", "letters, digits and _"),
    ({"expr": "lr0", "__class__": 3}, "schedules[1].__class__", "starts with a letter"),
    ({"expr": "lr0", "é": 3}, "schedules[1].é", "letters, digits and _"),
    ({"expr": "lr0", "a" * 51: 3}, "schedules[1]." + "a" * 51, "up to 50"),
    ({"expr": "lr0", 7: 3}, "schedules[1].7", "letters, digits and _"),
]


@pytest.mark.parametrize(("given", "path", "words"), BROKEN, ids=[str(given)[:50] for given, _, _ in BROKEN])
def test_a_broken_expression_is_refused_with_the_field_and_what_would_be_right(
    given: dict[str, Any], path: str, words: str
) -> None:
    fields = refused(given)
    assert [field.field for field in fields] == [path]
    assert words in fields[0].message


def test_a_parameter_with_a_slip_of_the_pen_is_named_at_both_of_its_places() -> None:
    in_formula, given = refused({"expr": "lr0 * gamma", "gama": 0.5})
    assert str(in_formula).startswith(f"{EXPR}: unknown name 'gamma' in the formula; did you mean 'gama'? (got ")
    assert str(given) == "schedules[1].gama: the formula has no gama in it: 'lr0 * gamma' (got 0.5)"


def test_there_are_at_most_20_parameters_of_ones_own() -> None:
    own = {f"p{n}": 0.5 for n in range(20)}
    formula = "lr0 * " + " * ".join([*own, "g"])
    assert len(definition({"expr": formula.removesuffix(" * g"), **own}).schedules[1].parameters) == 21
    (field,) = refused({"expr": formula, **own, "g": 0.5})
    assert (field.field, field.message) == ("schedules[1].g", "there can be at most 20 parameters of one's own")
    with pytest.raises(ValidationError, match="at most 20"):
        make("expression", expr=formula, **own, g=0.5)


@pytest.mark.parametrize(
    ("given", "changes", "words"),
    [
        ({"expr": "lr0 - 0.01 * epoch"}, {}, "learning rate 0.1) gives the rate -0.01 at step 110 (epoch 11)"),
        ({"expr": "lr0 - 0.01 * epoch"}, {"epochs": 1_000_000}, "gives the rate -"),
        ({"expr": "lr - 0.06"}, {}, "gives the rate -0.02 at step 10 (epoch 1)"),
        ({"expr": "lr - 0.01 * (step > 5)"}, {}, "at step 16 (epoch 1)"),
        ({"expr": "lr0 * g", "g": {"low": -3.0, "high": 1.0}}, {}, "g -1.0, learning rate 0.1) gives the rate -0.1"),
        ({"expr": "lr0 / (epoch - k)", "k": [0, 1]}, {}, "k 1, learning rate 0.1) gives the rate -0.1 at step 0"),
        ({"expr": "lr0 * 9 ** 9 ** (epoch + 9)"}, {}, "gives the rate inf at step 0"),
        ({"expr": ["lr0", "-lr0"]}, {}, "(expr '-lr0', learning rate 0.1) gives the rate -0.1 at step 0 (epoch 0)"),
    ],
)
def test_a_formula_without_rates_in_the_middle_of_its_space_is_refused(
    given: dict[str, Any], changes: dict[str, Any], words: str
) -> None:
    (field,) = refused(given, **{"learning_rate": {"low": 0.01, "high": 1.0, "log": True}, **changes})
    assert field.field == EXPR
    assert words in field.message
    formulas = given["expr"]
    assert field.value == (formulas if isinstance(formulas, str) else formulas[1])


def test_a_formula_that_gives_rates_is_accepted_for_any_length_of_training() -> None:
    for epochs in (1, 2, 20, 1_000_000):
        for expr in ("lr0 * (1 - step / steps)", "lr * 0.99", "lr * 0.999 + 0 * step", "lr0 * (1 - epoch / epochs)"):
            assert definition({"expr": expr}, epochs=epochs).epochs == epochs


@pytest.mark.parametrize("text", HOSTILE, ids=[text[:30] for text in HOSTILE])
def test_a_hostile_formula_in_a_definition_is_refused_and_nothing_of_it_is_executed(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sung: list[str] = []
    monkeypatch.setattr(builtins, "canary", lambda *_: sung.append(text), raising=False)
    text = text.replace("{canary}", str(tmp_path / "canary"))
    (field,) = refused({"expr": text})
    assert (field.field, field.value) == (EXPR, text)
    assert len(str(field)) < 400
    assert not sung
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    "given",
    [
        {"expr": "epoch ** epoch ** epoch ** epoch"},
        {"expr": "os"},
        {"expr": "lr0 + print"},
        {"expr": "exp(" * 90 + "epoch" + ")" * 90},
        {"expr": "lr0", **{f"p{n}": n for n in range(50_000)}},
        {"expr": ["lr0.x" + " " * n for n in range(100)]},
        {"expr": ["9" * 10**4] * 100},
        {"expr": [[[[[["lr0"]]]]]]},
        {"expr": {"low": "lr0", "high": {"__class__": "x"}}},
        {"expr": "lr0 * g", "g": "__import__('os')"},
        {"expr": "lr0 * g", "g": [[10**9]]},
    ],
    ids=lambda given: str(given)[:40],
)
def test_a_hostile_definition_around_a_formula_is_refused(given: dict[str, Any]) -> None:
    assert refused(given)


# --- the model itself, and the catalogue


def test_a_formula_needs_its_parameters_and_no_others_outside_of_studies_too() -> None:
    assert make("expression", expr="lr0 * g", g=0.5).parameters == {"expr": "lr0 * g", "g": 0.5}
    for parameters, words in (
        ({"expr": "lr0 * g"}, "unknown name 'g'"),
        ({"expr": "lr0", "g": 1}, "the formula has no g in it"),
        ({"expr": "lr0 * g", "g": "1"}, "must be a number"),
        ({"expr": "lr0[0]"}, "an index is not allowed: 'lr0\\[0\\]'"),
        ({"expr": "lr0", "class": 1}, "class has a meaning already"),
    ):
        with pytest.raises(ValidationError, match=words):
            make("expression", **parameters)


def test_the_catalogue_says_that_parameters_of_ones_own_are_welcome() -> None:
    info = describe("expression")
    assert info.own_parameters
    assert [parameter.name for parameter in info.parameters] == ["expr"]
    assert "parameters of your own" in info.summary
    assert not describe("cosine").own_parameters


def test_the_json_schema_lets_numbers_under_other_names_through() -> None:
    entry = StudyDefinition.model_json_schema()["$defs"]["ScheduleEntry"]
    by_type = {option["title"]: option for option in entry["anyOf"] if option["type"] == "object"}
    assert set(by_type["expression"]["properties"]) == {"type", "expr"}
    kinds = [option["title"] for option in by_type["expression"]["additionalProperties"]["anyOf"]]
    assert kinds == ["a fixed value", "a choice", "a range, both ends included"]
    assert by_type["cosine"]["additionalProperties"] is False
