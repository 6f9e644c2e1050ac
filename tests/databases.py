"""New databases for tests: SQLite files, and databases of one PostgreSQL server that is started when first wanted."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path

from service.database import migrate, open_database
from tests.postgres import PostgreSQL, running_postgresql

_TEMPLATE = "arena_template"


class Databases:
    """Makes databases of either kind, and drops them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count()
        self._stack = ExitStack()

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
    def new(self, kind: str) -> Iterator[str]:
        """The URL of a new database that has its tables already."""
        if kind == "sqlite":
            yield f"sqlite:///{shutil.copy(self._file, self._folder / f'{next(self._numbers)}.db')}"
            return
        url = self.postgresql.new_database(_TEMPLATE)
        yield url
        self.postgresql.drop_database(url)
