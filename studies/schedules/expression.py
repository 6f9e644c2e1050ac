"""A formula that the user posts, with parameters of the user's own."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, model_validator

from studies.errors import FieldError, ScheduleError, suggestion
from studies.formula import CONSTANTS, FUNCTIONS, VARIABLES, read
from studies.parameters import OwnParameters, write_domain
from studies.schedules.base import OpenLoop, Rates, Timeline
from studies.schedules.table import checked
from studies.space import Choice, Fixed, FlatSpace, Space


def _readable(text: str) -> str:
    read(text)
    return text


class Expression(OpenLoop, OwnParameters):
    """A formula of your own, with parameters of your own beside it, which may be searched like any others.

    `{type: expression, expr: "lr0 * g ** (epoch // k)", g: {low: 0.1, high: 0.9}, k: [5, 10]}`.
    eta = expr, where epoch and step count from 0 at the end of the warm-up, epochs and steps are how many
    there are from there on, lr0 is the base rate, and lr the rate that the formula gave last, lr0 at first, as
    in Keras' LearningRateScheduler: `lr * 0.9` falls in epoch 0 already. A formula with `step` in it is
    evaluated at every step; any other at each epoch's first, and its rate holds for the epoch.
    Arithmetic (+ - * / // % **), comparisons, and, or, not, `a if c else b`, the constant pi, and the functions
    abs ceil cos exp floor log max min round sin sqrt tanh; all numbers are float64. Every other name in the
    formula is a parameter of your own, and is given beside it: a number, a choice, or a range, which is one of
    whole numbers if both its ends are written so. At most 20, and each must be in the formula.
    First and last step as the formula says. Where a rate is not finite, or below 0, the trial fails at once.
    """

    formula: ClassVar[str] = "as `expr` says"
    source: ClassVar[str] = "keras LearningRateScheduler(lambda epoch, lr: ...), as a formula"
    helps: ClassVar[str] = "To try what a blog post or a paper proposes against the schedules of the catalogue."
    pitfalls: ClassVar[str] = (
        "A formula in `lr` compounds: each value starts from the one before, and falls in epoch 0 already. Lengths "
        "in epochs, as in `epoch // 30`, fit one length of training; `epoch / epochs` fits all. A straight line that "
        "crosses 0 fails the trial: write max(0, ...)."
    )
    taken: ClassVar[frozenset[str]] = frozenset({*VARIABLES, *CONSTANTS, *FUNCTIONS})

    type: Literal["expression"] = "expression"
    expr: Annotated[
        str,
        AfterValidator(_readable),
        Field(description="the formula; a list of several is a choice, in which each has the same parameters"),
    ] = "lr0 * 0.1 ** (epoch // 30)"

    @model_validator(mode="after")
    def _parameters_are_those_of_the_formula(self) -> Self:
        bad = [f"{field}: {reason}" for field, reason in _mismatches([self.expr], list(self.own))]
        if bad:
            raise ValueError("; ".join(bad))
        return self

    @classmethod
    def bad_together(cls, space: Space) -> list[FieldError]:
        """Names that a formula has and nobody gives, and the other way round."""
        own = [name for name in space if name != "expr"]
        written = {name: write_domain(domain) for name, domain in space.items()}
        bad = _mismatches(_formulas(space), own)
        return [FieldError(field, written.get(field), reason) for field, reason in bad]

    def rates(self, base_rate: float, timeline: Timeline) -> Rates:
        """See the class. With `lr` in the formula it takes a step in Python for each evaluation, else none."""
        names = read(self.expr).names
        moment = timeline.step if "step" in names else timeline.epoch
        if "lr" not in names:
            return self._at(moment, base_rate, base_rate, timeline)
        rates = np.empty(int(moment.max()) + 1)
        lr = base_rate
        for now in range(rates.size):
            lr = float(self._at(np.int64(now), lr, base_rate, timeline))
            rates[now] = lr
        return rates[moment]

    def _at(self, moment: NDArray[np.int64] | np.int64, lr: float, lr0: float, timeline: Timeline) -> Rates:
        """The formula's value at these evaluations of it, numbered by steps if it has `step` in it, else by epochs."""
        formula = read(self.expr)
        by_step = "step" in formula.names
        value = formula.value(
            {
                "epoch": moment // timeline.steps_per_epoch if by_step else moment,
                "step": moment,
                "epochs": timeline.total / timeline.steps_per_epoch,
                "steps": timeline.total,
                "lr": lr,
                "lr0": lr0,
                **self.own,
            }
        )
        return np.broadcast_to(np.asarray(value), moment.shape)


def without_rates(space: FlatSpace, epochs: int) -> Iterator[tuple[str, str]]:
    """The formulas in an expression's space that give no rate at the middle of it, and what is wrong with each.

    Tried over a training of so many epochs, of 10 steps each, at up to 500 evaluations.
    """
    middle = {name: domain.at(0.5) for name, domain in space.domains.items()}
    own = {name.removeprefix("schedule."): value for name, value in middle.items() if name.startswith("schedule.")}
    for formula in _formulas({"expr": space.domains["schedule.expr"]}):
        schedule = Expression.model_validate({**own, "expr": formula})
        if complaint := _complaint(schedule, float(middle["learning_rate"]), epochs):
            yield formula, complaint


_STEPS_PER_EPOCH = 10
_EVALUATIONS = 500


@lru_cache(maxsize=256)  # stored definitions are read again and again
def _complaint(schedule: Expression, base_rate: float, epochs: int) -> str | None:
    names = read(schedule.expr).names
    length = 1 if "step" in names else _STEPS_PER_EPOCH
    steps = epochs * _STEPS_PER_EPOCH
    # One that builds on its last value has to be followed from the beginning.
    end = min(steps, _EVALUATIONS * length) if "lr" in names else steps
    step = np.unique(np.linspace(0, end // length - 1, _EVALUATIONS).astype(np.int64)) * length
    rates = schedule.rates(base_rate, Timeline(step, steps, _STEPS_PER_EPOCH))
    try:
        checked(schedule, base_rate, rates, step, steps_per_epoch=_STEPS_PER_EPOCH)
    except ScheduleError as error:
        return str(error)
    return None


def _formulas(space: Space) -> Sequence[str]:
    match space.get("expr"):
        case Fixed(value=text):
            return [str(text)]
        case Choice(values=texts):
            return [str(text) for text in texts]
        case _:
            return [Expression.model_fields["expr"].default]


def _mismatches(formulas: Sequence[str], own: Collection[str]) -> Iterator[tuple[str, str]]:
    """The field and what is wrong with it, for each name that is not both given and in the formula."""
    for number, text in enumerate(formulas, 1):
        which = f"choice {number}" if len(formulas) > 1 else "the formula"
        there = read(text).parameters
        for name in there:
            if name not in own:
                known = ", ".join([*VARIABLES, *CONSTANTS])
                meant = suggestion(name, {*VARIABLES, *CONSTANTS, *FUNCTIONS, *own})
                if "did you mean" not in meant:
                    meant = f": it is none of {known}, and no parameter given beside it"
                yield "expr", f"unknown name {name!r} in {which}{meant}"
        for name in own:
            if name not in there:
                yield name, f"{which} has no {name} in it: {text!r}"
