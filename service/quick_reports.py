"""Most reports, in one statement: epochs of trials whose leases need no renewal yet. On PostgreSQL alone.

Whatever else a report is, or is about, goes the long way of `service.reports`. An epoch may go both: it is stored once.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

import psycopg
from sqlalchemy import Connection, Engine

from service import reports
from service.clock import Clock, Instant
from service.known import Known
from service.queue import renewal_due_before
from studies.errors import InvalidMessage
from studies.protocol import Answer, ReportRequest

log = logging.getLogger(__name__)


class QuickReports:
    """Accepts reports over a connection of its own. For one thread."""

    def __init__(self, engine: Engine, known: Known, clock: Clock, lease: int) -> None:
        self._engine = engine
        self._known = known
        self._clock = clock
        self._lease = lease
        self._connection: Connection | None = None

    def accept(self, requests: Sequence[ReportRequest]) -> list[list[Answer] | None]:
        """The answers to the reports that were accepted; None for each that has to go the long way."""
        if self._engine.dialect.name != "postgresql":
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
        stopped = self._store(plain, rows, renewal_due_before(now, self._lease)) if plain else {}
        return [
            [reports.answer(item.trial_id, stop=stopped[item.trial_id]) for item in request.trials]
            if all(item.trial_id in stopped for item in request.trials)
            else None
            for request in requests
        ]

    def close(self) -> None:
        """Give the connection back; another report takes a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _store(self, plain: Mapping[int, str], rows: Sequence[object], due_before: Instant) -> dict[int, bool]:
        """Store the epochs of the trials that are held for long enough yet; returns these, and whether a stop is asked.

        None of them where the connection has broken: perhaps the long way gets another one.
        """
        sent = (list(plain), list(plain.values()), due_before, json.dumps(rows))
        if self._connection is None:
            self._connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        try:
            # Past SQLAlchemy, which takes longer for such a statement than the driver and PostgreSQL together.
            with closing(self._connection.connection.cursor()) as cursor:
                cursor.execute(_STORE, sent)
                return dict(cursor.fetchall())
        except psycopg.Error as error:
            log.warning("reports go the long way: %s", str(error).strip())
            self._connection.invalidate()
            self.close()
            return {}


_STORE = """
    WITH held AS (
        SELECT trials.id, trials.attempt, trials.stop_requested
        FROM unnest(%s::bigint[], %s::text[]) AS sent (trial_id, token)
        JOIN trials ON trials.id = sent.trial_id AND trials.token = sent.token
        WHERE trials.state = 'running' AND trials.lease_expires_at >= %s
    ), stored AS (
        INSERT INTO epochs (trial_id, attempt, epoch, value, metrics, lr_first, lr_last, seconds, reported_at)
        SELECT held.id, held.attempt, row.epoch, row.value, row.metrics, row.lr_first, row.lr_last, row.seconds,
               row.reported_at
        FROM json_to_recordset(%s::json) AS row (
            trial_id bigint, epoch integer, value double precision, metrics json, lr_first double precision,
            lr_last double precision, seconds double precision, reported_at bigint
        )
        JOIN held ON held.id = row.trial_id
        ON CONFLICT DO NOTHING
    )
    SELECT id, stop_requested FROM held
"""
