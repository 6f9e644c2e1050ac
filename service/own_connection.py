"""PostgreSQL past SQLAlchemy, which takes longer for most messages than the driver and the database do."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import psycopg
from psycopg.rows import namedtuple_row
from sqlalchemy import ClauseElement, Engine
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import OperationalError

from service.database import postgresql_arguments

log = logging.getLogger(__name__)

_Result = TypeVar("_Result")
Connection = psycopg.AsyncConnection[Any]


class OwnConnection:
    """A connection of the event loop, in which every statement, or pipeline of them, commits itself.

    Without a thread: what hands a message from one to the other and back takes longer than most statements do. One
    use at a time.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connection: Connection | None = None

    @property
    def possible(self) -> bool:
        """Whether the database is PostgreSQL."""
        return self._engine.dialect.name == "postgresql"

    async def use(self, work: Callable[[Connection], Awaitable[_Result]]) -> _Result | None:
        """What `work` gives; None where the connection broke or a statement failed: perhaps the long way gets through.

        Raises SQLAlchemy's OperationalError if there is no connection to be had.
        """
        if self._connection is None:
            self._connection = await self._connect()
        try:
            return await work(self._connection)
        except psycopg.Error as error:
            log.warning("messages go the long way: %s", str(error).strip())
            await self.close()
            return None

    async def close(self) -> None:
        """Close it; the next use makes a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _connect(self) -> Connection:
        try:
            # Each of its statements has one good plan, which need not be made again for every message.
            arguments = postgresql_arguments(self._engine.url, plan_cache_mode="force_generic_plan")
            return await psycopg.AsyncConnection.connect(**arguments, autocommit=True)
        except psycopg.Error as error:
            raise OperationalError(None, None, error) from error


class Statement(NamedTuple):
    """A statement as PostgreSQL is sent it, and the values that stand in it."""

    text: str
    values: dict[str, Any]

    @classmethod
    def of(cls, query: ClauseElement) -> Statement:
        """One of SQLAlchemy's, whose parameters have no expanding ones among them."""
        compiled = query.compile(dialect=postgresql.psycopg.dialect())  # type: ignore[no-untyped-call]
        return cls(str(compiled), dict(compiled.params))

    async def execute(self, connection: Connection, values: Mapping[str, Any]) -> psycopg.AsyncCursor[Any]:
        """Send it; in a pipeline the rows come once they are fetched."""
        return await connection.cursor(row_factory=namedtuple_row).execute(self.text, {**self.values, **values})
