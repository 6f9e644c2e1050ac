"""What the service is told, and when: pure decisions, with time as an argument."""

from __future__ import annotations

import pytest

from studies.protocol import (
    Answer,
    Assignment,
    Command,
    EpochRecord,
    ReleaseRequest,
    ReportRequest,
    ResultRequest,
    TrialRelease,
    TrialResult,
)
from tests.workers.service_double import assignment
from workers.outbox import EPOCHS_PER_TRIAL, Message, Outbox, parts_of


def epoch(number: int) -> EpochRecord:
    return EpochRecord(epoch=number, metrics={}, lr_first=0.1, lr_last=0.1, seconds=1.0)


def result(trial: Assignment) -> TrialResult:
    return TrialResult(trial_id=trial.trial_id, token=trial.token, outcome="completed", train_seconds=1.0)


def release(trial: Assignment) -> TrialRelease:
    return TrialRelease(trial_id=trial.trial_id, token=trial.token, cause="crashed")


def holding(*trials: Assignment, interval: float = 1.0) -> Outbox:
    outbox = Outbox("worker", interval)
    for trial in trials:
        outbox.hold(trial, now=0.0)
    return outbox


def taken(message: Message, command: Command = "continue") -> list[Answer]:
    return [Answer(trial_id=part.trial_id, status=200, command=command) for part in parts_of(message)]


def told(message: Message | None) -> dict[str, list[int]]:
    assert isinstance(message, (ReportRequest, ResultRequest))
    return {part.token: [record.epoch for record in part.epochs] for part in message.trials}


def test_there_is_nothing_to_say_at_first() -> None:
    outbox = holding(assignment("a", lease_seconds=60.0))
    assert outbox.next(now=19.9) is None
    assert outbox.next_at() == 20.0
    assert Outbox("worker", 1.0).next_at() == float("inf")


def test_epochs_of_all_trials_go_together_at_most_once_per_interval() -> None:
    a, b = assignment("a"), assignment("b")
    outbox = holding(a, b)
    outbox.add(a.token, epoch(0))
    first = outbox.next(now=5.0)
    assert told(first) == {a.token: [0]}
    assert first is not None
    outbox.acknowledge(first, taken(first), now=5.1)
    outbox.add(a.token, epoch(1))
    outbox.add(b.token, epoch(0))
    assert outbox.next(now=5.9) is None
    assert outbox.next_at() == 6.0
    assert told(outbox.next(now=6.0)) == {a.token: [1], b.token: [0]}


def test_what_is_not_acknowledged_is_said_again_with_what_came_since() -> None:
    trial = assignment("a")
    outbox = holding(trial)
    outbox.add(trial.token, epoch(0))
    assert told(outbox.next(now=1.0)) == {trial.token: [0]}
    outbox.add(trial.token, epoch(1))
    assert told(outbox.next(now=3.0)) == {trial.token: [0, 1]}


def test_epochs_that_come_while_a_report_is_under_way_are_kept() -> None:
    trial = assignment("a")
    outbox = holding(trial)
    outbox.add(trial.token, epoch(0))
    under_way = outbox.next(now=1.0)
    assert under_way is not None
    outbox.add(trial.token, epoch(1))
    outbox.acknowledge(under_way, taken(under_way), now=1.1)
    assert told(outbox.next(now=2.0)) == {trial.token: [1]}


def test_a_result_goes_at_once_and_takes_its_epochs_with_it() -> None:
    ending, going_on = assignment("a"), assignment("b")
    outbox = holding(ending, going_on)
    for trial in (ending, going_on):
        outbox.add(trial.token, epoch(0))
    first = outbox.next(now=1.0)
    assert first is not None
    outbox.acknowledge(first, taken(first), now=1.0)
    for trial in (ending, going_on):
        outbox.add(trial.token, epoch(1))
    outbox.end(result(ending))
    message = outbox.next(now=1.01)
    assert isinstance(message, ResultRequest)
    assert told(message) == {ending.token: [1]}
    assert outbox.unsaid == 1
    outbox.acknowledge(message, taken(message), now=1.02)
    assert outbox.unsaid == 0
    assert outbox.next(now=1.03) is None
    assert told(outbox.next(now=2.0)) == {going_on.token: [1]}


def test_a_release_waits_for_its_epochs_but_not_for_the_interval() -> None:
    trial = assignment("a")
    outbox = holding(trial)
    outbox.add(trial.token, epoch(0))
    first = outbox.next(now=1.0)
    assert first is not None
    outbox.acknowledge(first, taken(first), now=1.0)
    outbox.add(trial.token, epoch(1))
    outbox.end(release(trial))
    report = outbox.next(now=1.1)
    assert told(report) == {trial.token: [1]}
    assert report is not None
    outbox.acknowledge(report, taken(report), now=1.1)
    assert isinstance(outbox.next(now=1.1), ReleaseRequest)
    assert not outbox.is_clear


def test_a_lease_is_renewed_after_a_third_of_its_time() -> None:
    quiet, other = assignment("a", lease_seconds=30.0), assignment("b", lease_seconds=60.0)
    outbox = holding(quiet, other)
    assert outbox.next(now=9.9) is None
    heartbeat = outbox.next(now=10.0)
    assert told(heartbeat) == {quiet.token: []}
    assert heartbeat is not None
    outbox.acknowledge(heartbeat, taken(heartbeat), now=10.0)
    assert outbox.next_at() == 20.0


def test_a_stale_lease_is_not_mentioned_again() -> None:
    stale, good = assignment("a"), assignment("b")
    outbox = holding(stale, good)
    for trial in (stale, good):
        outbox.add(trial.token, epoch(0))
    report = outbox.next(now=1.0)
    assert report is not None
    answers = taken(report)
    answers[0] = Answer(trial_id=stale.trial_id, status=409, command="abandon")
    outbox.acknowledge(report, answers, now=1.0)
    outbox.add(stale.token, epoch(1))
    outbox.end(result(stale))
    assert outbox.unsaid == 0
    assert outbox.next(now=2.0) is None
    assert outbox.is_clear


def test_a_refused_result_is_not_repeated() -> None:
    trial = assignment("a")
    outbox = holding(trial)
    outbox.end(result(trial))
    message = outbox.next(now=0.0)
    assert message is not None
    outbox.acknowledge(message, [Answer(trial_id=trial.trial_id, status=409, command="abandon")], now=0.0)
    assert outbox.is_clear


def test_a_dropped_lease_is_not_mentioned() -> None:
    trial = assignment("a")
    outbox = holding(trial)
    outbox.add(trial.token, epoch(0))
    outbox.drop(trial.token)
    outbox.drop(trial.token)
    assert outbox.next(now=100.0) is None


@pytest.mark.parametrize("ends", [False, True])
def test_a_long_backlog_goes_in_several_messages(ends: bool) -> None:
    trial = assignment("a")
    outbox = holding(trial, interval=0.0)
    for number in range(EPOCHS_PER_TRIAL + 5):
        outbox.add(trial.token, epoch(number))
    if ends:
        outbox.end(result(trial))
    first = outbox.next(now=1.0)
    assert isinstance(first, ReportRequest)
    assert len(first.trials[0].epochs) == EPOCHS_PER_TRIAL
    outbox.acknowledge(first, taken(first), now=1.0)
    rest = outbox.next(now=1.0)
    assert isinstance(rest, ResultRequest if ends else ReportRequest)
    assert told(rest) == {trial.token: list(range(EPOCHS_PER_TRIAL, EPOCHS_PER_TRIAL + 5))}
