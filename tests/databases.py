"""Empty databases for tests: SQLite files, and databases of one PostgreSQL server that is started when first wanted."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path

import psycopg
from sqlalchemy import make_url

from service.database import open_database
from service.schema import migrate, newest_schema
from service.tables import metadata
from tests.postgres import PostgreSQL, running_postgresql

_TEMPLATE = "arena_template"
_MANY = 5_000
"""A database with more trials than this is dropped rather than emptied."""


class Databases:
    """Makes databases of either kind, and empties those that were used: PostgreSQL takes a while to make a new one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count()
        self._stack = ExitStack()
        self._empty: dict[str, list[str]] = {"sqlite": [], "postgresql": []}

    def __enter__(self) -> Databases:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @cached_property
    def postgresql(self) -> PostgreSQL:
        """The server, with a template in which the migrations have run."""
        server = self._stack.enter_context(running_postgresql())
        server.execute(f"CREATE DATABASE {_TEMPLATE}")
        engine = open_database(server.url(_TEMPLATE))
        migrate(engine)
        engine.dispose()
        return server

    @cached_property
    def _file(self) -> Path:
        """A file in which the migrations have run."""
        made = self._folder / "template.db"
        engine = open_database(f"sqlite:///{made}")
        migrate(engine)
        engine.dispose()
        return made

    @contextmanager
    def new(self, kind: str, *, fresh: bool = False) -> Iterator[str]:
        """The URL of a database that has its tables already, and nothing in them.

        fresh: one that nobody has had before.
        """
        free = self._empty[kind]
        url = free.pop() if free and not fresh else self._made(kind)
        yield url
        if kind == "sqlite":
            self._copy(make_url(url).database)
            free.append(url)
        elif self._emptied(url):
            free.append(url)
        else:
            self.postgresql.drop_database(url)

    def _made(self, kind: str) -> str:
        if kind == "postgresql":
            return self.postgresql.new_database(_TEMPLATE)
        return f"sqlite:///{self._copy(self._folder / f'{next(self._numbers)}.db')}"

    def _copy(self, file: str | Path | None) -> Path:
        assert file is not None
        for name in (f"{file}", f"{file}-wal", f"{file}-shm"):
            Path(name).unlink(missing_ok=True)  # a process that still has it open goes on with what is no file any more
        return Path(shutil.copy(self._file, file))

    def _emptied(self, url: str) -> bool:
        """Take all rows out of a database; False if it is not as the migrations have made it."""
        name = make_url(url).database
        try:
            with self.postgresql.connect(name) as connection:
                connection.execute(  # those that are idle the next test may use
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle'"
                )
                version = connection.execute("SELECT version_num FROM alembic_version").fetchall()
                (trials,) = connection.execute("SELECT count(*) FROM trials").fetchone() or (0,)
                if version != [(newest_schema(),)] or trials > _MANY:
                    return False
                connection.execute("SET session_replication_role = replica")  # nothing refers to rows that are no more
                for table in metadata.sorted_tables:  # TRUNCATE takes ten times as long for a few rows
                    connection.execute(f"DELETE FROM {table.name}".encode())
                connection.execute("SELECT setval(oid::regclass, 1, false) FROM pg_class WHERE relkind = 'S'")
        except psycopg.Error:
            return False
        return True
