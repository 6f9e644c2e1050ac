"""Runs a schedule that was published with a mistake in it, as it is, beside the one that was meant.

    python docs/mistakes.py list
    python docs/mistakes.py compounding
    python docs/mistakes.py first-drop-at-epoch-0

Both train a tiny model for real, with Keras; the rates are read back from the optimizer. What goes wrong, and
what to write instead: docs/schedules.md, "Well-known mistakes".
"""

from __future__ import annotations

import argparse
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

BASE_RATE = 0.1
EPOCHS = 25


def compounding(epoch: int, lr: float) -> float:
    """Meant: the rate is halved every 10 epochs."""
    return lr * 0.5 ** (epoch // 10)


def first_drop_at_epoch_0(epoch: int, lr: float) -> float:
    """Meant: the rate is halved every 10 epochs."""
    if epoch % 10 == 0:
        lr = lr * 0.5
    return lr


@dataclass(frozen=True)
class Mistake:
    """published: the function as people give it to Keras' LearningRateScheduler; wrong: what comes of it."""

    published: Callable[[int, float], float]
    wrong: str


MISTAKES = {
    "compounding": Mistake(
        compounding,
        "`lr` is the rate that the last epoch left, so the power is applied to it again in every epoch: "
        "from epoch 10 on each epoch halves it, from epoch 20 on each quarters it.",
    ),
    "first-drop-at-epoch-0": Mistake(
        first_drop_at_epoch_0,
        "0 % 10 is 0 as well: the first drop comes before the first step, and the training never runs at its base "
        "rate.",
    ),
}
"""By the names under which they are run."""


def run(mistake: Mistake) -> tuple[list[float], list[float]]:
    """The rate of each epoch, as the published schedule has it and as it was meant."""
    import keras

    from workers.callbacks import ScheduleCallback

    published = _train(keras.callbacks.LearningRateScheduler(mistake.published))
    meant = _train(ScheduleCallback("step", learning_rate=BASE_RATE, factor=0.5, every=10))
    return published, meant


def _train(schedule: Any) -> list[float]:
    """Fit a line with this callback; returns the rate of each epoch's last step."""
    import keras
    import numpy as np

    x = np.linspace(-1.0, 1.0, 8, dtype=np.float32)[:, None]
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(BASE_RATE), loss="mse")
    history = model.fit(x, 2 * x, batch_size=4, epochs=EPOCHS, callbacks=[schedule], verbose=0)
    return [float(rate) for rate in history.history["learning_rate"]]


def lines(name: str, published: Sequence[float], meant: Sequence[float]) -> Iterator[str]:
    """What is printed: the function, the rates side by side, and what went wrong."""
    mistake = MISTAKES[name]
    yield inspect.getsource(mistake.published)
    yield "epoch   as published      as meant"
    for epoch, (is_, should_be) in enumerate(zip(published, meant, strict=True)):
        yield f"{epoch:5}   {is_:12.6g}  {should_be:12.6g}"
    yield f"\n{mistake.wrong}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one mistake, or list them."""
    parser = argparse.ArgumentParser(description="Run a schedule that was published with a mistake in it.")
    parser.add_argument("name", choices=["list", *MISTAKES], help="which; `list` says what there is")
    name = parser.parse_args(arguments).name
    if name == "list":
        for known, mistake in MISTAKES.items():
            print(f"{known}: {mistake.wrong}")
        return 0
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for line in lines(name, *run(MISTAKES[name])):
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
