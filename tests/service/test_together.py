"""Messages that come together share a transaction, and none of them suffers from another."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence

import pytest
from sqlalchemy import Connection, Engine, select

from service.database import insert_new, open_database, reading
from service.tables import tasks
from service.together import MOST, Together
from studies.errors import Refused
from studies.protocol import ReportRequest, ResultRequest, TrialReport
from tests.service.support import Service, Worker, records, result, same

Message = tuple[str, str]
"""What it is about, and what it says."""


class Bad(Exception):
    """A message that is refused after it has written."""


class Shop:
    """Writes a row for each message. The first transaction waits until it is told to go on."""

    def __init__(self, engine: Engine) -> None:
        self.batches: list[list[str]] = []
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.together: Together[Message, str] = Together(engine, self.accept, lambda message: [message[0]])

    def accept(self, connection: Connection, messages: Sequence[Message]) -> Sequence[str]:
        self.batches.append([word for _, word in messages])
        self.begun.set()
        assert self.go_on.wait(30)
        for subject, word in messages:
            row = {"name": word, "fingerprint": subject, "manifest": {}, "first_seen_at": 0}
            insert_new(connection, tasks, [row])
            if word.startswith("bad"):
                raise Bad(word)
        return [f"{word}!" for _, word in messages]

    async def all_at_once(
        self, first: Message, others: Sequence[Message], meanwhile: Callable[[list[asyncio.Task[str]]], None]
    ) -> list[str | BaseException]:
        """The replies, `others` having come while the transaction of `first` was under way."""
        asked = [asyncio.create_task(self.together.accept(first))]
        while not self.begun.is_set():
            await asyncio.sleep(0.001)
        asked += [asyncio.create_task(self.together.accept(message)) for message in others]
        await asyncio.sleep(0)
        meanwhile(asked)
        self.go_on.set()
        return list(await asyncio.gather(*asked, return_exceptions=True))

    def ask(
        self,
        *messages: Message,
        meanwhile: Callable[[list[asyncio.Task[str]]], None] = lambda _: None,
    ) -> list[str | BaseException]:
        return asyncio.run(self.all_at_once(messages[0], messages[1:], meanwhile))


@pytest.fixture
def engine(database: str) -> Iterator[Engine]:
    made = open_database(database)
    yield made
    made.dispose()


def written(engine: Engine) -> set[str]:
    with reading(engine) as connection:
        return set(connection.execute(select(tasks.c.name)).scalars())


def test_messages_that_come_while_a_transaction_runs_share_the_next_one(engine: Engine) -> None:
    shop = Shop(engine)
    words = [f"word-{n}" for n in range(MOST + 5)]
    assert shop.ask(*((word, word) for word in words)) == [f"{word}!" for word in words]
    assert shop.batches == [words[:1], words[1 : MOST + 1], words[MOST + 1 :]]
    assert written(engine) == set(words)


def test_messages_about_the_same_thing_are_taken_one_after_the_other_in_their_order(engine: Engine) -> None:
    shop = Shop(engine)
    asked = [("x", "x1"), ("x", "x2"), ("y", "y1"), ("x", "x3"), ("y", "y2"), ("z", "z1")]
    assert shop.ask(*asked) == [f"{word}!" for _, word in asked]
    assert shop.batches == [["x1"], ["x2", "y1", "z1"], ["x3", "y2"]]


def test_a_bad_message_is_refused_alone_and_leaves_nothing_behind(engine: Engine) -> None:
    shop = Shop(engine)
    answers = shop.ask(("a", "a"), ("b", "b"), ("c", "bad-1"), ("d", "d"), ("e", "bad-2"))
    assert [answer if isinstance(answer, str) else repr(answer) for answer in answers] == [
        "a!",
        "b!",
        "Bad('bad-1')",
        "d!",
        "Bad('bad-2')",
    ]
    assert written(engine) == {"a", "b", "d"}


def test_one_that_does_not_wait_any_more_holds_nobody_up(engine: Engine) -> None:
    shop = Shop(engine)
    answers = shop.ask(("a", "a"), ("b", "b"), ("c", "c"), meanwhile=lambda asked: (asked[1].cancel(), None)[1])
    assert isinstance(answers[1], asyncio.CancelledError)
    assert (answers[0], answers[2]) == ("a!", "c!")


def test_one_bad_report_in_a_storm_harms_no_other(service: Service) -> None:
    service.submit(search={"trials_per_schedule": 20, "sampler": "random"})
    worker = Worker(service.client, slots=24)
    worker.claim()
    service.director.step()
    held = worker.claim()
    assert len(held) == 24
    refused: list[tuple[int, int]] = []
    answers: dict[int, list[tuple[int, str]]] = {}

    def send(number: int) -> None:
        trial = held[number]
        for epoch in range(3):
            bad = number % 6 == 0 and epoch == 1
            part = TrialReport(
                trial_id=trial.trial_id, token=trial.token, epochs=records(trial, [99 if bad else epoch], 0.5)
            )
            try:
                sent = service.client.report(ReportRequest(worker_id=worker.id, trials=[part])).trials
                answers.setdefault(number, []).extend(same(sent))
            except Refused as error:
                refused.append((number, error.status))

    threads = [threading.Thread(target=send, args=(number,)) for number in range(len(held))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(refused) == [(number, 422) for number in (0, 6, 12, 18)]
    for number, trial in enumerate(held):
        bad = number % 6 == 0
        assert answers[number] == [(200, "continue")] * (2 if bad else 3)
        assert [e.epoch for e in service.client.epochs(trial.trial_id)] == ([0, 2] if bad else [0, 1, 2])
    message = ResultRequest(worker_id=worker.id, trials=[result(trial, 0.5) for trial in held])
    assert same(service.client.finish(message).trials) == [(200, "abandon")] * 24
