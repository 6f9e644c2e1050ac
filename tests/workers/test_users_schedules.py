"""Formulas and functions of the user's own in a real training, beside Keras' LearningRateScheduler."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from studies.errors import ScheduleError, TaskError, TaskFileError
from studies.schedules import custom
from studies.space import Value
from tests.workers.problems import STEPS_PER_EPOCH, run, trial
from workers.callbacks import ScheduleCallback, TableSchedule
from workers.tasks.registry import load

RULES = """
import math
from lr_arena import schedule

@schedule("keep-then-fall")
def keep_then_fall(epoch, lr, *, keep=2, k=0.1):
    return lr if epoch < keep else lr * math.exp(-k)
"""


@pytest.fixture(autouse=True)
def registry_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(custom, "_functions", {"keras-example": custom._functions["keras-example"]})


@pytest.fixture
def write(tmp_path: Path) -> Iterator[Callable[..., str]]:
    before = set(sys.modules)

    def written(text: str, name: str = "my_schedules.py") -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    yield written
    for name in set(sys.modules) - before:
        del sys.modules[name]


def fitted(*callbacks: Any, learning_rate: float = 0.1, epochs: int = 5) -> list[float]:
    """The rate of each epoch of a fit of four steps each, as Keras logs it."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(learning_rate), "mse")
    ones = np.ones((4, 1), dtype=np.float32)
    history = model.fit(ones, ones, batch_size=1, epochs=epochs, callbacks=list(callbacks), verbose=0)
    return [float(rate) for rate in history.history["learning_rate"]]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras reads its own rate so
@pytest.mark.parametrize(
    ("expr", "rule"),
    [
        ("lr if epoch < 2 else lr * exp(-0.1)", lambda epoch, lr: lr if epoch < 2 else lr * math.exp(-0.1)),
        ("0.01 if epoch > 2 and epoch % 2 else lr * 0.9", lambda e, lr: 0.01 if e > 2 and e % 2 else lr * 0.9),
    ],
)
def test_formula_and_function_give_the_rates_of_keras_learning_rate_scheduler(
    expr: str, rule: Callable[[int, float], float]
) -> None:
    custom.schedule("rule")(rule)
    expected = fitted(keras.callbacks.LearningRateScheduler(rule))
    assert fitted(ScheduleCallback("expression", expr=expr)) == pytest.approx(expected, rel=1e-6)
    assert fitted(ScheduleCallback("custom", function="rule")) == pytest.approx(expected, rel=1e-6)


def test_a_trial_applies_the_rates_of_a_formula_with_parameters() -> None:
    _, records = run(trial({"type": "expression", "expr": "lr0 * g ** step", "g": 0.9}, learning_rate=0.07, epochs=3))
    first = [0.07 * 0.9 ** (epoch * STEPS_PER_EPOCH) for epoch in range(3)]
    last = [0.07 * 0.9 ** (epoch * STEPS_PER_EPOCH + STEPS_PER_EPOCH - 1) for epoch in range(3)]
    assert [record.lr_first for record in records] == pytest.approx(first, rel=1e-6)
    assert [record.lr_last for record in records] == pytest.approx(last, rel=1e-6)


def test_a_trial_applies_the_rates_of_a_function_in_a_file_without_tasks(write: Callable[..., str]) -> None:
    tasks = load([write(RULES)])
    assert "digits-mlp" in tasks
    described: dict[str, Value] = {"type": "custom", "function": "keep-then-fall", "k": 1}
    _, records = run(trial(described, learning_rate=0.07, epochs=4))
    expected = [0.07, 0.07, 0.07 / math.e, 0.07 / math.e**2]
    assert [record.lr_last for record in records] == pytest.approx(expected, rel=1e-6)


def test_a_file_that_is_loaded_again_replaces_its_functions(write: Callable[..., str]) -> None:
    spec = write(RULES)
    load([spec])
    before = custom.registered("keep-then-fall")
    load([spec])
    assert custom.registered("keep-then-fall") is not before


def test_two_files_cannot_declare_one_name(write: Callable[..., str]) -> None:
    first, second = write(RULES), write(RULES, "others.py")
    with pytest.raises(TaskFileError, match=r"others.py: there is already a schedule 'keep-then-fall', the function"):
        load([first, second])


def test_a_file_with_neither_a_task_nor_a_schedule_is_refused(write: Callable[..., str]) -> None:
    with pytest.raises(TaskFileError, match=r"neither a task nor a schedule in it; decorate .* @schedule\(\.\.\.\)"):
        load([write("def rule(epoch, lr):\n    return lr\n")])


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ({"type": "custom", "function": "nowhere"}, "no schedule function 'nowhere' here"),
        ({"type": "expression", "expr": "lr0 - 0.02 * epoch"}, r"gives the rate -0.01 at step 12 \(epoch 3\)"),
    ],
)
def test_a_trial_whose_schedule_gives_no_rate_cannot_run(schedule: dict[str, Value], words: str) -> None:
    with pytest.raises(ScheduleError, match=words) as caught:
        run(trial(schedule))
    assert isinstance(caught.value, TaskError), "so the training process reports the trial as failed, with the reason"


def test_a_saved_model_keeps_its_formula_and_parameters() -> None:
    made = ScheduleCallback("expression", expr="lr0 * g ** epoch", g=0.5).schedule
    table = TableSchedule(made, 0.1, steps=12, steps_per_epoch=4)  # type: ignore[arg-type]
    again = TableSchedule.from_config(table.get_config())
    rates = [0.1 * 0.5**epoch for epoch in range(3) for _ in range(4)]
    assert [float(again(step)) for step in range(12)] == pytest.approx(rates, rel=1e-6)
