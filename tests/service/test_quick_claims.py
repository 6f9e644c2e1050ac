"""Claims in two statements sent together: what they lease and note, and what is left to the long way."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from threading import Thread
from typing import Any

import pytest
from sqlalchemy import select, update

from service.claiming import Claimed
from service.clock import SECOND
from service.database import reading, writing
from service.known import Known
from service.quick_claims import QuickClaims
from service.tables import attempts, trials, workers
from studies.protocol import ClaimRequest
from studies.tasks import BUILT_IN_TASKS
from tests.databases import Databases
from tests.service.support import LEASE_SECONDS, Service, Worker, run_service

LEASE = int(LEASE_SECONDS * SECOND)


@pytest.fixture
def service(databases: Databases) -> Iterator[Service]:
    with databases.new("postgresql") as url, run_service(url) as running:
        yield running


@pytest.fixture
def ready(service: Service, worker: Worker) -> Worker:
    """A worker that is known, when four trials of its task are ready."""
    service.submit()
    worker.slots = 4
    assert worker.claim() == []
    service.director.step()
    return worker


def accept(service: Service, *requests: ClaimRequest) -> list[Claimed | None]:
    async def accepting() -> list[Claimed | None]:
        quick = QuickClaims(service.engine, Known(), service.clock, LEASE)
        claimed = await quick.accept(requests)
        await quick.close()
        return claimed

    return asyncio.run(accepting())


def row(service: Service, worker: Worker) -> Any:
    with reading(service.engine) as connection:
        return connection.execute(select(workers).where(workers.c.id == worker.id)).one()


def test_trials_are_leased_as_by_the_long_way(service: Service, ready: Worker) -> None:
    service.clock.advance(2)
    request = ready.request(slots=3)
    (claimed,) = accept(service, request)
    assert claimed is not None
    given = claimed.trials or []
    assert [trial.attempt for trial in given] == [1, 1, 1]
    assert {trial.lease_seconds for trial in given} == {LEASE_SECONDS}
    again = ready.claim(slots=3, request_id=request.request_id)  # the long way finds what was leased
    assert again == given
    with reading(service.engine) as connection:
        noted = connection.execute(select(attempts).order_by(attempts.c.trial_id)).all()
        states = connection.execute(select(trials.c.state, trials.c.started_at).where(trials.c.token.is_not(None)))
        assert {tuple(state) for state in states} == {("running", service.clock())}
    columns = [(one.trial_id, one.token, one.request_id, one.worker_id, one.fingerprint) for one in noted]
    assert columns == [(trial.trial_id, trial.token, request.request_id, ready.id, "f1") for trial in given]


def test_the_slots_that_got_nothing_are_noted_as_free(service: Service, ready: Worker) -> None:
    service.clock.advance(2)
    for slots, got, free in ((3, 3, 0), (4, 1, 3)):
        (claimed,) = accept(service, ready.request(slots=slots))
        assert claimed is not None
        assert len(claimed.trials or []) == got
        assert (row(service, ready).free_slots, row(service, ready).last_seen_at) == (free, service.clock())
    assert accept(service, ready.request(slots=2)) == [Claimed(None)], "which is worth asking again"
    assert row(service, ready).free_slots == 2


def test_several_workers_get_trials_of_their_own(service: Service, ready: Worker) -> None:
    other = Worker(service.client, id="another", slots=4)
    other.claim(slots=1)
    taken = [claimed for claimed in accept(service, ready.request(slots=2), other.request(slots=2)) if claimed]
    ids = [trial.trial_id for claimed in taken for trial in claimed.trials or []]
    assert len(set(ids)) == len(ids) == 3


def test_what_most_claims_are_not_goes_the_long_way(service: Service, ready: Worker) -> None:
    request = ready.request(slots=1)
    assert accept(service, request) != [None]
    stranger = Worker(service.client, id="stranger")
    moved = replace(ready, labels={"gpu": "h200"})
    assert accept(service, request, stranger.request(), moved.request(slots=1)) == [None, None, None]
    with writing(service.engine) as connection:
        connection.execute(update(workers).values(barred_until=service.clock() + SECOND, barred_because="it fails"))
    assert accept(service, ready.request(slots=1)) == [None]
    service.clock.advance(1)
    assert accept(service, ready.request(slots=1)) != [None]
    with reading(service.engine) as connection:
        assert len(connection.execute(select(attempts)).all()) == 2


def test_trials_of_other_tasks_fingerprints_and_labels_are_not_given(service: Service) -> None:
    service.submit(name="labelled", requires={"labels": {"gpu": "h200"}})
    service.submit(name="plain")
    task = BUILT_IN_TASKS["digits-mlp"]
    able = Worker(service.client, id="able", slots=8, labels={"gpu": "h200"})
    unlabelled = Worker(service.client, id="unlabelled", slots=8)
    other_data = Worker(
        service.client,
        id="other",
        slots=8,
        labels={"gpu": "h200"},
        tasks=[task.model_copy(update={"fingerprint": "f2"})],
    )
    for one in (able, unlabelled, other_data):
        assert one.claim() == []
    service.director.step()
    assert accept(service, other_data.request()) == [Claimed(None)]
    (claimed,) = accept(service, unlabelled.request())
    assert claimed is not None
    assert {trial.study for trial in claimed.trials or []} == {"plain"}
    (claimed,) = accept(service, able.request())
    assert claimed is not None
    assert {trial.study for trial in claimed.trials or []} == {"labelled"}


def test_the_same_claim_twice_at_once_is_given_its_trials_once(service: Service, ready: Worker) -> None:
    request = ready.request(slots=1)
    got: list[Claimed | None] = []
    with writing(service.engine) as connection:  # both wait for the worker's row
        connection.execute(select(workers.c.id).with_for_update()).all()
        claims = [Thread(target=lambda: got.extend(accept(service, request))) for _ in range(2)]
        for claim in claims:
            claim.start()
        for claim in claims:
            claim.join(0.3)
        assert got == []
    for claim in claims:
        claim.join()
    (first,) = [claimed for claimed in got if claimed]
    assert len(first.trials or []) == 1
    assert got.count(None) == 1


def test_sqlite_takes_the_long_way(databases: Databases) -> None:
    with databases.new("sqlite") as url, run_service(url) as service:
        assert accept(service, Worker(service.client).request()) == [None]
