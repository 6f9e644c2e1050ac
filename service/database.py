"""Engines, transactions and migrations. SQLite by default; every statement is written for PostgreSQL too.

A transaction is either `reading` or `writing`. On SQLite a writing one takes the lock when it begins:
there is no upgrade from read to write that could fail half-way.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, Table, event, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, OperationalError

from studies.errors import DatabaseError

BUSY_TIMEOUT_SECONDS = 30
_MIGRATIONS = Path(__file__).parent / "migrations"


def open_database(url: str) -> Engine:
    """An engine for a database URL. Nothing is created yet. Raises DatabaseError for a URL it cannot use."""
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() != "sqlite":
            raise DatabaseError(
                f"the database {parsed.render_as_string()!r} is not supported: give a file, as sqlite:///lr-arena.db"
            )
        if parsed.database in (None, "", ":memory:"):
            raise DatabaseError("an in-memory SQLite database cannot be shared by processes: give a file")
        engine = sqlalchemy.create_engine(parsed, connect_args={"timeout": BUSY_TIMEOUT_SECONDS}, pool_size=50)
    except (ArgumentError, NoSuchModuleError) as error:
        raise DatabaseError(f"{url!r} is not a database URL ({error}); an example: sqlite:///lr-arena.db") from error
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def migrate(engine: Engine) -> None:
    """Bring the schema to this release's, from nothing or from any earlier one.

    Raises DatabaseError if the file cannot be opened or was made by a newer release.
    """
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    scripts = ScriptDirectory.from_config(config)
    known = {script.revision for script in scripts.walk_revisions()}
    try:
        with _remaking_tables(engine) as connection:
            current = MigrationContext.configure(connection).get_current_revision()
            if current is not None and current not in known:
                raise DatabaseError(
                    f"the database {engine.url} was made by a newer release of LR Arena (schema {current}); "
                    "install that release, or give another database"
                )
            if current != scripts.get_current_head():
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
                _check_references(connection)
    except OperationalError as error:
        raise DatabaseError(f"the database {engine.url} cannot be opened: {error.orig}") from error


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A transaction that sees one state of the database and changes nothing."""
    with engine.connect() as connection, connection.begin():
        yield connection


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction that may write: commits at the end, rolls back on any error."""
    with engine.connect().execution_options(writing=True) as connection, connection.begin():
        yield connection


@contextmanager
def _remaking_tables(engine: Engine) -> Iterator[Connection]:
    """A writing transaction in which dropping a table deletes nothing of the tables that refer to it.

    SQLite changes a constraint by making the table anew. With foreign keys on, dropping the old one would delete
    its rows first, and ON DELETE CASCADE those of its children; they can be switched outside transactions only.
    """
    with engine.connect().execution_options(writing=True) as connection:
        sqlite_connection = connection.connection.cursor()
        sqlite_connection.execute("PRAGMA foreign_keys = OFF")
        try:
            with connection.begin():
                yield connection
        finally:
            sqlite_connection.execute("PRAGMA foreign_keys = ON")
            sqlite_connection.close()


def _check_references(connection: Connection) -> None:
    """Raise DatabaseError, before anything is committed, if a row refers to one that is not there."""
    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
    if broken:
        tables = ", ".join(sorted({str(row[0]) for row in broken}))
        raise DatabaseError(
            f"the database {connection.engine.url} was not changed: {len(broken)} rows of {tables} refer to rows "
            "that are not there; restore it from a copy"
        )


def insert_new(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows, leaving those alone whose primary key is there already."""
    if rows:
        insert = (postgresql if connection.dialect.name == "postgresql" else sqlite).insert
        connection.execute(insert(table).on_conflict_do_nothing(), list(rows))


class ChangeSignal:
    """Tells whether anybody committed since it was last asked. Not for several threads at once."""

    def __init__(self, engine: Engine) -> None:
        self._connection = engine.raw_connection()
        self._version: int | None = None

    def changed(self) -> bool:
        """True at first, and whenever another connection has committed since."""
        cursor = self._connection.cursor()
        try:
            (version,) = cursor.execute("PRAGMA data_version").fetchone()
        finally:
            cursor.close()
        before, self._version = self._version, version
        return bool(before != version)

    def close(self) -> None:
        """Give the connection back."""
        self._connection.close()


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
