"""The schema of a database: which one it has, and the migrations that bring it to this release's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text
from sqlalchemy.exc import OperationalError

from service.database import writing
from studies.errors import DatabaseAway, DatabaseError

OLDEST_POSTGRESQL = 14
_MIGRATIONS = Path(__file__).parent / "migrations"
_MIGRATING = 7_232_917_001
"""The advisory lock of PostgreSQL that services which start side by side take to migrate one after another."""


def migrate(engine: Engine) -> None:
    """Bring the schema to this release's, from nothing or from any earlier one.

    Raises DatabaseAway if the database cannot be opened, and DatabaseError if it is too old a PostgreSQL or was made by
    a newer release.
    """
    try:
        with _changing_tables(engine) as connection:
            current = schema_of(connection)
            if current is not None and current not in _schemas():
                raise DatabaseError(
                    f"the database {engine.url} was made by a newer release of LR Arena (schema {current}); "
                    "install that release, or give another database"
                )
            if current != newest_schema():
                _upgrade(connection)
                if engine.dialect.name == "sqlite":
                    _check_references(connection)
    except OperationalError as error:
        raise DatabaseAway(f"the database {engine.url} cannot be opened: {error.orig}") from error


def newest_schema() -> str:
    """The revision of the schema that this release works with."""
    return _schemas()[-1]


@cache
def _schemas() -> list[str]:
    """The revisions in their order: what the names of the migrations begin with."""
    return sorted(path.name.partition("_")[0] for path in (_MIGRATIONS / "versions").glob("[0-9]*.py"))


def schema_of(connection: Connection) -> str | None:
    """The revision of the database's schema; None where there is none."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return found


def _upgrade(connection: Connection) -> None:
    # Almost every start finds its tables as they should be, and is sooner there without Alembic.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


@contextmanager
def _changing_tables(engine: Engine) -> Iterator[Connection]:
    if engine.dialect.name == "sqlite":
        with _remaking_tables(engine) as connection:
            yield connection
        return
    with writing(engine) as connection:
        version = int((connection.dialect.server_version_info or (0,))[0])
        if version < OLDEST_POSTGRESQL:
            raise DatabaseError(
                f"the database {engine.url} is PostgreSQL {version}: LR Arena needs {OLDEST_POSTGRESQL} or newer"
            )
        # A large table may take its time, and another service that migrates may, too.
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SET LOCAL lock_timeout = 0"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATING})
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
