"""Results in two rounds of statements: the same rows as by the long way, and what is left to that."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import select, update

from service.database import reading, writing
from service.known import Known, Leased
from service.quick_results import QuickResults
from service.results import accept_results
from service.tables import attempts, epochs, studies, trials, workers
from studies.protocol import Answer, Assignment, KeptModel, ResultRequest, TrialResult
from tests.databases import Databases
from tests.service.support import LEASE_SECONDS, Service, Worker, result, run_service


@pytest.fixture
def service(databases: Databases) -> Iterator[Service]:
    with databases.new("postgresql") as url, run_service(url) as running:
        yield running


class Front:
    """What a web process keeps: it has met the leases that it has given."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.known = Known()

    def meet(self, *leased: Assignment) -> None:
        """Hear of trials, as by their reports."""
        with reading(self.service.engine) as connection:
            for trial in leased:
                study = connection.execute(select(studies.c.id).where(studies.c.name == trial.study)).scalar_one()
                board = self.known.board(connection, study, trial.task)
                self.known.note(trial.token, Leased(trial.trial_id, trial.attempt, trial.phase, board))

    def accept(self, *results: TrialResult) -> list[list[Answer] | None]:
        async def accepting() -> list[list[Answer] | None]:
            quick = QuickResults(self.service.engine, self.known, self.service.clock)
            answers = await quick.accept([ResultRequest(worker_id="worker-1", trials=[item]) for item in results])
            await quick.close()
            return answers

        return asyncio.run(accepting())

    def accept_the_long_way(self, item: TrialResult) -> list[Answer]:
        with writing(self.service.engine) as connection:
            request = ResultRequest(worker_id="worker-1", trials=[item])
            return accept_results(connection, self.known, [request], self.service.clock())[0]


@pytest.fixture
def front(service: Service) -> Front:
    return Front(service)


def two_trials(service: Service, phase: str = "search") -> list[Assignment]:
    """Two trials of one arm that run."""
    worker = Worker(service.client, slots=2)
    service.submit(schedules=["cosine"])
    while True:
        if leased := worker.claim():
            if leased[0].phase == phase:
                return leased
            for trial in leased:
                worker.finish(trial)
        service.director.step()


ITS_OWN = {"id", "number", "seed", "parameters", "configuration", "token", "revision", "sampled_at_revision"}


def row_of(service: Service, trial: Assignment) -> tuple[dict[str, Any], ...]:
    """All that is stored of a trial but what is its own: its row, its attempt, its epochs."""
    with reading(service.engine) as connection:
        row = connection.execute(select(trials).where(trials.c.id == trial.trial_id)).one()
        attempt = connection.execute(select(attempts).where(attempts.c.trial_id == trial.trial_id)).one()
        told = connection.execute(select(epochs).where(epochs.c.trial_id == trial.trial_id).order_by(epochs.c.epoch))
        return tuple(
            {
                name: value
                for name, value in one._mapping.items()
                if name not in ITS_OWN | {"trial_id", "lr_first", "lr_last"}
            }
            for one in (row, attempt, *told)
        )


MODEL = KeptModel(address="file:///models/cosine.keras", bytes=1000, sha256="0" * 64)
CASES: dict[str, dict[str, Any]] = {
    "completed": {},
    "all epochs sent before": {"epochs": []},
    "diverged": {"outcome": "diverged", "epochs": [], "reason": "the loss became NaN"},
    "pruned": {"outcome": "pruned", "epochs": []},
    "with steps": {"steps_per_epoch": 44},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("phase", ["search", "confirm"])
def test_both_ways_store_the_same(service: Service, front: Front, phase: str, case: str) -> None:
    one, other = two_trials(service, phase)
    worker = Worker(service.client)
    changes = dict(CASES[case])
    outcome = changes.pop("outcome", "completed")
    if phase == "confirm" and outcome == "completed":
        changes["model"] = MODEL
    for trial in (one, other):
        worker.report(trial, range(1, 2) if outcome != "completed" else range(2), 0.5)
        if outcome != "completed" or case == "all epochs sent before":
            worker.report(trial, range(trial.epochs), 0.5)
    with writing(service.engine) as connection:
        connection.execute(update(trials).values(stop_requested=True, stop_reason="below the median"))
        connection.execute(update(workers).values(failures=2))
    front.meet(one, other)
    (quick,) = front.accept(result(one, 0.5, outcome, **changes))
    long = front.accept_the_long_way(result(other, 0.5, outcome, **changes))
    assert quick == [Answer(trial_id=one.trial_id, status=200, command="abandon")]
    assert long == [Answer(trial_id=other.trial_id, status=200, command="abandon")]
    assert row_of(service, one) == row_of(service, other)
    assert row_of(service, one)[0]["state"] == outcome
    with reading(service.engine) as connection:
        first, second = (
            connection.execute(select(trials.c.revision).where(trials.c.id == trial.trial_id)).scalar_one()
            for trial in (one, other)
        )
        assert second == first + 1 == connection.execute(select(studies.c.revision)).scalar_one()
        worker_row = connection.execute(select(workers)).one()
        assert (worker_row.free_slots, worker_row.failures) == (2, 0)


def test_several_results_are_one_transaction(service: Service, front: Front) -> None:
    one, other = two_trials(service)
    front.meet(one, other)
    quick = front.accept(result(one, 0.5), result(other, 0.75))
    assert quick == [[Answer(trial_id=trial.trial_id, status=200, command="abandon")] for trial in (one, other)]
    assert [service.client.trial(trial.trial_id).value for trial in (one, other)] == [0.5, 0.75]


def test_what_is_refused_or_odd_goes_the_long_way_and_leaves_nothing(service: Service, front: Front) -> None:
    one, other = two_trials(service)
    before = row_of(service, one), row_of(service, other)
    assert front.accept(result(one, 0.5)) == [None], "epochs of a lease that was not met"
    front.meet(one, other)
    stale = result(other, 0.5).model_copy(update={"token": "stale", "epochs": []})
    missing = result(one, 0.5, epochs=[])
    failed = result(one, 0.5, "failed", reason="no such file")
    for odd in (
        [stale],
        [missing],
        [failed],
        [result(one, 0.5), stale],
        [result(one, 0.5), missing.model_copy(update={"trial_id": other.trial_id, "token": other.token})],
    ):
        assert front.accept(*odd) == [None] * len(odd)
        assert (row_of(service, one), row_of(service, other)) == before
    service.clock.advance(LEASE_SECONDS + 1)
    service.director.step()
    assert front.accept(result(one, 0.5)) == [None], "its lease has expired"
    assert Worker(service.client).finish(one).status == 200


def test_a_result_that_comes_again_changes_nothing(service: Service, front: Front) -> None:
    one, _ = two_trials(service)
    front.meet(one)
    assert front.accept(result(one, 0.5)) != [None]
    done = row_of(service, one)
    assert front.accept(result(one, 0.75)) == [None]
    assert front.accept_the_long_way(result(one, 0.75))[0].status == 200
    assert row_of(service, one) == done


def test_failed_ones_do_not_hold_up_the_others(service: Service, front: Front) -> None:
    one, other = two_trials(service)
    front.meet(one, other)
    quick, long = front.accept(result(one, 0.5), result(other, 0.5, "failed", reason="no such file"))
    assert quick is not None
    assert long is None
    assert [service.client.trial(trial.trial_id).state for trial in (one, other)] == ["completed", "running"]


def test_sqlite_takes_the_long_way(databases: Databases) -> None:
    with databases.new("sqlite") as url, run_service(url) as service:
        one, other = two_trials(service)
        front = Front(service)
        front.meet(one, other)
        assert front.accept(result(one, 0.5)) == [None]
