"""Optuna's pruners over the trials of one arm. Beside `service.sampling` the only file that imports Optuna.

An arm is a study to Optuna, an epoch a step. Optuna's own pruner decides; this file keeps what it looks at. It is
told of epochs one by one, in the order in which they came in, as if each trial had called `report` and
`should_prune` after each of its epochs.
"""

from __future__ import annotations

import copy
import math
import statistics
import warnings
from bisect import insort
from collections import defaultdict
from collections.abc import Container, Iterator
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, SuccessiveHalvingPruner
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from studies.pruners import Hyperband, Median, Pruner, SuccessiveHalving
from studies.tasks import Direction

optuna.logging.set_verbosity(optuna.logging.WARNING)


class Arm:
    """The trials of an arm as a pruner compares them.

    name: what Hyperband assigns trials to its brackets by, together with their numbers. epochs: of a whole training.
    metric, schedule: for the words of a reason.
    """

    def __init__(
        self, pruner: Pruner, direction: Direction, *, name: str, epochs: int, metric: str, schedule: str
    ) -> None:
        self._rule = pruner
        self._metric = metric
        self._schedule = schedule
        self._maximize = direction == "maximize"
        self._pruner = _optuna_pruner(pruner, epochs)
        self._trials = _Trials()
        self._study = optuna.create_study(study_name=name, storage=self._trials, direction=direction)
        self._rungs = _rungs(pruner, epochs) if isinstance(pruner, Hyperband) else None
        self._knows_rungs = not isinstance(pruner, SuccessiveHalving) or pruner.min_resource != "auto"
        self._before_rungs: set[int] = set()  # the trials that had begun when `auto` was worked out
        self._best: dict[int, float] = {}  # of each open trial, so far
        self._completed: defaultdict[int, list[float]] = defaultdict(list)  # by epoch, ascending; for the median

    def restart(self, number: int) -> None:
        """The trial starts anew: what it had reported counts no more."""
        self._trials.drop(number)
        self._best.pop(number, None)

    def report(self, number: int, epoch: int, value: float | None, *, asked: bool = True) -> str | None:
        """Take in the next epoch of a trial. Why the trial should end, or None if it should go on.

        value: None where it was not finite; Optuna is told of NaN. asked: whether anybody wants to know.
        """
        trial = self._trials.get(number)
        trial.intermediate_values[epoch] = math.nan if value is None else value
        if isinstance(self._rule, Median):
            to_ask = asked and not self._surely_kept(number, epoch, value)
        else:  # a trial is taken down at the epochs where trials are compared, so the pruner must be asked of all there
            to_ask = self._rungs is None or epoch in self._rungs
        if not to_ask:
            return None
        # What is taken down of a trial is its value at such an epoch, whoever it is compared with. Only `auto` needs
        # the others to know which epochs these are, and to say how far the trials come that had begun before.
        alone = self._knows_rungs and not asked and number not in self._before_rungs
        with self._trials.without_others(alone):
            prune = self._pruner.prune(self._study, trial)
        if not self._knows_rungs and self._trials.completed:
            self._knows_rungs = True
            self._before_rungs = self._trials.open
        return self._reason(trial, epoch) if prune and asked else None

    def end(self, number: int, *, completed: bool) -> None:
        """The trial has ended. What it had reported goes on to count, as far as the pruner has it so."""
        trial = self._trials.end(number, OptunaState.COMPLETE if completed else OptunaState.FAIL)
        self._best.pop(number, None)
        if completed:
            for epoch, value in trial.intermediate_values.items():
                if not math.isnan(value):
                    insort(self._completed[epoch], value)

    def _surely_kept(self, number: int, epoch: int, value: float | None) -> bool:
        """Whether the median need not be worked out: it lies between the two values in the middle.

        Optuna takes tenths of a millisecond for it, and a trial is judged at every epoch.
        """
        if value is not None:
            best = self._best.get(number, value)
            self._best[number] = max(best, value) if self._maximize else min(best, value)
        others = self._completed.get(epoch)
        if number not in self._best or not others:
            return False
        if self._maximize:
            return self._best[number] >= others[len(others) // 2]
        return self._best[number] <= others[(len(others) - 1) // 2]

    def _reason(self, trial: FrozenTrial, epoch: int) -> str:
        name = self._rule.type.replace("_", " ")
        value = trial.intermediate_values[epoch]
        if isinstance(self._rule, Median):
            return f"{name} pruner at epoch {epoch}: {self._metric} {self._against_median(trial, epoch)}"
        if math.isnan(value):
            return f"{name} pruner at epoch {epoch}: {self._metric} was not a finite number"
        if self._rule.bootstrap_count:
            return f"{name} pruner at epoch {epoch} ({self._metric} {value:.4g})"
        best = f"the best 1/{self._rule.reduction_factor} of the trials of {self._schedule}"
        return f"{name} pruner at epoch {epoch}: {self._metric} {value:.4g} is not in {best} that it is compared with"

    def _against_median(self, trial: FrozenTrial, epoch: int) -> str:
        own = [value for value in trial.intermediate_values.values() if not math.isnan(value)]
        if not own:
            return "was not a finite number at any epoch"
        others = self._completed[epoch]
        best, side = (max(own), "below") if self._maximize else (min(own), "above")
        median = f"{statistics.median(others):.4g} of {len(others)} completed trials of {self._schedule}"
        return f"{best:.4g}, the best so far, is {side} the median {median}"


def _optuna_pruner(pruner: Pruner, epochs: int) -> BasePruner:
    parameters = pruner.model_dump(exclude={"type"})
    match pruner:
        case Median():
            return _Median(**parameters)
        case SuccessiveHalving():
            return SuccessiveHalvingPruner(**parameters)
        case Hyperband():
            return _Hyperband(max_resource=epochs, **parameters)


def _rungs(pruner: Hyperband, epochs: int) -> frozenset[int]:
    """The epochs at which any of Hyperband's brackets compares: at others there is nothing to ask."""
    rungs = []
    epoch = pruner.min_resource
    while epoch < epochs:
        rungs.append(epoch)
        epoch *= pruner.reduction_factor
    return frozenset(rungs)


class _Median(MedianPruner):
    """Optuna's, without NumPy's warnings of values that are all NaN: Optuna knows what to do with them."""

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether the trial should end."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "All-NaN", RuntimeWarning)
            return super().prune(study, trial)


class _Hyperband(HyperbandPruner):
    """Optuna's, which hashes the numbers of all trials anew at every comparison; this one remembers."""

    def __init__(self, **parameters: Any) -> None:
        super().__init__(**parameters)
        self._brackets: dict[int, int] = {}

    def _get_bracket_id(self, study: optuna.Study, trial: FrozenTrial) -> int:
        number = trial.number
        if number not in self._brackets:
            self._brackets[number] = super()._get_bracket_id(study, trial)
        return self._brackets[number]


class _Trials(optuna.storages.InMemoryStorage):
    """An Optuna storage whose trials have the numbers that they have here, and may start anew.

    Optuna numbers the trials of a study one by one; those of an arm that shares its search with others
    (`explore`) have gaps between their numbers, and Hyperband goes by them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.completed: list[FrozenTrial] = []
        self._all: dict[int, FrozenTrial] = {}
        self._hidden = False

    @property
    def open(self) -> set[int]:
        """The numbers of the trials that have not ended."""
        return {number for number, trial in self._all.items() if trial.state == OptunaState.RUNNING}

    def get(self, number: int) -> FrozenTrial:
        """The trial of this number, which is made if it is not there."""
        if number not in self._all:
            self._all[number] = FrozenTrial(
                number=number,
                trial_id=number,
                state=OptunaState.RUNNING,
                value=None,
                datetime_start=None,
                datetime_complete=None,
                params={},
                distributions={},
                user_attrs={},
                system_attrs={},
                intermediate_values={},
            )
        return self._all[number]

    def drop(self, number: int) -> None:
        """Forget a trial that has not ended."""
        self._all.pop(number, None)

    def end(self, number: int, state: OptunaState) -> FrozenTrial:
        """Give a trial its last state."""
        trial = self.get(number)
        trial.state = state
        if state == OptunaState.COMPLETE:
            self.completed.append(trial)
        return trial

    @contextmanager
    def without_others(self, alone: bool) -> Iterator[None]:
        """While this lasts, and if `alone`, there are no trials to compare with."""
        self._hidden = alone
        try:
            yield
        finally:
            self._hidden = False

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[OptunaState] | None = None
    ) -> list[FrozenTrial]:
        """The trials of the one study that there is."""
        if self._hidden:
            return []
        if states == (OptunaState.COMPLETE,):
            trials = self.completed
        else:
            trials = [trial for trial in self._all.values() if states is None or trial.state in states]
        return copy.deepcopy(trials) if deepcopy else trials

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Note something on a trial. The list of trials that the pruner has in hand keeps the trial as it was."""
        trial = copy.copy(self._all[trial_id])
        trial.system_attrs = {**trial.system_attrs, key: value}
        self._all[trial_id] = trial
