"""Most reports, in one statement: epochs of trials whose leases need no renewal yet. On PostgreSQL alone.

Whatever else a report is, or is about, goes the long way of `service.reports`. An epoch may go both: it is stored once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Engine

from service import reports
from service.clock import Clock, Instant
from service.known import Known
from service.own_connection import Connection, OwnConnection
from service.queue import renewal_due_before
from studies.errors import InvalidMessage
from studies.protocol import Answer, ReportRequest


class QuickReports:
    """Accepts reports over a connection of its own. For the event loop."""

    def __init__(self, engine: Engine, known: Known, clock: Clock, lease: int) -> None:
        self._connection = OwnConnection(engine)
        self._known = known
        self._clock = clock
        self._lease = lease

    async def accept(self, requests: Sequence[ReportRequest]) -> list[list[Answer] | None]:
        """The answers to the reports that were accepted; None for each that has to go the long way."""
        if not self._connection.possible:
            return [None] * len(requests)
        now = self._clock()
        plain: dict[int, str] = {}
        rows: list[dict[str, Any]] = []
        for request in requests:
            items = [(item, self._known.lease(item.trial_id, item.token)) for item in request.trials]
            if request.devices is not None or any(leased is None for _, leased in items):
                continue
            try:
                rows += [row for item, leased in items if leased for row in reports.epoch_rows(item, leased, now)]
            except InvalidMessage:
                continue
            plain |= {item.trial_id: item.token for item in request.trials}
        stopped = await self._store(plain, rows, renewal_due_before(now, self._lease)) if plain else {}
        return [
            [reports.answer(item.trial_id, stop=stopped[item.trial_id]) for item in request.trials]
            if all(item.trial_id in stopped for item in request.trials)
            else None
            for request in requests
        ]

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()

    async def _store(self, plain: Mapping[int, str], rows: Sequence[object], due_before: Instant) -> dict[int, bool]:
        """Store the epochs of trials that are held for long enough yet; returns these, and whether a stop is asked."""
        sent = (list(plain), list(plain.values()), due_before, json.dumps(rows))

        async def store(connection: Connection) -> list[tuple[int, bool]]:
            return await (await connection.execute(_STORE, sent)).fetchall()

        return dict(await self._connection.use(store) or ())


_INSERT = """
    INSERT INTO epochs (trial_id, attempt, epoch, value, metrics, lr_first, lr_last, seconds, reported_at)
    SELECT row.*
    FROM json_to_recordset(%s::json) AS row (
        trial_id bigint, attempt integer, epoch integer, value double precision, metrics json,
        lr_first double precision, lr_last double precision, seconds double precision, reported_at bigint
    )
"""
INSERT_EPOCHS = f"{_INSERT} ON CONFLICT DO NOTHING"
"""Stores the rows of `service.reports.epoch_rows`, as JSON."""
_STORE = f"""
    WITH held AS (
        SELECT trials.id, trials.attempt, trials.stop_requested
        FROM unnest(%s::bigint[], %s::text[]) AS sent (trial_id, token)
        JOIN trials ON trials.id = sent.trial_id AND trials.token = sent.token
        WHERE trials.state = 'running' AND trials.lease_expires_at >= %s
    ), stored AS (
        {_INSERT} JOIN held ON held.id = row.trial_id AND held.attempt = row.attempt ON CONFLICT DO NOTHING
    )
    SELECT id, stop_requested FROM held
"""
