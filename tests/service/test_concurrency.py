"""Many at once, and two services on one database: nothing is created twice, nothing waits for itself."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial

import httpx
import pytest
from sqlalchemy import select, text

from service import queue
from service.database import reading, writing
from service.tables import attempts, trials
from studies.client import Client
from studies.errors import Refused
from studies.trial import TERMINAL
from tests.databases import Databases
from tests.service.support import LEASE_SECONDS, MovableClock, Service, Worker, run_service, small_study


@pytest.fixture
def pair(databases: Databases) -> Iterator[tuple[Service, Service]]:
    """Two services on one PostgreSQL database, under one clock."""
    clock = MovableClock()
    with ExitStack() as stack:
        url = stack.enter_context(databases.new("postgresql"))
        both = stack.enter_context(run_service(url, clock)), stack.enter_context(run_service(url, clock))
        for service in both:  # FastAPI makes its routes at the first request, and two must not do so at once
            assert service.client.studies() == []
        yield both


def side_by_side(*errands: Callable[[], None]) -> None:
    """Run each in a thread of its own; raises what one of them has raised."""
    failures: list[BaseException] = []

    def run(errand: Callable[[], None]) -> None:
        try:
            errand()
        except BaseException as error:  # noqa: BLE001 - raised below, in the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=run, args=(errand,)) for errand in errands]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def post_at_once(services: Sequence[Service], definitions: Sequence[dict[str, object]]) -> list[int]:
    """The statuses of the answers, each definition having been posted to one of the services."""
    barrier = threading.Barrier(len(definitions))
    statuses: list[int] = []

    def post(url: str, definition: dict[str, object]) -> None:
        barrier.wait()
        answer = httpx.post(f"{url}/api/v1/studies", json=definition, trust_env=False, timeout=60)
        statuses.append(answer.status_code)

    urls = itertools.cycle(service.url for service in services)
    side_by_side(*(partial(post, url, definition) for url, definition in zip(urls, definitions, strict=False)))
    return sorted(statuses)


def test_of_identical_definitions_that_come_at_once_one_is_created_and_the_others_find_it(
    pair: tuple[Service, Service],
) -> None:
    large = small_study(search={"trials_per_schedule": 500, "sampler": "random"})
    assert post_at_once(pair, [large] * 4) == [200, 200, 200, 201]
    assert len(list(pair[0].client.trials("small"))) == 1000


def test_of_different_definitions_of_one_name_that_come_at_once_one_is_created(pair: tuple[Service, Service]) -> None:
    assert post_at_once(pair, [small_study(epochs=n) for n in (1, 2, 3, 4)]) == [201, 409, 409, 409]
    assert len(pair[0].client.studies()) == 1


def test_whatever_is_asked_at_once_nothing_waits_for_itself(pair: tuple[Service, Service]) -> None:
    """Studies are drained, cancelled, paused and resumed in a storm of claims, reports, results and releases."""
    names = [f"study-{n}" for n in range(8)]
    for name in names:
        pair[0].submit(name=name, search={"trials_per_schedule": 20, "sampler": "random"}, confirm={"seeds": 1})
    over = threading.Event()
    clients = [Client(service.url) for service in pair]

    def direct(service: Service) -> None:
        while not over.is_set():
            service.director.step()
            service.clock.advance(0.2)

    def work(number: int) -> None:
        chance = random.Random(number)
        worker = Worker(clients[number % 2], id=f"worker-{number}", slots=4)
        while not over.is_set():
            for trial in worker.claim(wait_seconds=0.05):
                worker.client = chance.choice(clients)
                worker.report(trial, [0])
                if (end := chance.random()) < 0.2:
                    worker.release(trial, chance.choice(["preempted", "crashed"]), reason=f"fault of {worker.id}")
                elif end < 0.9:
                    worker.finish(trial, outcome="failed" if end < 0.3 else "completed", reason=f"{chance.random()}")

    def steer() -> None:
        chance = random.Random(0)
        ends = [("drain", name) for name in names[::2]] + [("cancel", name) for name in names[1::2]]
        for verb, name in [
            (chance.choice(["pause", "resume", "resume"]), chance.choice(names)) for _ in range(60)
        ] + ends:
            try:
                getattr(chance.choice(clients), verb)(name)
            except Refused as error:
                if error.status != httpx.codes.CONFLICT:  # the study has ended
                    raise

    def steer_to_the_end() -> None:
        try:
            steer()
        finally:
            over.set()

    side_by_side(partial(direct, pair[0]), steer_to_the_end, *(partial(work, number) for number in range(6)))
    for client in clients:
        client.close()
    check(pair[0], names)


def test_a_result_that_meets_the_expiry_of_its_lease_is_stored_or_refused(pair: tuple[Service, Service]) -> None:
    """It waits for the trial's row while the lease expires, and then must see the attempt as it has become."""
    service = pair[0]
    service.submit(schedules=["constant"])
    worker = Worker(service.client)
    trial = worker.next(service)
    service.clock.advance(LEASE_SECONDS + 1)
    waiting = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")

    def somebody_waits() -> bool:
        with reading(service.engine) as connection:  # a transaction sees the same activities at every look
            return connection.execute(waiting).scalar_one() > 0

    def expire_slowly() -> None:
        with writing(service.engine) as connection:
            assert queue.expire(connection, service.clock()) == 1
            begun.set()
            while not somebody_waits():
                time.sleep(0.01)

    def finish() -> None:
        begun.wait(20)
        assert worker.finish(trial).status == 200

    begun = threading.Event()
    side_by_side(expire_slowly, finish)
    found = service.client.trial(trial.trial_id)
    assert (found.state, found.value) == ("completed", 0.5)
    assert [attempt.end for attempt in found.history] == ["completed"]


def check(service: Service, names: Sequence[str]) -> None:
    """Nothing is lost or doubled, and no transaction was ended because it and another waited for each other."""
    deadlocks = text("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
    with reading(service.engine) as connection:
        rows = connection.execute(select(trials)).all()
        tries = connection.execute(select(attempts.c.trial_id, attempts.c.end)).all()
        assert connection.execute(deadlocks).scalar_one() == 0
    ends = Counter((row.trial_id, row.end) for row in tries)
    assert len(tries) > 50
    searched = Counter(row.study_id for row in rows if row.phase == "search")
    assert list(searched.values()) == [40] * len(names)
    for row in rows:
        assert ends[row.id, None] == (row.state == "running")
        assert (row.crashed, row.preempted) == (ends[row.id, "crashed"], ends[row.id, "preempted"])
        assert (row.state in TERMINAL) == (row.finished_at is not None)
    open_trials = {row.study_id for row in rows if row.state not in TERMINAL}
    assert len(open_trials) <= len(names) / 2, "those that were cancelled have none"
