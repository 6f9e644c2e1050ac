"""`lr-arena range-test`, which needs no service."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

import pytest

from arena_cli import range_test
from studies.range_test import RangeCurve, analyse, sweep_rates
from tests.cli.conftest import run

TINY = str(Path(__file__).parents[1] / "end_to_end" / "tiny_task.py")
RATES = sweep_rates().tolist()


def falling(rate: float) -> float:
    """A loss of 2 up to a rate of 1e-4, of 1 from 0.1 on, and an even fall between; 50 from 5 on."""
    return 50.0 if rate >= 5 else 2.0 - min(max(math.log10(rate / 1e-4) / 3, 0.0), 1.0)


def made_of(losses: list[float | None]) -> RangeCurve:
    return RangeCurve(rates=RATES[: len(losses)], losses=losses, smoothed=losses)


END = next(number for number, rate in enumerate(RATES) if rate >= 5)
CURVE = made_of([falling(rate) for rate in RATES[: END + 1]])
FLAT = made_of([2.0] * 100)


@pytest.fixture
def swept(monkeypatch: pytest.MonkeyPatch) -> list[RangeCurve]:
    """The curves that the next tests of rates see, in place of their own."""
    curves: list[RangeCurve] = []
    monkeypatch.setattr(range_test, "run", lambda *arguments: curves.pop())
    return curves


def test_a_task_of_ones_own_is_tested_without_a_service() -> None:
    result = run("range-test", "--task", "tiny-line", "--tasks", TINY, "--batch-size", "16", "--format", "json")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert answer["task"] == "tiny-line"
    assert answer["optimizer"] == {"type": "sgd", "momentum": 0.9, "nesterov": False}
    assert answer["batch_size"] == 16
    assert answer["found"] == analyse(RangeCurve.model_validate(answer["curve"])).model_dump()
    # The loss (2x + 1 - kx - b)^2 with x in [-1, 1] curves by 2 along b and less along k: a constant rate with
    # momentum 0.9 is stable below 2 (1 + 0.9) / 2.
    assert answer["found"]["diverged_at"] > 1.9 > answer["found"]["suggestion"] > 1e-3


def test_people_see_suggestion_range_rule_and_the_line_for_a_study(swept: list[RangeCurve]) -> None:
    swept.append(CURVE)
    result = run("range-test", "--task", "digits-mlp")
    assert result.exit_code == 0
    found = analyse(CURVE)
    text = result.stdout
    assert f"suggestion  {found.suggestion:.3g}\n" in text
    assert f"range       {found.low:.3g} to {found.high:.3g}\n" in text
    assert found.rule in text
    assert f"learning_rate: {{low: {found.low:.3g}, high: {found.high:.3g}, log: true}}" in text


def test_the_suggestion_is_marked_where_its_logarithm_is() -> None:
    found = analyse(CURVE)
    drawn = list(range_test.plot(CURVE, found))
    axis = next(number for number, line in enumerate(drawn) if " +" in line and set(line.split("+", 1)[1]) <= set("+-"))
    begin = drawn[axis].index("+") + 1
    place = begin + round(math.log(found.suggestion / RATES[0]) / math.log(RATES[END] / RATES[0]) * 71)
    marked = [line[place] for line in drawn[:axis]]
    assert set(marked) == {"|", "*"}
    assert drawn[-1][place] == "|"
    left, right = (
        begin + round(math.log(end / RATES[0]) / math.log(RATES[END] / RATES[0]) * 71)
        for end in (found.low, found.high)
    )
    assert (drawn[-1][left], drawn[-1][right]) == ("[", "]")


def test_the_curve_is_drawn_from_its_height_to_its_depth() -> None:
    drawn = [line.split("|", 1)[1].ljust(72) for line in list(range_test.plot(CURVE, None))[:14]]
    heights = [next(row for row, line in enumerate(drawn) if line[column] == "*") for column in range(72)]
    # 2 is four fifths of the way up, 1 at the bottom; between 1e-4 and 1e-1 it goes down all the time.
    span = math.log10(RATES[END] / RATES[0])
    first, last = (round((exponent + 7) / span * 71) for exponent in (-4, -1))
    assert set(heights[:first]) == {round(13 * 0.2)}
    assert heights[first:last] == sorted(heights[first:last])
    assert heights[last] == 13
    assert heights[-1] == 0


def test_programs_get_the_curve_as_csv(swept: list[RangeCurve]) -> None:
    swept.append(CURVE)
    found = list(csv.DictReader(io.StringIO(run("range-test", "--task", "digits-mlp", "--format", "csv").stdout)))
    assert [float(row["rate"]) for row in found] == CURVE.rates
    assert [float(row["smoothed"]) for row in found] == CURVE.smoothed


@pytest.mark.parametrize("shape", ["table", "json", "csv"])
def test_a_curve_that_says_nothing_is_shown_and_ends_with_1(shape: str, swept: list[RangeCurve]) -> None:
    swept.append(FLAT)
    result = run("range-test", "--task", "digits-mlp", "--format", shape)
    assert result.exit_code == 1
    assert "the loss does not fall" in result.stderr
    assert "Traceback" not in result.output
    if shape == "table":
        assert result.stdout.count("*") == 72
        assert "suggestion" not in result.stdout
    elif shape == "json":
        answer = json.loads(result.stdout)
        assert answer["found"] is None
        assert answer["failure"] in result.stderr


def test_a_curve_without_a_loss_says_so(swept: list[RangeCurve]) -> None:
    swept.append(RangeCurve(rates=[1e-7], losses=[None], smoothed=[None]))
    result = run("range-test", "--task", "digits-mlp")
    assert result.exit_code == 1
    assert "there is no loss to draw" in result.stdout
    assert "explodes after 0 batches" in result.stderr


def test_an_unknown_task_suggests_a_close_one() -> None:
    result = run("range-test", "--task", "digits-mpl")
    assert result.exit_code == 1
    assert result.stderr == "there is no task 'digits-mpl'; did you mean 'digits-mlp'?\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--optimizer", "adm"], "optimizer: unknown type 'adm'; did you mean 'adam'?"),
        (["--optimizer", "adam", "--momentum", "0.9"], "optimizer.momentum: unknown parameter"),
        (["--momentum", "1"], "optimizer.momentum: input should be less than 1"),
        (["--batch-size", "0"], "batch-size"),
    ],
)
def test_settings_that_cannot_be_are_named_before_anything_is_loaded(options: list[str], message: str) -> None:
    result = run("range-test", "--task", "digits-mlp", *options)
    assert result.exit_code == 2
    assert message in result.stderr


def test_what_is_trained_with_is_what_a_study_would_train_with() -> None:
    adamw = range_test.configuration_of("digits-mlp", "adamw", None, 64)
    assert (adamw.weight_decay, adamw.batch_size, adamw.warmup) == (0.004, 64, 0.0)
    assert range_test.configuration_of("digits-mlp", "sgd", 0.5, 64).optimizer["momentum"] == 0.5
    assert range_test.configuration_of("digits-mlp", "rmsprop", None, 64).optimizer["momentum"] == 0.0


def test_ctrl_c_ends_it_with_one_word(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object) -> RangeCurve:
        raise KeyboardInterrupt

    monkeypatch.setattr(range_test, "run", interrupted)
    result = run("range-test", "--task", "digits-mlp")
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "stopped\n")
