"""Workers that fail at once are barred for a while, and studies that fail alike are paused."""

from __future__ import annotations

from typing import Any

import pytest

from service.claiming import ELSEWHERE_SECONDS
from service.clock import iso
from service.faults import SAME_FAILURES, common_reason
from service.roster import AT_ONCE_SECONDS, FIRST_BAR_SECONDS, SILENCE_SECONDS
from studies.protocol import Assignment
from studies.trial import TrialState
from tests.service.support import LEASE_SECONDS, Service, Worker

CRASHED, FAILED, DONE = ("crashed", "out of memory"), ("failed", "out of memory"), ("completed", "")


@pytest.mark.parametrize(
    ("latest", "reason"),
    [
        ([CRASHED] * 5, "out of memory"),
        ([CRASHED, FAILED, CRASHED, FAILED, FAILED, DONE], "out of memory"),
        ([("crashed", f"{gpu} of 8 GPUs lost") for gpu in range(5)], "0 of 8 GPUs lost"),
        ([CRASHED] * 4, None),
        ([CRASHED] * 4 + [DONE], None),
        ([DONE] + [CRASHED] * 5, None),
        ([CRASHED] * 4 + [("crashed", "killed by SIGSEGV")], None),
        ([("crashed", "")] * 5, ""),
        ([("diverged", "the loss is NaN")] * 5, None),
        ([("pruned", "the pruner")] * 5, None),
        ([], None),
    ],
)
def test_a_reason_is_common_if_the_latest_attempts_all_failed_for_it(
    latest: list[tuple[str, str]], reason: str | None
) -> None:
    assert common_reason(latest) == reason


# --- trials


def test_a_trial_that_has_crashed_goes_to_another_worker_first(service: Service, worker: Worker) -> None:
    submit(service)
    other = Worker(service.client, id="other")
    busy = other.next(service)
    crashed = fail(service, worker, "killed by SIGSEGV")
    second = worker.next(service)
    assert second.trial_id != crashed.trial_id, "one more was filled in for the worker it crashed on"
    worker.finish(second)
    other.finish(busy)
    assert other.next(service).trial_id == crashed.trial_id


def test_after_a_while_a_trial_that_has_crashed_is_for_the_same_worker_again(service: Service, worker: Worker) -> None:
    submit(service)
    other = Worker(service.client, id="other")
    other.next(service)
    crashed = fail(service, worker, "killed by SIGSEGV")
    service.clock.advance(ELSEWHERE_SECONDS - 1)
    second = worker.next(service)
    assert second.trial_id != crashed.trial_id
    worker.finish(second)
    service.clock.advance(1)
    assert worker.next(service).trial_id == crashed.trial_id


def test_a_trial_that_has_crashed_is_for_the_same_worker_at_once_if_no_other_is_alive(
    service: Service, worker: Worker
) -> None:
    submit(service)
    other = Worker(service.client, id="other")
    other.finish(other.next(service))
    service.clock.advance(SILENCE_SECONDS + 1)
    crashed = fail(service, worker, "killed by SIGSEGV")
    assert worker.next(service).trial_id == crashed.trial_id


# --- workers


def submit(service: Service, **changes: Any) -> str:
    return service.submit(**{"search": {"trials_per_schedule": 20, "sampler": "random"}, **changes})


def fail(service: Service, worker: Worker, reason: str, *, after_seconds: float = 0.0) -> Assignment:
    trial = worker.next(service)
    service.clock.advance(after_seconds)
    worker.report(trial)
    assert worker.release(trial, "crashed", reason=reason).status == 200
    return trial


def is_barred(service: Service, worker: Worker) -> bool:
    """Whether the worker is given nothing, though there is something for it."""
    another = Worker(service.client, id="another")
    for trial in another.claim():
        another.release(trial)
    service.director.step()  # there is a trial for the other's slot
    trials = worker.claim()
    for trial in trials:
        worker.release(trial)
    return not trials


def test_a_worker_whose_attempts_fail_at_once_is_barred_for_longer_each_time_until_one_succeeds(
    service: Service, worker: Worker
) -> None:
    submit(service)
    for number in range(2):
        fail(service, worker, f"no GPU {number}")
        assert not is_barred(service, worker)
    begun = service.clock.now
    fail(service, worker, "libcudnn is missing")
    assert is_barred(service, worker)
    (view,) = [view for view in service.client.workers() if view.id == worker.id]
    assert view.barred_until == iso(begun + FIRST_BAR_SECONDS * 1_000_000)
    assert view.barred_because == "its last 3 attempts failed at once, the latest: libcudnn is missing"
    assert len(Worker(service.client, id="well").claim()) == 1, "others are given its trials"

    service.clock.advance(FIRST_BAR_SECONDS)
    (view,) = [view for view in service.client.workers() if view.id == worker.id]
    assert (view.barred_until, view.barred_because) == (None, "")
    assert not is_barred(service, worker)
    fail(service, worker, "libnccl is missing")
    service.clock.advance(2 * FIRST_BAR_SECONDS - 1)
    assert is_barred(service, worker)
    service.clock.advance(1)
    assert not is_barred(service, worker)

    worker.finish(worker.next(service))
    for number in range(2):
        fail(service, worker, f"another matter: {'abc'[number]}")
        assert not is_barred(service, worker)


def test_trials_are_not_filled_in_for_a_worker_that_is_barred(service: Service, worker: Worker) -> None:
    name = submit(service)
    for reason in "abc":
        trial = fail(service, worker, reason)
    assert trial.attempt == 3
    assert service.client.trial(trial.trial_id).state == "failed"
    worker.claim()
    service.director.step()
    assert [trial.state for trial in service.client.trials(name)].count(TrialState.READY) == 0


def test_attempts_that_took_a_while_or_were_preempted_or_lost_or_diverged_bar_nobody(
    service: Service, worker: Worker
) -> None:
    submit(service)
    for reason in "abcd":
        fail(service, worker, reason, after_seconds=AT_ONCE_SECONDS - 20)  # these count ...
        fail(service, worker, reason * 2, after_seconds=AT_ONCE_SECONDS + 1)
        worker.release(worker.next(service), "preempted")
        worker.finish(worker.next(service), outcome="diverged", epochs=[])  # ... until the training itself is seen
        worker.next(service)
        service.clock.advance(LEASE_SECONDS + 1)
        service.director.step()
    assert not is_barred(service, worker)


def test_results_that_are_failures_bar_a_worker_too(service: Service, worker: Worker) -> None:
    submit(service)
    for reason in "abc":
        worker.finish(worker.next(service), outcome="failed", epochs=[], reason=reason)
    assert is_barred(service, worker)


# --- studies


def crowd_fails(service: Service, reasons: list[str]) -> None:
    """A worker of its own for each failure, so that none of them is barred."""
    for number, reason in enumerate(reasons):
        worker = Worker(service.client, id=f"of-many-{service.clock.now}-{number}")
        fail(service, worker, reason)
        service.clock.advance(1)


def test_a_study_whose_attempts_all_fail_alike_is_paused_with_the_reason_and_may_be_resumed(service: Service) -> None:
    name = submit(service, name="broken")
    crowd_fails(service, [f"KeyError: 'image_{n}'" for n in range(SAME_FAILURES - 1)])
    assert service.study_state(name) == "running"
    crowd_fails(service, ["KeyError: 'image_9'"])
    view = service.client.study(name)
    assert view.state == "paused"
    assert view.warnings[0] == (
        "the service paused this study: its last 5 attempts all failed alike: KeyError: 'image_9'"
    )
    worker = Worker(service.client, id="well")
    worker.claim()
    service.director.step()
    assert worker.claim() == []

    assert not any("paused" in warning for warning in service.client.resume(name).warnings)
    worker.finish(worker.next(service))
    crowd_fails(service, ["KeyError: 'image_9'"] * (SAME_FAILURES - 1))
    assert service.study_state(name) == "running", "one has succeeded since"


def test_a_study_whose_attempts_fail_without_a_reason_is_paused_too(service: Service) -> None:
    name = submit(service)
    crowd_fails(service, [""] * SAME_FAILURES)
    assert service.client.study(name).warnings[0].endswith("all failed alike: without a reason")


def test_failures_of_several_kinds_pause_no_study(service: Service) -> None:
    name = submit(service)
    crowd_fails(service, ["out of memory", "killed by SIGSEGV"] * SAME_FAILURES)
    assert service.study_state(name) == "running"


def test_a_broken_study_leaves_the_others_alone(service: Service) -> None:
    broken = submit(service, name="broken", priority=1)
    sound = submit(service, name="sound")
    for number in range(SAME_FAILURES):
        worker = Worker(service.client, id=f"worker-{number}")
        worker.finish(worker.next(service), outcome="failed", epochs=[], reason="no such metric")
    assert (service.study_state(broken), service.study_state(sound)) == ("paused", "running")
    assert Worker(service.client, id="next").next(service).study == sound
