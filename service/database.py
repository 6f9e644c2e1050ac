"""Engines and transactions: SQLite by default, PostgreSQL in earnest, the same statements on both.

A transaction is either `reading` or `writing`. On SQLite a writing one takes the lock when it begins: there is no
upgrade from read to write that could fail half-way. On PostgreSQL a writing one is READ COMMITTED, so that after
waiting for a row it sees the row as it is now, and a reading one is REPEATABLE READ: one state throughout.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import chain, islice
from typing import Any

import sqlalchemy
from sqlalchemy import URL, Connection, Engine, Insert, Table, event, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, NoSuchModuleError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from studies.errors import DatabaseError

BUSY_TIMEOUT_SECONDS = 30
CONNECT_SECONDS = 5
"""How long PostgreSQL may take to answer a new connection."""
STATEMENT_SECONDS = 30
"""How long PostgreSQL works at a statement, or waits for a lock, before it gives up."""
POOL_SIZE = 50
"""More than the threads that a web process answers requests with."""
_CHUNK_ROWS = 5_000
_MANY_ROWS = 1_000
"""After so many new rows PostgreSQL is told to look at a table: plans that it has made for a few rows read it whole."""


def open_database(url: str) -> Engine:
    """An engine for a database URL. Nothing is created yet. Raises DatabaseError for a URL it cannot use."""
    try:
        parsed = make_url(url)
        match parsed.get_backend_name():
            case "sqlite":
                return _open_sqlite(parsed)
            case "postgresql":
                return _open_postgresql(parsed)
    except (ArgumentError, NoSuchModuleError) as error:
        raise DatabaseError(f"{url!r} is not a database URL ({error}); an example: sqlite:///lr-arena.db") from error
    raise DatabaseError(
        f"the database {parsed.render_as_string()!r} is not supported: give a file, as sqlite:///lr-arena.db, "
        "or a PostgreSQL database, as postgresql://user:password@host/name"
    )


def _open_sqlite(url: URL) -> Engine:
    if url.database in (None, "", ":memory:"):
        raise DatabaseError("an in-memory SQLite database cannot be shared by processes: give a file")
    engine = sqlalchemy.create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_SECONDS}, pool_size=POOL_SIZE)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _open_postgresql(url: URL) -> Engine:
    if url.drivername not in ("postgresql", "postgresql+psycopg"):
        raise DatabaseError(
            f"the driver of {url.render_as_string()!r} is not supported: write postgresql://user:password@host/name"
        )
    return sqlalchemy.create_engine(
        url.set(drivername="postgresql+psycopg"),
        pool_size=POOL_SIZE,
        pool_use_lifo=True,  # a few warm connections rather than many
        connect_args=_session(),
    )


def _session(**settings: str) -> dict[str, Any]:
    """What a connection to PostgreSQL asks for, whatever the database: how long it waits, and the server's settings."""
    all_settings = {
        "statement_timeout": STATEMENT_SECONDS * 1000,
        "lock_timeout": STATEMENT_SECONDS * 1000,
        "idle_in_transaction_session_timeout": 2 * STATEMENT_SECONDS * 1000,  # of a process that was frozen
        "timezone": "UTC",
        **settings,
    }
    return {
        "connect_timeout": CONNECT_SECONDS,
        "keepalives_idle": 30,
        "tcp_user_timeout": STATEMENT_SECONDS * 1000,
        "options": " ".join(f"-c {name}={value}" for name, value in all_settings.items()),
    }


def postgresql_arguments(url: URL, **settings: str) -> dict[str, Any]:
    """What psycopg itself connects with, as an engine's connections do. settings: of the server, for the session."""
    _, arguments = url.get_dialect()().create_connect_args(url)
    return {**arguments, **_session(**settings)}


def is_away(error: Exception) -> bool:
    """Whether an error says that the database is busy or away, so that the same may succeed later."""
    if isinstance(error, OperationalError | InterfaceError | PoolTimeout):
        return True
    return isinstance(error, DBAPIError) and error.connection_invalidated


def without_statement(error: Exception) -> str:
    """What a database says, without the statement that it says it of."""
    return str(error.orig).strip() if isinstance(error, DBAPIError) else str(error)


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A transaction that sees one state of the database and changes nothing."""
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        with connection.begin():
            yield connection


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction that may write: commits at the end, rolls back on any error."""
    with engine.connect().execution_options(writing=True) as connection, connection.begin():
        yield connection


def insert_new(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows, leaving those alone whose key is there already."""
    _insert(connection, new_rows(connection, table), rows)


def insert(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert a few rows."""
    _insert(connection, table.insert(), rows)


def _insert(connection: Connection, statement: Insert, rows: Sequence[Mapping[str, Any]]) -> None:
    if len(rows) == 1:  # several are a matter of a cursor's `executemany`, which is slower for one
        connection.execute(statement, rows[0])
    elif rows:
        connection.execute(statement, list(rows))


def insert_many(connection: Connection, table: Table, rows: Iterable[Mapping[str, Any]]) -> None:
    """Insert any number of rows that all have the same plain columns (numbers, text; no JSON)."""
    remaining = iter(rows)
    if connection.dialect.name == "postgresql":
        _copy(connection, table, remaining)
        return
    while chunk := list(islice(remaining, _CHUNK_ROWS)):
        connection.execute(table.insert(), chunk)


def _copy(connection: Connection, table: Table, rows: Iterator[Mapping[str, Any]]) -> None:
    """COPY is some ten times as fast as INSERT."""
    first = next(rows, None)
    if first is None:
        return
    statement = f"COPY {table.name} ({', '.join(first)}) FROM STDIN"
    cursor = connection.connection.cursor()
    try:
        with cursor.copy(statement) as copy:
            for row in chain([first], rows):
                copy.write_row([row[name] for name in first])
        if cursor.rowcount >= _MANY_ROWS:
            cursor.execute(f"ANALYZE (SKIP_LOCKED) {table.name}")
    finally:
        cursor.close()


@cache
def _new_rows(table: Table, dialect: str) -> postgresql.Insert | sqlite.Insert:
    if dialect == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing()
    return sqlite.insert(table).on_conflict_do_nothing()


def new_rows(connection: Connection, table: Table) -> postgresql.Insert | sqlite.Insert:
    """An insertion that leaves a row alone whose key is there already, and then returns nothing."""
    return _new_rows(table, connection.dialect.name)


_STATE_OF_DATA = {"sqlite": "PRAGMA data_version", "postgresql": "SELECT CAST(pg_current_snapshot() AS text)"}


class ChangeSignal:
    """Tells whether anybody committed since it was last asked. Not for several threads at once.

    On PostgreSQL what is compared is the snapshot that a new statement would see, so that a change is noticed
    exactly when it can be read; transactions that were rolled back, and those of other databases, count too.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connection: Connection | None = None
        self._seen: object = None

    def changed(self) -> bool:
        """True at first, and whenever another connection has committed since."""
        if self._connection is None:
            self._connection = self._engine.connect()
            if self._engine.dialect.name == "postgresql":
                self._connection.execution_options(isolation_level="AUTOCOMMIT")  # one way there and back, not three
        try:
            now = self._connection.exec_driver_sql(_STATE_OF_DATA[self._engine.dialect.name]).scalar_one()
            self._connection.rollback()
        except DBAPIError:
            self.close()
            raise
        before, self._seen = self._seen, now
        return bool(before != now)

    def close(self) -> None:
        """Give the connection back; another question takes a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # transactions are begun below, not by the driver
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")  # a result that was acknowledged survives a power cut
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writing", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
