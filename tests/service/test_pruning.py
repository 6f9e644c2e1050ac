"""Pruning, held against plain Optuna: the same values reported one by one, with `should_prune` after each."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import optuna
import pytest
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, SuccessiveHalvingPruner
from optuna.trial import TrialState as OptunaState
from optuna.trial import create_trial
from sqlalchemy import select

from service import pruning
from service.database import reading, writing
from service.director import Director
from service.leading import LEAD_SECONDS, LeadLost
from service.optuna_pruners import Arm
from service.pruning import Decision, mark
from service.stopping import PRUNE_SECONDS
from service.tables import trials
from studies.definition import read_definition
from studies.protocol import Assignment, EpochRecord, ReportRequest, TrialReport
from studies.pruners import Pruner
from studies.tasks import Direction
from tests.service.support import Service, Worker

EPOCHS = 12

RULES: list[tuple[dict[str, Any], Callable[[], BasePruner]]] = [
    ({"type": "median"}, MedianPruner),
    (
        {"type": "median", "n_startup_trials": 2, "n_warmup_steps": 2, "interval_steps": 3, "n_min_trials": 4},
        lambda: MedianPruner(2, 2, 3, n_min_trials=4),
    ),
    ({"type": "successive_halving"}, SuccessiveHalvingPruner),
    (
        {
            "type": "successive_halving",
            "min_resource": 2,
            "reduction_factor": 2,
            "min_early_stopping_rate": 1,
            "bootstrap_count": 2,
        },
        lambda: SuccessiveHalvingPruner(2, 2, 1, 2),
    ),
    ({"type": "hyperband"}, lambda: HyperbandPruner(1, EPOCHS, 3)),
    (
        {"type": "hyperband", "min_resource": 2, "reduction_factor": 2, "bootstrap_count": 1},
        lambda: HyperbandPruner(2, EPOCHS, 2, 1),
    ),
]


def read_pruner(raw: dict[str, Any]) -> Pruner:
    pruner = read_definition({"name": "s", "tasks": ["t"], "epochs": EPOCHS, "pruner": raw}).pruner
    assert pruner != "none"
    return pruner


def curve(rnd: random.Random, epochs: int, missing: float = 0.0) -> list[float]:
    """A noisy curve between 0 and 1; NaN at some epochs, and at all of some trials."""
    level, speed = rnd.random(), rnd.uniform(1, 8)
    gone = 1.0 if rnd.random() < missing else missing
    values = [level * (1 - math.exp(-(epoch + 1) / speed)) + rnd.gauss(0, 0.05) for epoch in range(epochs)]
    return [math.nan if rnd.random() < gone else value for value in values]


class PlainOptuna:
    """An Optuna study that a person would write: it reports, asks whether to prune, and tells."""

    def __init__(self, name: str, direction: Direction, pruner: BasePruner) -> None:
        self.study = optuna.create_study(study_name=name, direction=direction, pruner=pruner)
        self.running: dict[int, optuna.Trial] = {}

    def begin(self, number: int) -> None:
        while len(self.study.get_trials(deepcopy=False)) < number:  # a number that another arm has
            self.study.add_trial(create_trial(state=OptunaState.FAIL))
        trial = self.study.ask()
        assert trial.number == number
        self.running[number] = trial

    def report(self, number: int, epoch: int, value: float) -> bool:
        self.running[number].report(value, epoch)
        return self.running[number].should_prune()

    def end(self, number: int, state: OptunaState) -> None:
        self.study.tell(self.running.pop(number), 0.5 if state == OptunaState.COMPLETE else None, state=state)


def report(number: int, epoch: int, value: float, arm: Arm, asked: bool) -> str | None:
    return arm.report(number, epoch, None if math.isnan(value) else value, asked=asked)


def restart(number: int, arm: Arm, asked: bool) -> None:
    arm.restart(number)


def end(number: int, completed: bool, arm: Arm, asked: bool) -> None:
    arm.end(number, completed=completed)


@pytest.mark.filterwarnings("ignore:All-NaN")  # from NumPy, in plain Optuna
@pytest.mark.parametrize("direction", ["maximize", "minimize"])
@pytest.mark.parametrize(("raw", "pruner"), RULES, ids=[f"{raw['type']}-{len(raw)}" for raw, _ in RULES])
def test_a_trial_ends_where_plain_optuna_ends_it(
    raw: dict[str, Any], pruner: Callable[[], BasePruner], direction: Direction
) -> None:
    """Six trials at a time in random turns; some fail, and some begin anew, of which Optuna is told nothing.

    Now and then a new arm takes over, told in one go of all that was, and asked about none that has ended.
    """

    def new() -> Arm:
        return Arm(read_pruner(raw), direction, name="s/t/cosine", epochs=EPOCHS, metric="val_f1", schedule="cosine")

    pruned = 0
    for seed in range(5):
        rnd = random.Random(seed)
        ours, theirs = new(), PlainOptuna("s/t/cosine", direction, pruner())
        left = {number: curve(rnd, EPOCHS, missing=0.05) for number in range(40)}
        running: list[int] = []
        past: list[tuple[int, Callable[[Arm, bool], str | None], bool]] = []

        def tell(number: int, what: Callable[[Arm, bool], str | None], asked: bool = True) -> str | None:
            past.append((number, what, asked))  # noqa: B023
            return what(ours, asked)  # noqa: B023

        while left:
            for number in [n for n in left if n not in running][: 6 - len(running)]:
                theirs.begin(number)
                running.append(number)
                if rnd.random() < 0.2:
                    for epoch in range(rnd.randrange(EPOCHS)):
                        tell(number, partial(report, number, epoch, rnd.uniform(-1, 2)), asked=False)
                    tell(number, partial(restart, number))
            number = rnd.choice(running)
            epoch, value = EPOCHS - len(left[number]), left[number].pop(0)
            reason = tell(number, partial(report, number, epoch, value))
            assert (reason is not None) == theirs.report(number, epoch, value), (seed, number, epoch)
            if reason is not None or not left[number] or rnd.random() < 0.01:
                pruned += reason is not None
                completed = reason is None and not left[number]
                tell(number, partial(end, number, completed))
                state = OptunaState.COMPLETE if completed else OptunaState.PRUNED if reason else OptunaState.FAIL
                theirs.end(number, state)
                running.remove(number)
                del left[number]
            if rnd.random() < 0.05:
                ours = new()
                for number, what, asked in past:
                    assert what(ours, asked and number in running) is None
    assert 30 < pruned < 180


@pytest.mark.parametrize(
    ("raw", "pruner", "allocation", "direction"),
    [
        ({"type": "median", "n_startup_trials": 2}, lambda: MedianPruner(2), "equal", "minimize"),
        ({"type": "successive_halving"}, SuccessiveHalvingPruner, "explore", "maximize"),
        (
            {"type": "hyperband", "reduction_factor": 2},
            lambda: HyperbandPruner(1, 6, 2),
            "explore",
            "minimize",
        ),
    ],
    ids=["median", "successive_halving", "hyperband"],
)
def test_each_arm_is_pruned_as_by_an_optuna_of_its_own_whoever_leads(
    service: Service, raw: dict[str, Any], pruner: Callable[[], BasePruner], allocation: str, direction: Direction
) -> None:
    """Two arms, four trials at a time in random turns; now and then another director takes over; then the confirm runs.

    The curves of the arms are far apart: were they compared, one would lose all of its trials.
    """
    rnd = random.Random(7)
    service.submit(
        name="s",
        epochs=6,
        pruner=raw,
        objective={"metric": "val_score", "direction": direction},
        search={"trials_per_schedule": 8, "sampler": "random", "allocation": allocation},
        confirm={"seeds": 1},
    )
    worker = Worker(service.client, slots=4)
    theirs = {s: PlainOptuna(f"s/digits-mlp/{s}", direction, pruner()) for s in ("constant", "cosine")}
    running: dict[int, tuple[Assignment, list[float]]] = {}
    ends = dict.fromkeys(("pruned", "completed", "confirmed"), 0)
    free = True
    while running or service.study_state("s") != "finished":
        for _ in range(2 if free else 0):  # the first claim may only announce the free slots
            service.director.step()
            for trial in worker.claim(4 - len(running)) if len(running) < 4 else []:
                height = 100.0 if trial.schedule == "cosine" else 0.0
                running[trial.trial_id] = (trial, [height + value for value in curve(rnd, 6)])
                if trial.phase == "search":
                    theirs[trial.schedule].begin(trial.number)
        free = not running
        if not running:
            continue
        trial, values = running[rnd.choice(list(running))]
        worst = -1e6 if direction == "maximize" else 1e6
        epoch, value = 6 - len(values), values.pop(0) if trial.phase == "search" else (values.pop(0), worst)[1]
        service.clock.advance(PRUNE_SECONDS)
        say(worker, trial, epoch, value)
        if rnd.random() < 0.2:
            service.director.resign()
            service.director = Director(service.engine, service.clock)
        service.director.step()
        told = worker.report(trial).command
        if trial.phase == "confirm":
            assert told == "continue"
        else:
            pruned = theirs[trial.schedule].report(trial.number, epoch, value)
            assert told == ("stop" if pruned else "continue"), (trial.schedule, trial.number, epoch)
        if told == "stop" or not values:
            completed = told == "continue"
            worker.finish(trial, outcome="completed" if completed else "pruned", epochs=[])
            if trial.phase == "search":
                theirs[trial.schedule].end(trial.number, OptunaState.COMPLETE if completed else OptunaState.PRUNED)
            ends["confirmed" if trial.phase == "confirm" else "completed" if completed else "pruned"] += 1
            del running[trial.trial_id]
            free = True
    assert ends["pruned"] >= 4
    assert ends["pruned"] + ends["completed"] == 16
    assert ends["confirmed"] == 2


def say(worker: Worker, trial: Assignment, epoch: int, value: float) -> None:
    """Report one epoch with this value of the objective."""
    record = EpochRecord(epoch=epoch, metrics={trial.metric: value}, lr_first=0.1, lr_last=0.1, seconds=0.1)
    message = TrialReport(trial_id=trial.trial_id, token=trial.token, epochs=[record])
    worker.client.report(ReportRequest(worker_id=worker.id, trials=[message]))


def completed_ones(service: Service, worker: Worker, values: list[float]) -> None:
    """Completed search trials, each with one value at all of its epochs."""
    for value in values:
        trial = worker.next(service)
        for epoch in range(trial.epochs):
            say(worker, trial, epoch, value)
        worker.finish(trial, epochs=[])
        service.clock.advance(PRUNE_SECONDS)
    service.director.step()


def told(service: Service, worker: Worker, trial: Assignment) -> str:
    """What a trial is told after the director has looked at it."""
    service.clock.advance(PRUNE_SECONDS)
    service.director.step()
    return worker.report(trial).command


MEDIAN = {"schedules": ["cosine"], "pruner": {"type": "median", "n_startup_trials": 3}, "epochs": 3}
FEW = {"trials_per_schedule": 4, "sampler": "random"}


def test_a_pruned_trial_keeps_its_epochs_and_says_why_it_was_ended(service: Service, worker: Worker) -> None:
    study = service.submit(**MEDIAN, search=FEW, confirm={"seeds": 0})
    completed_ones(service, worker, [0.6, 0.7, 0.8])
    trial = worker.next(service)
    say(worker, trial, 0, 0.75)
    say(worker, trial, 1, 0.5)
    assert told(service, worker, trial) == "continue"  # its best so far is above the median
    worker.release(trial)
    trial = worker.next(service)
    say(worker, trial, 0, 0.25)
    assert told(service, worker, trial) == "stop"
    worker.finish(trial, outcome="pruned", epochs=[])
    row = service.client.trial(trial.trial_id)
    why = "median pruner at epoch 0: val_accuracy 0.25, the best so far, is below the median 0.7 of 3 completed trials"
    assert (row.state, row.reason, row.value, row.last_epoch) == ("pruned", f"{why} of cosine", 0.25, 0)
    service.director.step()
    (entry,) = service.client.leaderboard(study=study).entries
    assert service.study_state(study) == "finished"
    assert entry.pruned == 1


def test_a_trial_that_is_run_again_is_judged_by_its_new_epochs_alone(service: Service, worker: Worker) -> None:
    service.submit(**MEDIAN, search=FEW, confirm={"seeds": 0})
    completed_ones(service, worker, [0.6, 0.7, 0.8])
    first = worker.next(service)
    say(worker, first, 0, 0.1)
    assert told(service, worker, first) == "stop"
    worker.release(first, "crashed", reason="it died before it heard of it")
    second = worker.next(service)
    assert (second.trial_id, second.attempt) == (first.trial_id, 2)
    assert told(service, worker, second) == "continue"
    say(worker, second, 0, 0.9)
    assert told(service, worker, second) == "continue"
    worker.release(second)
    third = worker.next(service)
    say(worker, third, 0, 0.1)  # the 0.9 was of another attempt
    assert told(service, worker, third) == "stop"


def test_a_decision_about_an_earlier_attempt_stops_nobody(service: Service, worker: Worker) -> None:
    service.submit(**MEDIAN, search=FEW)
    trial = worker.next(service)
    worker.release(trial)
    with writing(service.engine) as connection:
        mark(connection, [Decision(trial.trial_id, 1, "for one that waits")])
    again = worker.next(service)
    with writing(service.engine) as connection:
        mark(connection, [Decision(trial.trial_id, 1, "for the one before")])
    assert worker.report(again).command == "continue"
    with writing(service.engine) as connection:
        mark(connection, [Decision(trial.trial_id, 2, "for this one"), Decision(10**6, 1, "for nobody")])
        mark(connection, [Decision(trial.trial_id, 2, "once more")])
    assert worker.report(again).command == "stop"
    with reading(service.engine) as connection:
        reason = connection.execute(select(trials.c.stop_reason).where(trials.c.id == trial.trial_id)).scalar_one()
    assert reason == "for this one"


def test_a_decision_that_could_not_be_written_is_made_again(
    service: Service, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.submit(**MEDIAN, search=FEW)
    completed_ones(service, worker, [0.6, 0.7, 0.8])
    trial = worker.next(service)
    say(worker, trial, 0, 0.1)

    def lose(*_: object) -> None:
        raise LeadLost

    with monkeypatch.context() as patch:
        patch.setattr(pruning, "mark", lose)
        assert told(service, worker, trial) == "continue"
    service.clock.advance(LEAD_SECONDS)
    assert told(service, worker, trial) == "stop"


def test_without_a_pruner_the_worst_trial_goes_on(service: Service, worker: Worker) -> None:
    service.submit(schedules=["cosine"], search={"trials_per_schedule": 8, "sampler": "random"})
    completed_ones(service, worker, [0.6, 0.7, 0.8, 0.9, 0.9, 0.9, 0.9])
    trial = worker.next(service)
    say(worker, trial, 0, 0.0)
    assert told(service, worker, trial) == "continue"
