"""A configuration as Python code that needs Keras and nothing of LR Arena.

A schedule that one of Keras' own classes expresses is written with that class, any other open-loop one as a table in
pieces (`studies.pieces`), a closed-loop one as a callback. Classes that are not Keras' are copied from
`studies/snippets/`.
"""

from __future__ import annotations

import ast
import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from studies.configuration import Configuration
from studies.errors import NoWinner
from studies.pieces import Pieces
from studies.schedules import ClosedLoop, OpenLoop, Schedule
from studies.schedules.adaptive import AdaptiveValidation, Greedy
from studies.schedules.constant import Constant
from studies.schedules.cosine import Cosine, CosineRestarts
from studies.schedules.decays import Exponential, InverseTime, NaturalExponential, TimeDecay
from studies.schedules.plateau import PlateauWithRevert, ReduceOnPlateau, direction
from studies.schedules.polynomial import Linear, Polynomial
from studies.schedules.steps import PiecewiseConstant, Step
from studies.schedules.table import warmup_steps

WIDTH = 110
"""The longest line, but for a long list."""


@dataclass(frozen=True)
class Training:
    """A configuration in a training of so many epochs; steps_per_epoch is None where nobody knows."""

    configuration: Configuration
    epochs: int
    steps_per_epoch: int | None

    @property
    def schedule(self) -> Schedule:
        """The schedule at its parameters."""
        return self.configuration.make_schedule()

    @property
    def steps(self) -> int | None:
        """Optimizer steps, all in all."""
        return None if self.steps_per_epoch is None else self.epochs * self.steps_per_epoch

    @property
    def warmup_steps(self) -> int | None:
        """Optimizer steps of the warm-up."""
        if self.configuration.warmup == 0.0:
            return 0
        return None if self.steps is None else warmup_steps(self.configuration.warmup, self.steps)

    @property
    def needs_table(self) -> bool:
        """Whether the schedule has a table of rates, and no class of Keras' own has them."""
        return isinstance(self.schedule, OpenLoop) and _built_in(self) is None


def with_optimizer(training: Training, table: Pieces | None, early_stopping: Mapping[str, Any] | None = None) -> str:
    """Code that makes `optimizer`, with the schedule in it, and `callbacks`. Raises NoWinner.

    table: for a training that `needs_table`. early_stopping: the arguments of keras.callbacks.EarlyStopping, to go with
    the callbacks.
    """
    schedule, warm = training.schedule, training.warmup_steps
    classes, lines, callbacks = "", list[str](), list[str]()
    rate = "learning_rate"
    if isinstance(schedule, ClosedLoop):
        callback, classes = _closed_loop(schedule, training.configuration, keras_own=True)
        callbacks.append(callback)
        rate = _HELD
    elif (built_in := _built_in(training)) is None:
        assert table is not None
        classes = _source("open_loop", "TableSchedule")
        lines += [_list("PIECES", table), ""]
        lines.append(f"learning_rate = TableSchedule(PIECES, made_for={training.steps}, steps=STEPS)")
    elif built_in == _HELD:
        if warm is not None and warm > 1:
            lines.append(f"learning_rate = {_RISEN}")
        else:
            rate = _HELD
    elif not warm:
        lines.append(f"learning_rate = {built_in}")
    else:
        classes = _source("open_loop", "WarmUp")
        lines += [f"schedule = {built_in}", "learning_rate = WarmUp(LEARNING_RATE, WARMUP_STEPS, schedule)"]
    if early_stopping is not None:
        arguments = {name: ascii(value) for name, value in early_stopping.items()}
        callbacks.append(_call("keras.callbacks.EarlyStopping", arguments))
    lines.append(f"optimizer = {_optimizer(training.configuration, rate)}")
    lines.append(_assigned(callbacks))
    usage = [
        "model.compile(optimizer=optimizer, loss=...)",
        "model.fit(x, y, batch_size=BATCH_SIZE, epochs=EPOCHS, callbacks=callbacks, validation_data=...)",
    ]
    return _code(_constants(training, "\n".join([*lines, *usage])), classes, lines, usage)


def as_callback(training: Training, table: Pieces | None) -> str:
    """Code that makes `callbacks`, which bring the schedule to any compiled model. Raises NoWinner.

    table: for an open-loop schedule.
    """
    schedule, configuration = training.schedule, training.configuration
    if isinstance(schedule, ClosedLoop):
        callback, classes = _closed_loop(schedule, configuration, keras_own=False)
        lines = [f"LEARNING_RATE = {configuration.learning_rate!r}"]
    else:
        assert table is not None
        callback = f"SetSchedule(PIECES, made_for={training.steps or 1})"
        classes = _source("open_loop", "TableSchedule", "SetSchedule")
        lines = [_list("PIECES", table)]
    usage = [
        "found with",
        *_optimizer(configuration, repr(configuration.learning_rate)).splitlines(),
        f"and batches of {configuration.batch_size}, in {training.epochs} epochs",
        "model.fit(x, y, batch_size=..., epochs=..., callbacks=callbacks, validation_data=...)",
    ]
    return _code([], classes, [*lines, "", _assigned([callback])], usage)


def _constants(training: Training, code: str) -> list[str]:
    """The assignments that some code relies on; the user may change them for data of another size."""
    lines = [f"BATCH_SIZE = {training.configuration.batch_size}", f"EPOCHS = {training.epochs}"]
    if _HELD in code:
        lines.insert(0, f"{_HELD} = {training.configuration.learning_rate!r}")
    if "STEPS" in code:  # of an epoch or of all; the others are made from them
        lines.append(f"STEPS_PER_EPOCH = {training.steps_per_epoch}  # yours is ceil(training examples / BATCH_SIZE)")
    if re.search(r"\bSTEPS\b|WARMUP_STEPS|DECAY_STEPS", code):
        lines.append("STEPS = EPOCHS * STEPS_PER_EPOCH")
    if "WARMUP_STEPS" in code:
        lines.append(f"WARMUP_STEPS = round({training.configuration.warmup!r} * STEPS)")
    if "DECAY_STEPS" in code:
        lines.append("DECAY_STEPS = STEPS - WARMUP_STEPS")
    return lines


# --- Keras' own classes

_SCHEDULES = "keras.optimizers.schedules."
_HELD = "LEARNING_RATE"
"""A rate that does not change."""
_MANY = 50
"""Keras' piecewise constant compares a step with every boundary: with more of them than this, a table is better."""
_WHOLE = 2**24
"""Keras' classes count steps in float32, which holds whole numbers so far."""


def _built_in(training: Training) -> str | None:
    """The schedule after the warm-up as an expression with one of Keras' own classes; None where none is near enough.

    Near enough is 1e-6 of the base rate: Keras computes in float32, where some classes are further off. The
    expression is in terms of the snippet's constants, so that it fits other lengths of training. A rate that
    does not change is the name of the constant.
    """
    schedule, per_epoch, w = training.schedule, training.steps_per_epoch, training.warmup_steps
    if isinstance(schedule, Constant):
        return _HELD
    if training.steps is None or per_epoch is None or w is None or training.steps > _WHOLE:
        return None
    if w != round(training.configuration.warmup * training.steps):
        return None  # a training of a few steps, nearly all of them warm-up
    total = training.steps - w
    span = "DECAY_STEPS" if w else "STEPS"
    match schedule:
        case Step():
            return _step(schedule, total, per_epoch)
        case PiecewiseConstant():
            return _piecewise(schedule, span)
        case Exponential() | NaturalExponential() | InverseTime() if schedule.stairs:
            return _stairs(schedule, span)
        case Exponential(final_ratio=ratio) if ratio >= 1e-30:  # float32 has no smaller ones at full precision
            return _decay("ExponentialDecay", decay_steps=span, decay_rate=repr(ratio))
        case NaturalExponential(kappa=kappa):
            return _decay("ExponentialDecay", decay_steps=f"{span} / {kappa!r}", decay_rate=repr(math.exp(-1.0)))
        case InverseTime(kappa=kappa) if kappa <= 1e30:
            return _decay("InverseTimeDecay", decay_steps=span, decay_rate=repr(kappa))
        case TimeDecay(final_ratio=ratio) if ratio >= 1e-30:
            return _decay("InverseTimeDecay", decay_steps=span, decay_rate=repr(1.0 / ratio - 1.0))
        case Linear(alpha=alpha):
            return _decay("PolynomialDecay", decay_steps=span, end_learning_rate=_floor(alpha), power="1.0")
        case Polynomial():
            return _polynomial(schedule, total, span)
        case Cosine(power=1.0, alpha=alpha) | CosineRestarts(cycles=1, alpha=alpha):
            return _decay("CosineDecay", decay_steps=span, alpha=repr(alpha))
        case CosineRestarts(cycles=cycles, t_mul=1.0) if total % cycles == 0 and cycles <= 8:
            # With other t_mul Keras finds the cycle by a logarithm in float32, which may be late by a step.
            return _decay(
                "CosineDecayRestarts",
                first_decay_steps=f"{span} // {cycles}",
                t_mul="1.0",
                m_mul=repr(schedule.m_mul),
                alpha=repr(schedule.alpha),
            )
        case _:
            return None


def _decay(name: str, **arguments: str) -> str:
    return _call(_SCHEDULES + name, {"initial_learning_rate": "LEARNING_RATE", **arguments})


def _floor(alpha: float) -> str:
    return f"{alpha!r} * LEARNING_RATE" if alpha else "0.0"


def _polynomial(schedule: Polynomial, total: int, span: str) -> str | None:
    # (1 - s/T)^power amplifies the rounding of s/T: at the beginning power times, near the end by T^(1 - power).
    error = 6e-8 * schedule.power * max(1.0, float(total) ** (1.0 - schedule.power))
    if error > 1e-6 or total % schedule.cycles:
        return None
    arguments = {
        "decay_steps": span if schedule.cycles == 1 else f"{span} // {schedule.cycles}",
        "end_learning_rate": _floor(schedule.alpha),
        "power": repr(schedule.power),
    }
    if schedule.cycles > 1:
        arguments["cycle"] = "True"
    return _decay("PolynomialDecay", **arguments)


def _constant_between(boundaries: str, values: str) -> str:
    return _call(f"{_SCHEDULES}PiecewiseConstantDecay", {"boundaries": boundaries, "values": values})


def _step(schedule: Step, total: int, per_epoch: int) -> str | None:
    epoch = np.arange(-(-total // per_epoch))
    if schedule.every:
        drops = epoch // schedule.every
    else:
        drops = np.clip(epoch * per_epoch * (schedule.drops + 1) // total, 0, schedule.drops)
    at = np.flatnonzero(np.diff(drops)) + 1
    if at.size == 0:
        return _HELD
    if at.size > _MANY:
        return None
    numbers = [0, *drops[at].tolist()]
    # A boundary is the last step of the old rate.
    return _constant_between(
        f"[epoch * STEPS_PER_EPOCH - 1 for epoch in {at.tolist()}]",
        f"[LEARNING_RATE * {schedule.factor!r} ** drops for drops in {numbers}]",
    )


def _piecewise(schedule: PiecewiseConstant, span: str) -> str:
    breaks = (schedule.break_1, schedule.break_2, schedule.break_3, schedule.break_4)[: schedule.boundaries]
    ratios = (schedule.ratio_1, schedule.ratio_2, schedule.ratio_3, schedule.ratio_4)[: schedule.boundaries]
    boundaries, values = [0.0], [1.0]
    for fraction, ratio in zip(breaks, ratios, strict=True):
        boundaries.append(boundaries[-1] + fraction * (1.0 - boundaries[-1]))
        values.append(values[-1] * ratio)
    return _constant_between(
        f"[int(part * {span}) for part in {boundaries[1:]}]", f"[LEARNING_RATE * ratio for ratio in {values}]"
    )


def _stairs(schedule: Exponential | NaturalExponential | InverseTime, span: str) -> str | None:
    n = schedule.stairs
    if n == 1:
        return _HELD
    if n > _MANY:
        return None
    match schedule:
        case Exponential(final_ratio=ratio):
            value = f"LEARNING_RATE * {ratio!r} ** (stair / {n})"
        case NaturalExponential(kappa=kappa):
            value = f"LEARNING_RATE * math.exp(-{kappa!r} * stair / {n})"
        case InverseTime(kappa=kappa):
            value = f"LEARNING_RATE / (1.0 + {kappa!r} * stair / {n})"
    # A stair begins at the first whole step at or past its boundary, whichever the number of steps.
    boundaries = f"[-(-stair * {span} // {n}) - 1 for stair in range(1, {n})]"
    return _constant_between(boundaries, f"[{value} for stair in range({n})]")


# --- callbacks and optimizers


def _closed_loop(schedule: ClosedLoop, configuration: Configuration, *, keras_own: bool) -> tuple[str, str]:
    """A callback as an expression, and the source of its class unless that is Keras' own. Raises NoWinner."""
    if not isinstance(schedule, ReduceOnPlateau | AdaptiveValidation | Greedy):
        raise NoWinner(f"{schedule.type} reacts to a metric, and its rule is not written down as a callback of its own")
    base, warm = configuration.learning_rate, configuration.warmup
    watched = {
        "monitor": ascii(schedule.monitor),
        "mode": repr(direction(schedule.monitor, schedule.mode)),
        "factor": repr(schedule.factor),
        "patience": repr(schedule.patience),
    }
    rule: dict[str, str]
    match schedule:
        case ReduceOnPlateau():
            rule = {"min_delta": repr(schedule.min_delta), "cooldown": repr(schedule.cooldown)}
            floor = repr(schedule.floor(base))
            if keras_own and warm == 0.0 and not isinstance(schedule, PlateauWithRevert):
                return _call("keras.callbacks.ReduceLROnPlateau", {**watched, **rule, "min_lr": floor}), ""
            rule["floor"] = floor
            names = ["ReduceOnPlateau"]
            if isinstance(schedule, PlateauWithRevert):
                rule["reset_best"] = repr(schedule.reset_best)
                names.append("PlateauWithRevert")
        case AdaptiveValidation():
            rule = {"min_delta": repr(schedule.min_delta), "floor": repr(schedule.min_ratio * base)}
            names = ["AdaptiveValidation"]
        case Greedy():
            rule = {
                "smoothing": repr(schedule.smoothing),
                "low": repr(schedule.min_ratio * base),
                "high": repr(schedule.max_ratio * base),
            }
            names = ["Greedy"]
    arguments = {"learning_rate": "LEARNING_RATE", **watched, **rule}
    if warm:
        arguments["warmup"] = repr(warm)
    return _call(names[-1], arguments), _source("closed_loop", "ClosedLoop", *names)


def _optimizer(configuration: Configuration, learning_rate: str) -> str:
    optimizer, decay = configuration.make_optimizer(), configuration.weight_decay
    own: dict[str, Any] = optimizer.model_dump(exclude={"type"})
    if decay or optimizer.keras_name == "AdamW":
        own["weight_decay"] = decay
    arguments = {"learning_rate": learning_rate, **{name: repr(value) for name, value in own.items()}}
    return _call(f"keras.optimizers.{optimizer.keras_name}", arguments)


# --- the text


def _code(constants: Sequence[str], classes: str, lines: Sequence[str], usage: Sequence[str]) -> str:
    body = "\n".join([*lines, "", *(f"# {line}" for line in usage)])
    text = ("\n\n\n" if classes else "\n\n").join(part for part in ("\n".join(constants), classes, body) if part)
    imports = [line for name, line in _IMPORTS.items() if re.search(rf"\b{name}\.", text)]
    return "\n".join(imports) + ("\n\n\n" if text.startswith(("@", "class")) else "\n\n") + text + "\n"


def _assigned(callbacks: Sequence[str]) -> str:
    if not callbacks:
        return "callbacks = []"
    return "callbacks = [\n" + "".join(textwrap.indent(callback, "    ") + ",\n" for callback in callbacks) + "]"


def _call(name: str, arguments: Mapping[str, str]) -> str:
    """A call, on one line if it fits."""
    given = [f"{key}={value}" for key, value in arguments.items()]
    line = f"{name}({', '.join(given)})"
    return line if len(line) <= WIDTH - 20 else f"{name}(\n" + "".join(f"    {item},\n" for item in given) + ")"


_IMPORTS = {
    "math": "import math\n",  # standard library first, and a blank line behind it
    "keras": "import keras",
    "np": "import numpy as np",
    "ops": "from keras import ops",
}


@cache
def _source(file: str, *names: str) -> str:
    """The source of classes in a file of snippets, in the order of the file."""
    text = (Path(__file__).parent / "snippets" / f"{file}.py").read_text(encoding="utf-8")
    lines = text.splitlines()
    found = [
        "\n".join(lines[min([node.lineno, *(d.lineno for d in node.decorator_list)]) - 1 : node.end_lineno])
        for node in ast.parse(text).body
        if isinstance(node, ast.ClassDef) and node.name in names
    ]
    assert len(found) == len(names), names
    return "\n\n\n".join(found)


def _list(name: str, pieces: Pieces) -> str:
    """An assignment of a list of tuples, as many on a line as fit."""
    lines = [f"{name} = ["]
    line = "   "
    for piece in pieces:
        written = f" ({', '.join(map(repr, piece))}),"
        if len(line) + len(written) > WIDTH and line.strip():
            lines.append(line)
            line = "   "
        line += written
    return "\n".join([*lines, line, "]"])


_RISEN = _call(
    f"{_SCHEDULES}PolynomialDecay",
    {
        "initial_learning_rate": "LEARNING_RATE / WARMUP_STEPS",
        "decay_steps": "WARMUP_STEPS - 1",
        "end_learning_rate": "LEARNING_RATE",
    },
)
