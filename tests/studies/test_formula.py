"""Formulas: what they are worth, against Python's own arithmetic, and what is refused."""

from __future__ import annotations

import builtins
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from studies.formula import FUNCTIONS, MAX_CHARACTERS, Formula, read
from tests.studies.hostile import HOSTILE


def value(text: str, **names: Any) -> Any:
    return read(text).value(names)


def read_if_finite(text: str) -> Formula | None:
    """The formula; None where a part without names is 1/0 or the like, which is refused also where it is not needed."""
    try:
        return read(text)
    except ValueError as error:
        if "no finite number" not in str(error):
            raise
        return None


# --- what a formula is worth

NAMES = ("epoch", "lr0", "g")


def binary(operators: list[str], parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.builds("({} {} {})".format, parts, st.sampled_from(operators), parts)


def extended(functions: list[str], operators: list[str], parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Formulas made of these parts, a level deeper."""
    comparisons = st.sampled_from(["<", "<=", ">", ">=", "==", "!="])
    return st.one_of(
        binary(operators, parts),
        binary(["and", "or"], parts),
        st.builds("({}{})".format, st.sampled_from(["-", "+", "not "]), parts),
        st.builds("{}({})".format, st.sampled_from(functions), parts),
        st.builds("{}({}, {}, {})".format, st.sampled_from(["max", "min"]), parts, parts, parts),
        st.builds("({} {} {} {} {})".format, parts, comparisons, parts, comparisons, parts),
        st.builds("({} if {} else {})".format, parts, parts, parts),
    )


ATOMS = st.one_of(st.sampled_from(NAMES), st.sampled_from(["0", "1", "2", "7", "30", "0.5", "0.1", ".3", "1e-3"]))
ROUNDED_ALIKE = st.recursive(
    ATOMS,
    lambda parts: extended(["abs", "ceil", "floor", "round", "sqrt"], ["+", "-", "*", "/", "//", "%"], parts),
    max_leaves=12,
)
"""IEEE 754 leaves no freedom in these, so that the last bit must be the same."""
ANYTHING = st.recursive(
    ATOMS,
    lambda parts: extended(
        [name for name in FUNCTIONS if name not in ("max", "min")], ["+", "-", "*", "/", "//", "%", "**"], parts
    ),
    max_leaves=15,
)
VALUES = st.fixed_dictionaries(
    {"epoch": st.integers(0, 200).map(float), "lr0": st.floats(1e-6, 10), "g": st.floats(-3, 3)}
)


@settings(max_examples=400)
@given(text=ROUNDED_ALIKE, names=VALUES)
@example(text="(-7 // 2) + (-7 % 3) + (7 // -2) + (epoch // lr0)", names={"epoch": 1.0, "lr0": 0.1, "g": -1.0})
@example(text="(epoch and g or lr0) + (0 and 1) + (0 or g)", names={"epoch": 0.0, "lr0": 0.1, "g": -1.0})
def test_a_formula_is_worth_what_python_makes_of_it(text: str, names: dict[str, float]) -> None:
    python = {
        **names,
        **{"abs": abs, "max": max, "min": min, "sqrt": math.sqrt, "round": lambda x: float(round(x))},
        **{"ceil": lambda x: float(math.ceil(x)), "floor": lambda x: float(math.floor(x))},
    }
    # Python's numbers without its integers, which are exact where a float is not.
    floats = re.sub(r"\b(?<![.-])(\d+)(?![\w.])", r"\1.0", text)
    try:
        expected = float(eval(floats, {"__builtins__": {}}, python))
    except (ZeroDivisionError, OverflowError, ValueError):
        return  # where Python raises, we have infinity or NaN: see below
    if (formula := read_if_finite(text)) is not None:
        assert formula.value(names) == expected


@pytest.mark.parametrize("at", [-2.5, -1.0, -0.3, 0.0, 0.1, 0.5, 1.0, 1.5, 2.5, 3.7, 12.0, 700.0])
def test_functions_and_powers_are_those_of_the_math_module(at: float) -> None:
    for name in ("abs", "ceil", "cos", "exp", "floor", "log", "sin", "sqrt", "tanh"):
        function = math.fabs if name == "abs" else getattr(math, name)
        found = value(f"{name}(g)", g=at)
        try:
            assert found == pytest.approx(function(at), rel=1e-14, abs=1e-15), name
        except ValueError:
            assert not np.isfinite(found), name
    assert value("round(g)", g=at) == round(at)
    assert value("g ** 3", g=at) == pytest.approx(at**3, rel=1e-14)
    assert value("1.5 ** g", g=at) == pytest.approx(1.5**at, rel=1e-13)
    assert value("cos(pi * g)", g=at) == pytest.approx(math.cos(math.pi * at), abs=1e-12)


def test_precedence_is_that_of_python() -> None:
    assert value("-2 ** 2") == -4
    assert value("2 ** 3 ** 2") == 512
    assert value("2 ** -1") == 0.5
    assert value("-7 // 2 * 3 % 5") == -7 // 2 * 3 % 5
    assert value("1 < 2 < 3 == 3 > 0") == 1
    assert value("1 if 0 else 2 if 0 else 3") == 3
    assert value("not 1 == 2 and 3 or 4") == 3


def test_comparisons_are_numbers_that_can_be_added_up() -> None:
    drops = "lr0 * 0.1 ** ((epoch >= 30) + (epoch >= 60))"
    assert value(drops, epoch=np.array([0, 29, 30, 59, 60, 99]), lr0=0.5) == pytest.approx(
        [0.5, 0.5, 0.05, 0.05, 0.005, 0.005]
    )


def test_what_is_not_defined_is_nan_or_infinity_without_a_warning() -> None:
    nothing = np.array([0.0])
    for text in ("1 / epoch", "log(epoch)", "epoch ** -1", "exp(1000 + epoch)", "10 ** (400 + epoch)"):
        assert np.isinf(value(text, epoch=nothing)), text
    for text in ("epoch / epoch", "(epoch - 1) ** 0.5", "log(epoch - 1)", "sqrt(epoch - 1)", "epoch % 0 - epoch"):
        assert np.isnan(value(text, epoch=nothing)), text


def test_a_part_that_is_not_chosen_does_no_harm() -> None:
    epochs = np.arange(8.0)
    guarded = "lr0 / (epoch - 5) if epoch > 5 else lr0"
    assert value(guarded, epoch=epochs, lr0=0.1) == pytest.approx([0.1] * 6 + [0.1, 0.05])
    assert value("(epoch and 1 / epoch) + 1", epoch=epochs[:3]) == pytest.approx([1, 2, 1.5])
    assert value("epoch == 0 or 1 / epoch", epoch=epochs[:3]) == pytest.approx([1, 1, 0.5])


@settings(max_examples=300)
@given(text=ANYTHING, names=st.lists(VALUES, min_size=2, max_size=9))
def test_one_by_one_and_all_at_once_are_the_same_values(text: str, names: list[dict[str, float]]) -> None:
    if (formula := read_if_finite(text)) is None:
        return
    one_by_one = np.array([formula.value(point) for point in names])
    together = formula.value({name: np.array([point[name] for point in names]) for name in NAMES})
    np.testing.assert_array_equal(np.broadcast_to(together, one_by_one.shape), one_by_one)


def test_every_number_is_a_float64() -> None:
    assert value("9007199254740993") == 9007199254740992
    assert value("2 ** 0.5 * 2 ** 0.5").dtype == np.float64
    assert value("epoch + 1", epoch=np.arange(3)).dtype == np.float64


# --- reading


def test_names_that_are_no_variables_are_parameters_in_the_order_they_come() -> None:
    formula = read("lr0 * g ** (epoch // k) + g * pi * lr if step < steps else epochs")
    assert formula.parameters == ("g", "k")
    assert formula.names == {"lr0", "g", "epoch", "k", "pi", "lr", "step", "steps", "epochs"}


@pytest.mark.parametrize("text", ["lr0\n  * 0.1\n", "  lr0 * 0.1", "lr0\t*\r\n0.1", "(lr0 *\n 0.1)"])
def test_a_formula_may_stand_on_several_lines(text: str) -> None:
    assert value(text, lr0=2.0) == 0.2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lr0 * expp(2)", "unknown function in 'expp(2)'; did you mean 'exp'?"),
        ("warp(epoch)", "known: abs, ceil, cos, exp, floor, log, max, min, round, sin, sqrt, tanh"),
        ("lr(2)", "lr is a number, not a function: 'lr(2)'"),
        ("exp + 1", "exp is a function, and is written exp(...): 'exp'"),
        ("max(lr0)", "max takes two arguments or more, but got 1: 'max(lr0)'"),
        ("exp()", "exp takes one argument, but got 0: 'exp()'"),
        ("round(lr0, 3)", "round takes one argument, but got 2: 'round(lr0, 3)'"),
        ("tf.sqrt(2)", "attribute access is not allowed: 'tf.sqrt'; write sqrt"),
        ("np.pi", "attribute access is not allowed: 'np.pi'; write pi"),
        ("lr0 if epoch < 10", "cannot be read at 'lr0 if epoch < 10': expected 'else' after 'if' expression"),
        ("lr0 * (1 + 2", "cannot be read at '(1 + 2': '(' was never closed"),
        ("1_000 * lr0", "a number is written 10, 0.5 or 1e-3, with a space behind it: '1_000'"),
        ("2lr0", "with a space behind it: '2lr0'"),
        ("lr0 * ä", "character 7, '\\xe4', is not allowed: a formula is plain ASCII"),
        ("lr0[" + "1" * 200 + "]", "'lr0[11111111111111111111111111111111111111111111111111111...'"),
    ],
)
def test_a_refusal_quotes_the_part_and_says_what_would_be_right(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        read(text)


def test_the_longest_and_deepest_formulas_that_are_let_through_can_be_evaluated() -> None:
    longest = "lr0" + " + 1" * 97 + " " * 200
    assert value(longest[:MAX_CHARACTERS], lr0=1.0) == 98
    assert value("(" * 99 + "lr0" + ")" * 99, lr0=1.0) == 1
    assert value("-" * 99 + "lr0", lr0=1.0) == -1
    with pytest.raises(ValueError, match="nested more than 100 deep"):
        read("-" * 100 + "lr0")


# --- what is refused, and does nothing


def test_there_are_forty_hostile_formulas_and_more() -> None:
    assert len(HOSTILE) > 80


@pytest.mark.parametrize(("text", "words"), HOSTILE.items(), ids=[text[:30] for text in HOSTILE])
def test_a_hostile_formula_is_refused_and_nothing_of_it_is_executed(
    text: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sung: list[str] = []
    monkeypatch.setattr(builtins, "canary", lambda *_: sung.append(text), raising=False)
    with pytest.raises(ValueError, match=words if "|" in words else re.escape(words)):
        read(text.replace("{canary}", str(tmp_path / "canary")))
    assert not sung
    assert not (tmp_path / "canary").exists()


def test_python_itself_sees_nothing_executed_opened_or_imported() -> None:
    """CPython's audit events: reading a formula parses it, and that is all."""
    program = """
import sys
from studies.errors import suggestion
from studies.formula import read
from tests.studies.hostile import HOSTILE

seen = []
suggestion("warm", ["up"])
sys.addaudithook(lambda event, arguments: seen.append(event))
for text in HOSTILE:
    try:
        read(text)
    except ValueError:
        pass
sys.stdout.write(str(set(seen)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "{'compile'}"
