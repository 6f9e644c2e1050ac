"""One director leads at a time. Leading is a row in the database with an epoch: a change of leader has a higher one.

Each of the leader's transactions checks that its epoch still holds, so that one that was thought dead cannot write.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, select, update
from sqlalchemy.exc import DBAPIError

from service import queue
from service.clock import SECOND, Clock, Instant
from service.database import insert_new, reading, without_statement, writing
from service.tables import director

log = logging.getLogger(__name__)

LEAD_SECONDS = 5.0
"""How long a silent director is still taken for the leader."""
RENEW_SECONDS = 1.0
"""How often a leader renews its lead, and one that waits asks for it."""
GAP_SECONDS = 1.0
"""If nobody led for longer, workers perhaps could not renew their leases: they get their full length again."""


class LeadLost(Exception):
    """Another director leads: what this one knows may be out of date."""


class Lead:
    """The lead as one director has it, or not. `hold` is for one thread, `writing` for any.

    was_away: set when the database was; workers, too, could not reach it then, and the leases are lengthened.
    """

    def __init__(self, engine: Engine, clock: Clock, lease: int) -> None:
        self.epoch: int | None = None
        self.was_away = False
        self._engine = engine
        self._clock = clock
        self._lease = lease
        self._name = secrets.token_hex(8)
        self._good_until: Instant = 0

    def hold(self, now: Instant) -> bool:
        """Whether this director leads; the lead is taken if nobody has it, and renewed from time to time."""
        if self.epoch is not None and now < self._good_until and not self.was_away:
            return True
        with reading(self._engine) as connection:
            row = connection.execute(select(director)).first()
        if row is not None and row.epoch != self.epoch and row.expires_at > now:
            self.epoch = None
            return False
        with writing(self._engine) as connection:
            insert_new(connection, director, [{"id": 1, "epoch": 0, "holder": "", "expires_at": now}])
            row = connection.execute(select(director).with_for_update()).one()
            taken_over = row.epoch != self.epoch
            if taken_over and row.expires_at > now:
                self.epoch = None
                return False
            epoch = row.epoch + taken_over
            if self.was_away or (taken_over and now - row.expires_at > int(GAP_SECONDS * SECOND)):
                queue.grant_grace(connection, now, self._lease)
            expires_at = now + int(LEAD_SECONDS * SECOND)
            connection.execute(update(director).values(epoch=epoch, holder=self._name, expires_at=expires_at))
        if taken_over:
            log.info("leading, epoch %d", epoch)
        self.epoch = epoch
        self.was_away = False
        self._good_until = now + int(RENEW_SECONDS * SECOND)
        return True

    def resign(self) -> None:
        """Let another director lead at once; if the database is away, another one leads soon even so."""
        if self.epoch is None:
            return
        try:
            with writing(self._engine) as connection:
                connection.execute(
                    update(director).where(director.c.epoch == self.epoch).values(expires_at=self._clock())
                )
        except DBAPIError as error:
            log.warning("the database is busy or away, resigning without saying so: %s", without_statement(error))
        self.epoch = None

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that only the leader can commit. Raises LeadLost for another."""
        with writing(self._engine) as connection:
            epoch = connection.execute(_EPOCH).scalar()
            if self.epoch is None or epoch != self.epoch:
                raise LeadLost
            yield connection


_EPOCH = select(director.c.epoch).with_for_update(read=True)
