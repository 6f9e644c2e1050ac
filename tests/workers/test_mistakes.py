"""The well-known mistakes of docs/schedules.md do what the page says, and what it says to write instead does not."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import yaml
from pydantic import ValidationError

from docs import mistakes
from studies.schedules import OpenLoop, make
from studies.schedules.table import rate_table
from workers.callbacks import ScheduleCallback

# Keras 3.15 turns a variable into an array in a way that NumPy 2.4 warns about.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't:DeprecationWarning")

PAGE = (Path(__file__).parents[2] / "docs" / "schedules.md").read_text()
_, *SECTIONS = re.split(r"^### ", PAGE.partition("## Well-known mistakes\n")[2], flags=re.MULTILINE)
DEMONSTRATIONS = [
    pytest.param(block, id=section.splitlines()[0])
    for section in SECTIONS
    for block in re.findall(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
]


def section(title: str) -> str:
    (found,) = [text for text in SECTIONS if text.startswith(title)]
    return found


def instead(title: str) -> list[ScheduleCallback]:
    """The callbacks that a section recommends."""
    calls = re.findall(r"`(ScheduleCallback\(.*?\))`", section(title))
    return [eval(call, {"ScheduleCallback": ScheduleCallback}) for call in calls]


def rates(callback: ScheduleCallback, *, epochs: int, steps_per_epoch: int) -> Any:
    assert isinstance(callback.schedule, OpenLoop)
    assert callback.learning_rate is not None
    return rate_table(
        callback.schedule,
        callback.learning_rate,
        warmup=callback.warmup,
        steps=epochs * steps_per_epoch,
        steps_per_epoch=steps_per_epoch,
    )


def test_every_mistake_has_its_section() -> None:
    assert [text.splitlines()[0] for text in SECTIONS] == [
        "Compounding the decay",
        "A first drop at epoch 0",
        "Dividing epochs by samples",
        "A `decay` that was thought to act per epoch",
        "`epsilon=` swallowed",
    ]
    assert len(DEMONSTRATIONS) == 6
    assert all("In LR Arena: `ScheduleCallback(" in text for text in SECTIONS)


@pytest.mark.parametrize("block", DEMONSTRATIONS)
def test_a_demonstration_has_three_lines_and_prints_what_it_says(block: str) -> None:
    lines = [line for line in block.splitlines() if line]
    assert len(lines) == 3
    (promised,) = re.findall(r"  # prints (.+)$", block, re.MULTILINE)
    warned = re.findall(r"  # warns (.+)$", block, re.MULTILINE)
    printed = io.StringIO()
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(printed))
        for message in warned:
            stack.enter_context(pytest.warns(UserWarning, match=re.escape(message)))
        exec(compile(block, "docs/schedules.md", "exec", dont_inherit=True), {})
    assert printed.getvalue() == f"{promised}\n"


# --- the mistakes that can be run, against closed forms


def run(name: str, capsys: pytest.CaptureFixture[str]) -> tuple[str, list[float], list[float]]:
    """What is printed, and in it the rates of each epoch, as published and as meant."""
    assert mistakes.main([name]) == 0
    out = capsys.readouterr().out
    rows = re.findall(r"^ +(\d+) +(\S+) +(\S+)$", out, re.MULTILINE)
    assert [int(epoch) for epoch, _, _ in rows] == list(range(mistakes.EPOCHS))
    return out, [float(published) for _, published, _ in rows], [float(meant) for _, _, meant in rows]


def test_the_compounding_schedule_halves_and_then_quarters_in_every_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    out, published, meant = run("compounding", capsys)
    assert "return lr * 0.5 ** (epoch // 10)" in out
    halvings = [*[0] * 10, *range(1, 11), *range(12, 22, 2)]
    assert published == pytest.approx([0.1 * 2.0**-n for n in halvings], rel=1e-5)
    assert meant == pytest.approx([0.1] * 10 + [0.05] * 10 + [0.025] * 5, rel=1e-5)


def test_the_schedule_with_a_first_drop_at_epoch_0_never_has_its_base_rate(capsys: pytest.CaptureFixture[str]) -> None:
    out, published, meant = run("first-drop-at-epoch-0", capsys)
    assert "if epoch % 10 == 0:\n        lr = lr * 0.5" in out
    assert published == pytest.approx([0.05] * 10 + [0.025] * 10 + [0.0125] * 5, rel=1e-5)
    assert meant == pytest.approx([0.1] * 10 + [0.05] * 10 + [0.025] * 5, rel=1e-5)


def test_the_list_names_those_that_the_page_offers(capsys: pytest.CaptureFixture[str]) -> None:
    assert mistakes.main(["list"]) == 0
    listed = re.findall(r"^([\w-]+): ", capsys.readouterr().out, re.MULTILINE)
    assert listed == re.findall(r"`python docs/mistakes\.py ([\w-]+)`", PAGE)


def test_an_unknown_mistake_is_refused_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        mistakes.main(["forgetting"])
    assert ended.value.code == 2
    refusal = capsys.readouterr().err
    assert all(name in refusal for name in mistakes.MISTAKES)


# --- Keras, beyond the three lines


def trained(optimizer: Any, *callbacks: Any, epochs: int = 3) -> list[float]:
    """The rate after each epoch of a fit whose loss never changes."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(optimizer, loss=lambda target, output: 0.0 * output)
    noted: list[float] = []
    note = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: noted.append(float(model.optimizer.learning_rate))
    )
    ones = np.ones((4, 1), dtype=np.float32)
    model.fit(ones, ones, batch_size=2, epochs=epochs, callbacks=[*callbacks, note], verbose=0)
    return noted


def test_keras_trains_at_a_constant_rate_whatever_decay_says() -> None:
    with pytest.warns(UserWarning, match="`decay` is no longer supported"):
        optimizer = keras.optimizers.SGD(0.1, decay=0.5)
    assert trained(optimizer) == pytest.approx([0.1] * 3)


def test_epsilon_is_no_threshold_in_keras() -> None:
    falling = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: logs.update(val_loss=1.0 - 0.1 * epoch))

    def reduced(**threshold: float) -> list[float]:
        plateau = keras.callbacks.ReduceLROnPlateau(patience=1, factor=0.5, **threshold)
        return trained(keras.optimizers.SGD(1.0), falling, plateau)

    # Every epoch is better by 0.1, which a threshold of 0.5 should not take for an improvement.
    assert reduced(epsilon=0.5) == pytest.approx([1.0, 1.0, 1.0])
    assert reduced(min_delta=0.5) == pytest.approx([1.0, 0.5, 0.25])


def test_the_old_decay_of_the_page_is_inverse_time_decay_per_batch() -> None:
    oracle = keras.optimizers.schedules.InverseTimeDecay(0.1, decay_steps=1, decay_rate=0.1 / 100)
    assert f"was {float(oracle(39_100)):.4f}" in section("A `decay`")
    (callback,) = instead("A `decay`")
    table = rates(callback, epochs=100, steps_per_epoch=391)
    assert table[::3910] == pytest.approx([float(oracle(step)) for step in range(0, 39_100, 3910)], rel=1e-5)


# --- what to write instead


@pytest.mark.parametrize("title", ["Compounding", "A first drop"])
def test_the_step_that_is_recommended_drops_every_ten_epochs_and_not_at_epoch_0(title: str) -> None:
    (callback,) = instead(title)
    expected = [0.1 * 0.5 ** (epoch // 10) for epoch in range(31) for _ in range(3)]
    assert rates(callback, epochs=31, steps_per_epoch=3) == pytest.approx(expected, rel=1e-6)


def test_the_entries_of_a_study_that_are_recommended_mean_the_same() -> None:
    entries = [yaml.safe_load(entry) for entry in re.findall(r"`(\{type: .*?\})`", section("Compounding"))]
    assert [entry["type"] for entry in entries] == ["step", "expression"]
    for entry in entries:
        schedule = make(entry.pop("type"), **entry)
        assert isinstance(schedule, OpenLoop)
        table = rate_table(schedule, 0.1, warmup=0.0, steps=93, steps_per_epoch=3)
        assert table == pytest.approx([0.1 * 0.5 ** (epoch // 10) for epoch in range(31) for _ in range(3)], rel=1e-6)


def test_the_cosine_that_is_recommended_ends_with_the_training() -> None:
    (callback,) = instead("Dividing")
    table = rates(callback, epochs=100, steps_per_epoch=391)
    assert table[0] == pytest.approx(0.1)
    assert 0 < table[-1] < 1e-9


def test_an_epsilon_is_an_error_here() -> None:
    (callback,) = instead("`epsilon=`")
    assert callback.schedule.parameters["min_delta"] == 0.01
    with pytest.raises(ValidationError, match="epsilon"):
        ScheduleCallback("reduce_on_plateau", learning_rate=0.1, epsilon=0.01)
