"""Functions of the user's own as schedules: how they are called, and what happens where they do not fit."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from studies.configuration import Configuration
from studies.definition import StudyDefinition, read_definition
from studies.errors import InvalidDefinition, InvalidMessage, ScheduleError, TaskError
from studies.preview import PreviewRequest, preview
from studies.schedules import custom, describe, make
from studies.schedules.custom import schedule
from studies.space import Choice, Fixed, Range
from tests.studies.curves import table


@pytest.fixture(autouse=True)
def registry_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(custom, "_functions", {"keras-example": custom._functions["keras-example"]})


def rates(
    function: str, base: float = 0.1, steps: int = 12, per_epoch: int = 4, warmup: float = 0.0, **own: Any
) -> Any:
    return pytest.approx(table("custom", base, steps, per_epoch, warmup, function=function, **own), rel=1e-7)


def complaint(function: str, **own: Any) -> str:
    with pytest.raises(ScheduleError) as caught:
        table("custom", 0.1, 12, 4, function=function, **own)
    return str(caught.value)


def made_at(line: int) -> Callable[[int, float], float]:
    """A function that is written once and made anew at each call, as a file that is loaded again makes its own."""

    def rule(epoch: int, lr: float) -> float:
        return lr / line

    return rule


# --- how a function is called


def test_a_function_is_called_as_each_epoch_begins_with_the_rate_that_it_gave_last() -> None:
    calls: list[tuple[int, float]] = []

    @schedule("halve")
    def halve(epoch: int, lr: float) -> float:
        calls.append((epoch, lr))
        assert (type(epoch), type(lr)) == (int, float)
        return lr / 2

    assert rates("halve", base=0.8) == [0.4] * 4 + [0.2] * 4 + [0.1] * 4
    assert calls == [(0, 0.8), (1, 0.4), (2, 0.2)]


def test_epochs_count_from_the_end_of_the_warm_up() -> None:
    @schedule("by-epoch")
    def by_epoch(epoch: int, lr: float) -> float:
        return 1.0 + epoch

    # 5 of 15 steps warm up: 10 are left, 2.5 epochs of 4.
    rise = [0.02, 0.04, 0.06, 0.08, 0.1]
    assert rates("by-epoch", steps=15, warmup=1 / 3) == [*rise, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3]


def test_parameters_of_ones_own_come_as_keywords() -> None:
    @schedule("power")
    def power(epoch: int, lr: float, *, g: float, k: int = 1) -> float:
        return lr * g ** (epoch == k)

    assert rates("power", g=0.5) == [0.1] * 4 + [0.05] * 8
    assert rates("power", g=0.5, k=2) == [0.1] * 8 + [0.05] * 4

    @schedule("anything")
    def anything(epoch: int, lr: float, **parameters: float) -> float:
        return sum(parameters.values())

    assert rates("anything", a=1, b=2.5) == [3.5] * 12


def test_any_callable_and_any_number_will_do() -> None:
    schedule("numpy")(lambda epoch, lr: np.float32(0.25))
    schedule("array")(lambda epoch, lr: np.array(0.25))
    schedule("whole")(lambda epoch, lr: 1)
    schedule("smaller")(min)
    assert rates("numpy") == [0.25] * 12
    assert rates("array") == [0.25] * 12
    assert rates("whole") == [1] * 12
    assert rates("smaller") == [0] * 12


def test_the_example_of_keras_is_always_there() -> None:
    held = [0.1] * 10
    falling = [0.1 * math.exp(-0.1 * n) for n in range(1, 6)]
    assert rates("keras-example", steps=15, per_epoch=1) == held + falling
    assert rates("keras-example", steps=4, per_epoch=1, hold=2, decay=1) == [0.1, 0.1, 0.1 / math.e, 0.1 / math.e**2]
    assert make("custom") == make("custom", function="keras-example")


# --- what is registered


def test_the_decorator_gives_the_function_back() -> None:
    def rule(epoch: int, lr: float) -> float:
        return lr

    assert schedule("rule")(rule) is rule
    assert custom.registered("rule") is rule
    assert custom.any_registered([1, "a", rule])
    assert not custom.any_registered([1, "a", made_at(1)])


def test_a_function_that_is_defined_again_takes_the_place_of_the_old() -> None:
    schedule("mine")(made_at(2))
    schedule("mine")(made_at(4))
    assert rates("mine", base=0.8, steps=4) == [0.2] * 4


def test_another_function_cannot_take_a_name() -> None:
    schedule("mine")(made_at(2))
    with pytest.raises(TaskError, match=r"already a schedule 'mine', the function made_at.<locals>.rule of tests\."):
        schedule("mine")(lambda epoch, lr: lr)
    with pytest.raises(TaskError, match="already a schedule 'keras-example'"):
        schedule("keras-example")(made_at(2))
    assert rates("mine", base=0.8, steps=4) == [0.4] * 4


@pytest.mark.parametrize("name", ["", "a b", "-a", "a/b", "a\n", "x" * 101, "é", None, 3, made_at])
def test_a_name_that_no_definition_can_ask_for_is_refused(name: Any) -> None:
    with pytest.raises(TaskError, match="a schedule's name is made of letters"):
        schedule(name)


@pytest.mark.parametrize(
    "function", [lambda: 1, lambda epoch: 1, lambda *, epoch, lr: 1], ids=["none", "one", "keywords only"]
)
def test_a_function_that_cannot_take_epoch_and_rate_is_refused(function: Any) -> None:
    with pytest.raises(TaskError, match=r"schedule 'odd': a function \(epoch, lr, \*\*parameters\) is needed, but got"):
        schedule("odd")(function)


# --- where a function does not fit


def test_an_unknown_function_is_named_with_those_there_are() -> None:
    schedule("my-rule")(made_at(2))
    assert "there is no schedule function 'my-rul' here; did you mean 'my-rule'?" in complaint("my-rul")
    assert "known: keras-example, my-rule" in complaint("zzz")
    assert '@schedule("zzz") from lr_arena' in complaint("zzz")


def test_parameters_that_the_function_does_not_take_are_named() -> None:
    @schedule("strict")
    def strict(epoch: int, lr: float, *, g: float) -> float:
        return lr * g

    assert "'strict'(epoch: 'int', lr: 'float', *, g: 'float') -> 'float': missing a required" in complaint("strict")
    assert "got an unexpected keyword argument 'h'" in complaint("strict", g=1, h=2)


def test_a_function_that_raises_is_named_with_the_epoch_and_the_line() -> None:
    @schedule("raises")
    def raises(epoch: int, lr: float) -> float:
        return lr / (2 - epoch)

    said = complaint("raises")
    assert said.startswith("schedule function 'raises' in epoch 2, where lr is 0.05: ZeroDivisionError: ")
    assert "test_custom.py)" in said


@pytest.mark.parametrize(
    "value", [-0.1, math.nan, math.inf, None, "0.1", True, [0.1], (), 1j, np.zeros(2), 10**400, object], ids=repr
)
def test_a_function_must_return_a_number_that_can_be_a_rate(value: Any) -> None:
    schedule("odd")(lambda epoch, lr: lr if epoch < 2 else value)
    assert complaint("odd") == (
        f"schedule function 'odd' in epoch 2, where lr is 0.1: it must return a finite number, at least 0, "
        f"but got {value!r}"
    )


def test_a_rate_beyond_float32_is_refused_too() -> None:
    schedule("huge")(lambda epoch, lr: 1e39)
    assert "custom (function 'huge', learning rate 0.1) gives the rate 1e+39 at step 0" in complaint("huge")


# --- in a definition


def definition(**entry: Any) -> StudyDefinition:
    return read_definition({"name": "a", "tasks": ["t"], "schedules": [{"type": "custom", **entry}]})


def test_a_definition_asks_for_a_function_that_the_service_need_not_know() -> None:
    study = definition(function=["my-rule", "other"], g={"low": 0.1, "high": 0.9}, k={"low": 1, "high": 5}, on=[0, 1])
    assert study.schedules[0].parameters == {
        "function": Choice(values=("my-rule", "other")),
        "g": Range(low=0.1, high=0.9),
        "k": Range(low=1, high=5, integer=True),
        "on": Choice(values=(0, 1)),
    }
    made = Configuration.from_flat("custom", "sgd", study.arm_space("custom").at([0.0] * 64)).make_schedule()
    assert made.parameters == {"function": "my-rule", "g": 0.1, "k": 1, "on": 0}
    assert read_definition(study.model_dump(mode="json")) == study
    assert definition().arm_space("custom").domains["schedule.function"] == Fixed(value="keras-example")


@pytest.mark.parametrize(
    ("entry", "path", "words"),
    [
        ({"function": "my rule"}, "function", "pattern"),
        ({"function": 3}, "function", "valid string"),
        ({"function": ["a", "b/c"]}, "function", "choice 2: "),
        ({"function": "a", "epoch": 3}, "epoch", "epoch has a meaning already"),
        ({"function": "a", "lr": 3}, "lr", "lr has a meaning already"),
        ({"function": "a", "g": "b"}, "g", "must be a number"),
        ({"funtion": "a"}, "funtion", "must be a number; did you mean 'function'?"),
    ],
)
def test_a_broken_custom_schedule_is_refused(entry: dict[str, Any], path: str, words: str) -> None:
    with pytest.raises(InvalidDefinition) as caught:
        definition(**entry)
    (field,) = caught.value.fields
    assert field.field == f"schedules[0].{path}"
    assert words in field.message


def test_a_preview_of_a_function_that_only_the_worker_has_says_so() -> None:
    request = PreviewRequest(schedule={"type": "custom", "function": "theirs"}, learning_rate=0.1, epochs=2)
    with pytest.raises(InvalidMessage, match="no schedule function 'theirs' here"):
        preview(request)


def test_the_catalogue_says_how_a_function_is_declared() -> None:
    info = describe("custom")
    assert info.own_parameters
    assert [parameter.name for parameter in info.parameters] == ["function"]
    assert '@schedule("my-rule")' in info.description
    assert "Parameters of your own are allowed" in info.description
