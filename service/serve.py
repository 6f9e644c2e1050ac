"""`lr-arena serve`: starts the web process and the director beside it, and ends both cleanly.

The supervisor keeps both alive: one that dies is started again. The children hold the read end of a
pipe of the supervisor's, so that they end by themselves if it is killed.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType

from service.auth import is_loopback, list_tokens
from service.database import open_database, reading
from service.schema import migrate
from service.settings import Settings
from studies.errors import ArenaError, UnsafeBinding

log = logging.getLogger(__name__)

STOP_SECONDS = 15.0
"""How long children are given to end before they are killed."""
RESTART_SECONDS = 0.5
MAX_QUICK_DEATHS = 5
QUICK_SECONDS = 15.0
"""A child that dies this soon after its start did so for a reason that a restart does not mend."""


def serve(
    host: str,
    port: int,
    settings: Settings,
    on_ready: Callable[[str], None] = lambda url: None,
    *,
    workers: int = 1,
) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit code: 0 after a clean end.

    workers: how many web processes share the port; more than one needs PostgreSQL.

    port 0 takes a free one; on_ready is called with the address once the service listens.
    Raises UnsafeBinding for a host that is not this machine alone where the database has no token, DatabaseError,
    or ArenaError if the port is taken.
    """
    engine = open_database(settings.database)
    if workers > 1 and engine.dialect.name == "sqlite":
        raise ArenaError(f"on SQLite one web process serves, but got --workers {workers}: give a PostgreSQL --database")
    migrate(engine)
    with reading(engine) as connection:
        check_host(host, has_tokens=bool(list_tokens(connection)))
    engine.dispose()
    with _listen(host, port) as listener:
        address = listener.getsockname()
        url = f"http://{f'[{address[0]}]' if ':' in address[0] else address[0]}:{address[1]}"
        return _Supervisor(listener, settings, workers).run(lambda: on_ready(url))


def check_host(host: str, *, has_tokens: bool) -> None:
    """Raises UnsafeBinding for another host than a loopback address, unless there are tokens to ask for.

    has_tokens: whether one was ever made; the service then asks for one at any address.
    """
    if not has_tokens and not is_loopback(host):
        raise UnsafeBinding(
            f"will not listen on {host!r}: the database has no token, so whoever reaches the port could do everything. "
            "Make one, and every request will need one: lr-arena token create NAME --scope admin (with the same "
            "--database). Or listen on 127.0.0.1, and let others in through ssh -L 8000:127.0.0.1:8000 HOST"
        )


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise ArenaError(f"cannot listen on {host}:{port}: {error.strerror}; give another --port") from error
    return listener


@dataclass
class _Child:
    """A process that is kept alive."""

    name: str
    arguments: Sequence[str]
    passed: Sequence[int]
    environment: Mapping[str, str]
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    quick_deaths: int = 0

    def start(self) -> None:
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", *self.arguments],
            pass_fds=self.passed,
            stdin=subprocess.DEVNULL,
            env=self.environment,
        )

    def died(self) -> int | None:
        """The exit code of a process that has ended."""
        return None if self.process is None else self.process.poll()


class _Supervisor:
    def __init__(self, listener: socket.socket, settings: Settings, web_processes: int) -> None:
        self._stop = threading.Event()
        self._lifeline, self._held = os.pipe()  # children read the first; it ends when we do
        fd, line = listener.fileno(), str(self._lifeline)
        environment = {**os.environ, **settings.as_environment}
        web = ["service.web", str(fd), line]
        self._children = [
            *(_Child("web", web, [fd, self._lifeline], environment) for _ in range(web_processes)),
            _Child("director", ["service.directing", line], [self._lifeline], environment),
        ]

    def run(self, on_ready: Callable[[], None]) -> int:
        before = {number: signal.signal(number, self._told) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            for child in self._children:
                child.start()
            on_ready()
            while not self._stop.wait(0.1):
                for child in self._children:
                    code = child.died()
                    if code is not None and not self._stop.is_set():
                        self._revive(child, code)
            return 0
        finally:
            self._end()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _told(self, _number: int, _frame: FrameType | None) -> None:
        self._stop.set()

    def _revive(self, child: _Child, code: int) -> None:
        quick = time.monotonic() - child.started < QUICK_SECONDS
        child.quick_deaths = child.quick_deaths + 1 if quick else 0
        if child.quick_deaths >= MAX_QUICK_DEATHS:
            raise ArenaError(
                f"the {child.name} process ended {MAX_QUICK_DEATHS} times right after its start (exit {code})"
            )
        log.warning("the %s process ended (exit %d); starting it again", child.name, code)
        self._stop.wait(RESTART_SECONDS)
        if not self._stop.is_set():
            child.start()

    def _end(self) -> None:
        os.close(self._held)
        os.close(self._lifeline)
        running = [child.process for child in self._children if child.process and child.process.poll() is None]
        for process in running:
            process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for process in running:
            try:
                process.wait(max(deadline - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                log.warning("process %d does not end; killing it", process.pid)
                process.kill()
                process.wait()
