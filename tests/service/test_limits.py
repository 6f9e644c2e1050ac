"""Deadlines, budgets and draining: how a study comes to its end before all of its trials have run."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta, timezone

import pytest

from service.clock import iso
from studies.errors import Refused
from studies.protocol import Assignment
from tests.service.support import Service, Worker, run_to_end

SEARCH = {"trials_per_schedule": 5, "sampler": "random"}


def in_seconds(service: Service, seconds: float) -> str:
    """An instant of the service's clock, written with an offset from UTC."""
    instant = datetime.fromtimestamp(service.clock.now / 1e6, UTC) + timedelta(seconds=seconds)
    return instant.astimezone(timezone(timedelta(hours=5, minutes=30))).isoformat()


def states(service: Service, study: str, phase: str) -> Counter[str]:
    return Counter(str(trial.state) for trial in service.client.trials(study) if trial.phase == phase)


def ended_early(service: Service, study: str) -> list[str]:
    return [warning for warning in service.client.study(study).warnings if "the search was ended early" in warning]


def two_running(service: Service, worker: Worker) -> tuple[Assignment, Assignment]:
    """Two of the study's trials, one of each schedule in `equal`."""
    worker.slots = 2
    worker.claim()
    service.director.step()
    one, two = worker.claim()
    return one, two


@pytest.mark.parametrize("allocation", ["equal", "explore"])
def test_after_its_deadline_a_study_confirms_what_it_has_found(
    service: Service, worker: Worker, allocation: str
) -> None:
    deadline = service.clock.now + 100_000_000
    name = service.submit(search={**SEARCH, "allocation": allocation}, limits={"deadline": in_seconds(service, 100)})
    done, running = two_running(service, worker)
    worker.finish(done)
    service.clock.advance(99)
    worker.report(running)
    service.director.step()
    assert ended_early(service, name) == []
    service.clock.advance(1)
    service.director.step()
    assert ended_early(service, name) == [f"the search was ended early: its deadline, {iso(deadline)}, has passed"]
    assert states(service, name, "search") == {"completed": 1, "running": 1, "cancelled": 8}
    assert worker.report(running, [0]).command == "continue", "what runs goes on to its end"
    assert worker.finish(running).status == 200
    confirmed = {trial.schedule for trial in run_to_end(service, name, worker) if trial.phase == "confirm"}
    assert confirmed == {done.schedule, running.schedule}
    assert service.study_state(name) == "finished"


def test_a_budget_counts_what_has_ended_and_what_runs(service: Service, worker: Worker) -> None:
    name = service.submit(search=SEARCH, limits={"train_seconds": 2.0})
    done, running = two_running(service, worker)
    worker.finish(done)  # 1.5 s
    worker.report(running, [0])  # 0.25 s
    service.director.step()
    assert ended_early(service, name) == []
    worker.report(running, [1])
    service.director.step()
    assert ended_early(service, name) == [
        "the search was ended early: its trials have trained for 2 s, and its budget is 2 s"
    ]
    worker.finish(running)
    run_to_end(service, name, worker)
    assert states(service, name, "confirm") == {"completed": 4}


def test_a_limit_that_is_reached_when_the_search_has_ended_ended_nothing(service: Service, worker: Worker) -> None:
    name = service.submit(limits={"train_seconds": 6.5, "deadline": in_seconds(service, 100)})
    for _ in range(4):  # all search trials, 6 s
        worker.finish(worker.next(service))
    service.director.step()
    worker.finish(worker.next(service))
    service.clock.advance(200)
    run_to_end(service, name, worker)
    assert ended_early(service, name) == []
    assert states(service, name, "confirm") == {"completed": 4}


def test_a_study_whose_deadline_passes_before_anything_was_run_ends(service: Service, worker: Worker) -> None:
    limits = {"deadline": in_seconds(service, 10)}
    names = [
        service.submit(name="plain", limits=limits),
        service.submit(name="auto", limits=limits, learning_rate="auto"),
    ]
    service.clock.advance(10)
    for _ in range(3):
        service.director.step()
    assert [service.study_state(name) for name in names] == ["finished"] * 2
    assert worker.claim() == []


def test_a_paused_study_reaches_its_deadline_and_confirms_when_it_is_resumed(service: Service, worker: Worker) -> None:
    name = service.submit(search=SEARCH, limits={"deadline": in_seconds(service, 10)})
    worker.finish(worker.next(service))
    service.client.pause(name)
    service.clock.advance(10)
    service.director.step()
    assert service.study_state(name) == "paused"
    assert len(ended_early(service, name)) == 1
    service.client.resume(name)
    run_to_end(service, name, worker)
    assert states(service, name, "confirm") == {"completed": 2}


# --- draining


def test_a_drained_study_ends_with_its_running_trials_and_starts_none(service: Service, worker: Worker) -> None:
    name = service.submit(search=SEARCH)
    first, second = two_running(service, worker)
    for _ in range(2):
        assert service.client.drain(name).state == "draining"
    assert states(service, name, "search") == {"running": 2, "cancelled": 8}
    service.director.step()
    assert worker.claim() == []
    assert worker.report(first, [0]).command == "continue"
    assert worker.finish(first, 0.75).status == 200
    service.director.step()
    assert service.study_state(name) == "draining"

    worker.release(second)  # it ran before: another worker runs it
    (again,) = Worker(service.client, id="other").claim()
    assert again.trial_id == second.trial_id
    worker.finish(again)
    service.director.step()
    view = service.client.study(name)
    assert (view.state, view.trials_finished, view.trials_planned) == ("finished", 10, 10)
    assert {arm.phase for arm in view.arms} == {"done"}
    assert states(service, name, "confirm") == {}
    assert service.client.leaderboard(study=name).entries[0].search_value == 0.75


def test_a_study_may_be_drained_while_it_is_paused_and_cancelled_while_it_drains(
    service: Service, worker: Worker
) -> None:
    name = service.submit(search=SEARCH)
    trial = worker.next(service)
    service.client.pause(name)
    assert service.client.drain(name).state == "draining"
    assert service.client.cancel(name).state == "cancelled"
    assert worker.report(trial).unwanted


def test_a_study_that_runs_nothing_ends_when_it_is_drained(service: Service, worker: Worker) -> None:
    name = service.submit(search=SEARCH)
    worker.finish(worker.next(service))
    service.director.step()
    service.client.drain(name)
    service.director.step()
    assert service.study_state(name) == "finished"


def test_verbs_that_contradict_the_state_are_refused(service: Service, worker: Worker) -> None:
    name = service.submit()
    worker.next(service)
    service.client.drain(name)
    for verb in (service.client.pause, service.client.resume):
        with pytest.raises(Refused, match="'small' is draining; this needs one that is paused or running"):
            verb(name)
    service.client.cancel(name)
    with pytest.raises(Refused, match="is cancelled; this needs one that is draining or paused or running"):
        service.client.drain(name)
