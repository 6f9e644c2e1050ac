"""Reports in one statement: what they store and answer, and what is left to the long way."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.exc import OperationalError

from service.clock import SECOND
from service.database import open_database, reading, writing
from service.known import Board, Known, Leased
from service.queue import RENEWED_BELOW
from service.quick_reports import QuickReports
from service.tables import epochs, trials
from studies.definition import read_definition
from studies.protocol import Answer, Assignment, Device, EpochRecord, ReportRequest, TrialReport
from tests.databases import Databases
from tests.service.support import LEASE_SECONDS, Service, Worker, records, run_service, small_study

LEASE = int(LEASE_SECONDS * SECOND)


@pytest.fixture
def service(databases: Databases) -> Iterator[Service]:
    with databases.new("postgresql") as url, run_service(url) as running:
        yield running


@pytest.fixture
def trial(service: Service, worker: Worker) -> Assignment:
    service.submit()
    return worker.next(service)


def knowing(*met: Assignment) -> Known:
    known = Known()
    for trial in met:
        board = Board(trial.study, read_definition(small_study()), trial.metric, trial.direction)
        known.note(trial.token, Leased(trial.trial_id, trial.attempt, trial.phase, board))
    return known


def report(trial: Assignment, told: list[EpochRecord], **changes: Any) -> ReportRequest:
    item = TrialReport(trial_id=trial.trial_id, token=changes.pop("token", trial.token), epochs=told)
    return ReportRequest(worker_id="worker-1", trials=[item], **changes)


def accept(service: Service, known: Known, *requests: ReportRequest) -> list[list[Answer] | None]:
    async def accepting() -> list[list[Answer] | None]:
        quick = QuickReports(service.engine, known, service.clock, LEASE)
        answers = await quick.accept(requests)
        await quick.close()
        return answers

    return asyncio.run(accepting())


def stored(service: Service) -> list[tuple[Any, ...]]:
    columns = (epochs.c.trial_id, epochs.c.attempt, epochs.c.epoch, epochs.c.value, epochs.c.metrics)
    with reading(service.engine) as connection:
        rows = connection.execute(select(*columns, epochs.c.lr_last, epochs.c.reported_at).order_by(*columns[:3]))
        return [tuple(row) for row in rows]


def test_epochs_are_stored_as_they_were_sent(service: Service, trial: Assignment) -> None:
    told = records(trial, [0], 0.1)
    told += [
        EpochRecord(epoch=1, metrics={"val_accuracy": None, "loss": 1e200}, lr_first=0.1, lr_last=1 / 3, seconds=1)
    ]
    for _ in range(2):
        assert accept(service, knowing(trial), report(trial, told)) == [
            [Answer(trial_id=trial.trial_id, status=200, command="continue")]
        ]
    now, first = service.clock(), told[0]
    assert stored(service) == [
        (trial.trial_id, 1, 0, first.metrics["val_accuracy"], first.metrics, first.lr_last, now),
        (trial.trial_id, 1, 1, None, {"val_accuracy": None, "loss": None}, 1 / 3, now),
    ]


def test_a_stop_that_was_asked_for_is_answered(service: Service, trial: Assignment) -> None:
    with writing(service.engine) as connection:
        connection.execute(update(trials).values(stop_requested=True).where(trials.c.id == trial.trial_id))
    ((answer,),) = accept(service, knowing(trial), report(trial, []))  # type: ignore[misc]
    assert answer.command == "stop"


def test_a_lease_that_is_due_for_renewal_is_left_to_the_long_way(service: Service, trial: Assignment) -> None:
    service.clock.advance(LEASE_SECONDS * (1 - RENEWED_BELOW) - 1)
    assert accept(service, knowing(trial), report(trial, records(trial, [0], 0.5))) != [None]
    service.clock.advance(2)
    assert accept(service, knowing(trial), report(trial, records(trial, [1], 0.5))) == [None]
    assert [row[2] for row in stored(service)] == [0]


def test_what_is_not_plain_is_left_to_the_long_way(service: Service, trial: Assignment, worker: Worker) -> None:
    known, told = knowing(trial), records(trial, [0], 0.5)
    elsewhere = told[0].model_copy(update={"epoch": 99})
    assert (
        accept(
            service,
            known,
            report(trial, told, devices=[Device(index=0, name="H200")]),
            report(trial, told, token="another"),
            report(trial.model_copy(update={"trial_id": 10**6}), told),
            report(trial, [elsewhere]),
        )
        == [None] * 4
    )
    assert accept(service, Known(), report(trial, told)) == [None]
    worker.finish(trial, outcome="diverged", epochs=[])
    assert accept(service, known, report(trial, told)) == [None]
    assert stored(service) == []


def test_a_trial_that_was_leased_anew_takes_no_epochs_of_the_old_lease(
    service: Service, trial: Assignment, worker: Worker
) -> None:
    worker.release(trial)
    again = worker.next(service)
    assert again.trial_id == trial.trial_id
    known = knowing(trial, again)
    assert accept(service, known, report(trial, records(trial, [0], 0.5))) == [None]
    assert stored(service) == []
    assert accept(service, known, report(again, records(again, [0], 0.5))) != [None]
    assert [row[:3] for row in stored(service)] == [(trial.trial_id, 2, 0)]


def test_one_of_several_goes_the_long_way_alone(service: Service, trial: Assignment) -> None:
    other = trial.model_copy(update={"token": "unknown", "trial_id": trial.trial_id + 1})
    quick, long = accept(
        service, knowing(trial), report(trial, records(trial, [0], 0.5)), report(other, records(other, [0], 0.5))
    )
    assert quick is not None
    assert long is None
    assert len(stored(service)) == 1


def test_after_a_broken_connection_the_long_way_is_taken_once(service: Service, trial: Assignment) -> None:
    quick = QuickReports(service.engine, knowing(trial), service.clock, LEASE)
    with asyncio.Runner() as runner:
        assert runner.run(quick.accept([report(trial, records(trial, [0], 0.5))])) != [None]
        with writing(service.engine) as connection:
            connection.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE query LIKE '%json_to_recordset%' AND pid <> pg_backend_pid()"
                )
            )
        assert runner.run(quick.accept([report(trial, records(trial, [1], 0.5))])) == [None]
        assert runner.run(quick.accept([report(trial, records(trial, [2], 0.5))])) != [None]
        runner.run(quick.close())
    assert [row[2] for row in stored(service)] == [0, 2]


def test_a_database_that_is_away_is_told_of_at_once(service: Service, trial: Assignment) -> None:
    nowhere = open_database("postgresql://nobody@127.0.0.1:1/nothing")
    quick = QuickReports(nowhere, knowing(trial), service.clock, LEASE)
    with pytest.raises(OperationalError):
        asyncio.run(quick.accept([report(trial, [])]))


def test_sqlite_takes_the_long_way(databases: Databases) -> None:
    with databases.new("sqlite") as url, run_service(url) as service:
        service.submit()
        trial = Worker(service.client).next(service)
        assert accept(service, knowing(trial), report(trial, records(trial, [0], 0.5))) == [None]
