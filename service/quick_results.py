"""Most results, in two rounds of statements sent together. On PostgreSQL alone.

Whatever else a result is (of a failed trial, late, sent twice, not complete) goes the long way of `service.results`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ARRAY, BigInteger, Engine, any_, bindparam

from service import queue, reports, results, roster
from service.clock import Clock, Instant
from service.known import Board, Known
from service.messages import tokens
from service.outcomes import outcome
from service.own_connection import Connection, OwnConnection, Statement
from service.queue import Held
from service.quick_reports import INSERT_EPOCHS
from service.tables import epochs, trials
from studies.errors import InvalidMessage
from studies.protocol import Answer, ResultRequest, TrialResult


class _TakeTheLongWay(Exception):
    """A message is not what most are; nothing of the transaction is kept."""


class QuickResults:
    """Accepts results over a connection of its own. For the event loop."""

    def __init__(self, engine: Engine, known: Known, clock: Clock) -> None:
        self._connection = OwnConnection(engine)
        self._known = known
        self._clock = clock

    async def accept(self, requests: Sequence[ResultRequest]) -> list[list[Answer] | None]:
        """The answers to the results that were accepted; None for each that has to go the long way."""
        plain = [request for request in requests if _is_plain(request)]
        if not self._connection.possible or not plain:
            return [None] * len(requests)
        try:
            done = await self._connection.use(lambda connection: self._finish(connection, plain, self._clock()))
        except (_TakeTheLongWay, InvalidMessage):
            done = None
        return [
            [results.done(done[item.trial_id]) for item in request.trials] if done and _is_plain(request) else None
            for request in requests
        ]

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()

    async def _finish(self, connection: Connection, requests: Sequence[ResultRequest], now: Instant) -> dict[int, Held]:
        """End the trials, all of them or, with an exception, none. What their senders held."""
        items = [item for request in requests for item in request.trials]
        sent = {"ids": [item.trial_id for item in items]}
        async with connection.pipeline(), connection.transaction():
            await _LOCK.execute(connection, sent)
            if rows := [row for item in items for row in self._epochs(item, now)]:
                await connection.execute(INSERT_EPOCHS, [json.dumps(rows)])
            holding, storing = await _HOLD.execute(connection, sent), await _STORED.execute(connection, sent)
            holds = self._held(await holding.fetchall(), tokens(requests))
            stored = results.by_attempt(await storing.fetchall())
            outcomes = []
            for item in items:
                held = holds[item.trial_id]
                outcomes.append((item, held, outcome(item, held, stored.get((held.trial_id, held.attempt), ()))))
            for item, held, result in sorted(outcomes, key=lambda one: one[1].study_id):
                values = _as_sent(results.ended_trial(item, held, result, now))
                attempt = results.ended_attempt(held, result, now)
                await _END_ALL.execute(connection, {**values, **attempt, "study": held.study_id})
            freed = Counter(held.worker_id for held in holds.values())
            for worker_id, number in sorted(freed.items()):  # always locked in the same order
                await _FREE_SLOTS.execute(connection, {"worker": worker_id, "number": number})
        return holds

    def _epochs(self, item: TrialResult, now: Instant) -> list[dict[str, Any]]:
        if not item.epochs:
            return []
        leased = self._known.lease(item.trial_id, item.token)
        if leased is None:
            raise _TakeTheLongWay
        return reports.epoch_rows(item, leased, now)

    def _held(self, rows: Sequence[Any], tokens: dict[int, str]) -> dict[int, Held]:
        by_id = {row.id: row for row in rows}
        found: dict[int, Held] = {}
        for trial_id, token in tokens.items():
            held = queue.held_by(by_id.get(trial_id), trial_id, token, self._known, self._board)
            if not isinstance(held, Held) or not held.live:
                raise _TakeTheLongWay
            found[trial_id] = held
        return found

    def _board(self, study_id: int, task: str) -> Board:
        board = self._known.met(study_id, task)
        if board is None:
            raise _TakeTheLongWay
        return board


def _is_plain(request: ResultRequest) -> bool:
    # What follows from failures, for workers and studies, is a matter of the long way.
    return all(item.outcome != "failed" for item in request.trials)


def _as_sent(values: dict[str, Any]) -> dict[str, Any]:
    return {name: json.dumps(value) if isinstance(value, dict) else value for name, value in values.items()}


_IDS = bindparam("ids", type_=ARRAY(BigInteger))
_LOCK = Statement.of(queue.LOCK.where(trials.c.id == any_(_IDS)))
_HOLD = Statement.of(queue.HOLD.where(trials.c.id == any_(_IDS)))
_STORED = Statement.of(results.STORED.where(epochs.c.trial_id == any_(_IDS)))
_END_ALL = Statement.of(results.END_ALL)
_FREE_SLOTS = Statement.of(roster.FREE_SLOTS_OF_A_SUCCESS)
