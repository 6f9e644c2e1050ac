"""A function of the user's own as a schedule; the function lives on the worker, beside the tasks."""

from __future__ import annotations

import inspect
import math
import re
import traceback
from collections.abc import Callable, Iterable
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import numpy as np
from pydantic import Field

from studies.errors import ScheduleError, TaskError, suggestion
from studies.parameters import OwnParameters
from studies.schedules.base import OpenLoop, Rates, Timeline

Function = TypeVar("Function", bound=Callable[..., Any])

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"


def schedule(name: str) -> Callable[[Function], Function]:
    """Register a function (epoch: int, lr: float, **parameters) -> float under a name that studies can ask for.

    ```python
    @schedule("halve-at")
    def halve_at(epoch, lr, *, first=10):
        return lr / 2 if epoch == first else lr
    ```

    It is called as by Keras' LearningRateScheduler: as each epoch begins, with the epoch, 0-based, and the rate
    that it gave last, at first the base rate; but without a model, so before the training, for all epochs.
    Parameters of the user's own come as keywords. Defining the same function again (module and
    qualified name) replaces it. Raises TaskError for a bad name, one that another function has, or a function
    that cannot be called so.
    """
    if not isinstance(name, str) or not re.fullmatch(_NAME, name):
        raise TaskError(f"a schedule's name is made of letters, digits, '.', '_' and '-', but got {name!r}")

    def register(function: Function) -> Function:
        before = _functions.get(name)
        if before is not None and _origin(before) != _origin(function):
            raise TaskError(f"there is already a schedule {name!r}, {_place(before)}; rename one of the two")
        signature = _signature(function)
        if signature is not None:
            try:
                signature.bind_partial(0, 0.1)
            except TypeError:
                raise TaskError(
                    f"schedule {name!r}: a function (epoch, lr, **parameters) is needed, but got "
                    f"{function.__name__}{signature}"
                ) from None
        _functions[name] = function
        return function

    return register


def registered(name: str) -> Callable[..., Any]:
    """The function of this name. Raises ScheduleError, with the names there are."""
    try:
        return _functions[name]
    except KeyError:
        raise ScheduleError(
            f"there is no schedule function {name!r} here{suggestion(name, _functions)}; declare it in the worker's "
            f'task file with @schedule("{name}") from lr_arena'
        ) from None


def any_registered(values: Iterable[object]) -> bool:
    """Whether one of these values, such as those of a module, is a registered function."""
    known = {id(function) for function in _functions.values()}
    return any(id(value) in known for value in values)


def _signature(function: Callable[..., Any]) -> inspect.Signature | None:
    """How a function is called; None for what is written in C and does not say."""
    try:
        return inspect.signature(function)
    except ValueError:
        return None


def _origin(function: Callable[..., Any]) -> tuple[str, str]:
    return str(getattr(function, "__module__", "")), str(getattr(function, "__qualname__", repr(function)))


def _place(function: Callable[..., Any]) -> str:
    module, name = _origin(function)
    return f"the function {name} of {module}"


def _keras_example(epoch: int, lr: float, *, hold: float = 10, decay: float = 0.1) -> float:
    """The example in the documentation of Keras' LearningRateScheduler: hold, then fall by e^-decay each epoch."""
    return lr if epoch < hold else lr * math.exp(-decay)


_functions: dict[str, Callable[..., Any]] = {"keras-example": _keras_example}


class Custom(OpenLoop, OwnParameters):
    """A Python function of your own, (epoch, lr) -> lr, declared beside the tasks of a worker.

    `{type: custom, function: my-rule, g: [0.5, 0.9]}`, and in the file that the worker is given with --tasks:
    `from lr_arena import schedule`, then `@schedule("my-rule")` above `def my_rule(epoch, lr, *, g)`.
    eta(e) = function(e, eta(e - 1), **parameters), eta(-1) = eta0: called as by Keras' LearningRateScheduler at the
    beginning of each epoch, e = 0, 1, ..., counted from the end of the warm-up, with the rate that it gave
    last. Parameters of your own are allowed, at most 20: numbers, which come as keywords, and which
    may be searched; a range is one of whole numbers if both its ends are written so.
    First and last epoch as the function says. Where a rate is not finite, or below 0, the trial fails at once.
    """

    formula: ClassVar[str] = "eta(e) = function(e, eta(e - 1), ...), eta(-1) = eta0"
    source: ClassVar[str] = "keras LearningRateScheduler"
    helps: ClassVar[str] = "Where you have a schedule as Python code already, or a formula does not say it."
    pitfalls: ClassVar[str] = (
        "A function that builds on `lr` compounds, and falls in epoch 0 already unless it looks at the epoch. "
        "Every worker needs the function, and the same one: it is no part of the definition, nor of the task's "
        "fingerprint. It must depend on its arguments alone, or a trial cannot be repeated."
    )
    taken: ClassVar[frozenset[str]] = frozenset({"epoch", "lr"})

    type: Literal["custom"] = "custom"
    function: Annotated[
        str,
        Field(
            pattern=_NAME,
            description="its name in @schedule; keras-example, with hold = 10 and decay = 0.1, is always there",
        ),
    ] = "keras-example"

    def rates(self, base_rate: float, timeline: Timeline) -> Rates:
        """See the class. Raises ScheduleError where there is no such function, or it gives no rate."""
        function = registered(self.function)
        signature = _signature(function)
        if signature is not None:
            try:
                signature.bind(0, base_rate, **self.own)
            except TypeError as error:
                raise ScheduleError(f"schedule function {self.function!r}{signature}: {error}") from None
        rates = np.empty(int(timeline.epoch.max()) + 1)
        lr = base_rate
        for epoch in range(rates.size):
            lr = self._call(function, epoch, lr)
            rates[epoch] = lr
        return rates[timeline.epoch]

    def _call(self, function: Callable[..., Any], epoch: int, lr: float) -> float:
        where = f"schedule function {self.function!r} in epoch {epoch}, where lr is {lr:g}"
        try:
            value = function(epoch, lr, **self.own)
        except Exception as error:
            line = traceback.extract_tb(error.__traceback__)[-1]
            raise ScheduleError(
                f"{where}: {type(error).__name__}: {error} (line {line.lineno} of {line.filename})"
            ) from error
        try:
            rate = math.nan if isinstance(value, bool | str | bytes) else float(value)
        except (TypeError, ValueError, OverflowError):
            rate = math.nan
        if not 0 <= rate < math.inf:
            raise ScheduleError(f"{where}: it must return a finite number, at least 0, but got {value!r}")
        return rate
