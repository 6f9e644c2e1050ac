"""PostgreSQL past SQLAlchemy, which takes longer for most messages than the driver and the database do."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar, cast

import psycopg
from psycopg.rows import namedtuple_row
from sqlalchemy import ClauseElement, Connection, Engine
from sqlalchemy.dialects import postgresql

log = logging.getLogger(__name__)

_Result = TypeVar("_Result")


class OwnConnection:
    """A connection kept by one thread, in which every statement, or pipeline of them, commits itself."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connection: Connection | None = None

    @property
    def possible(self) -> bool:
        """Whether the database is PostgreSQL."""
        return self._engine.dialect.name == "postgresql"

    def use(self, work: Callable[[psycopg.Connection[Any]], _Result]) -> _Result | None:
        """What `work` gives; None where the connection broke or a statement failed: perhaps the long way gets through.

        Raises what SQLAlchemy does if there is no connection to be had.
        """
        if self._connection is None:
            self._connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        try:
            return work(cast(psycopg.Connection[Any], self._connection.connection.driver_connection))
        except psycopg.Error as error:
            log.warning("messages go the long way: %s", str(error).strip())
            self._connection.invalidate()
            self.close()
            return None

    def close(self) -> None:
        """Give the connection back; the next use takes a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class Statement(NamedTuple):
    """A statement as PostgreSQL is sent it, and the values that stand in it."""

    text: str
    values: dict[str, Any]

    @classmethod
    def of(cls, query: ClauseElement) -> Statement:
        """One of SQLAlchemy's, whose parameters have no expanding ones among them."""
        compiled = query.compile(dialect=postgresql.psycopg.dialect())  # type: ignore[no-untyped-call]
        return cls(str(compiled), dict(compiled.params))

    def execute(self, connection: psycopg.Connection[Any], values: Mapping[str, Any]) -> psycopg.Cursor[Any]:
        """Send it; in a pipeline the rows come once they are fetched."""
        return connection.cursor(row_factory=namedtuple_row).execute(self.text, {**self.values, **values})
