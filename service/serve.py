"""`lr-arena serve`: starts the web process and the director beside it, and ends both cleanly.

The supervisor keeps both alive: one that dies is started again. The children hold the read end of a
pipe of the supervisor's, so that they end by themselves if it is killed.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType

from service import queue
from service.clock import system_clock
from service.database import migrate, open_database, writing
from service.settings import Settings
from studies.errors import ArenaError, UnsafeBinding

log = logging.getLogger(__name__)

STOP_SECONDS = 15.0
"""How long children are given to end before they are killed."""
RESTART_SECONDS = 0.5
MAX_QUICK_DEATHS = 5
QUICK_SECONDS = 15.0
"""A child that dies this soon after its start did so for a reason that a restart does not mend."""


def serve(host: str, port: int, settings: Settings, on_ready: Callable[[str], None] = lambda url: None) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit code: 0 after a clean end.

    port 0 takes a free one; on_ready is called with the address once the service listens.
    Raises UnsafeBinding for a host that is not this machine alone, DatabaseError, or ArenaError if the
    port is taken.
    """
    check_host(host)
    engine = open_database(settings.database)
    migrate(engine)
    with writing(engine) as connection:  # before the director may expire what no worker could renew
        queue.grant_grace(connection, system_clock(), settings.lease)
    engine.dispose()
    with _listen(host, port) as listener:
        address = listener.getsockname()
        url = f"http://{f'[{address[0]}]' if ':' in address[0] else address[0]}:{address[1]}"
        return _Supervisor(listener, settings).run(lambda: on_ready(url))


def check_host(host: str) -> None:
    """Raises UnsafeBinding unless the host is a loopback address: whoever reaches the port may do everything."""
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise UnsafeBinding(
            f"will not listen on {host!r}: there is no sign-in yet, so whoever reaches the port could do everything; "
            "listen on 127.0.0.1 and let others in through a tunnel, such as ssh -L 8000:127.0.0.1:8000 HOST"
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
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    quick_deaths: int = 0

    def start(self) -> None:
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", *self.arguments], pass_fds=self.passed, stdin=subprocess.DEVNULL
        )

    def died(self) -> int | None:
        """The exit code of a process that has ended."""
        return None if self.process is None else self.process.poll()


class _Supervisor:
    def __init__(self, listener: socket.socket, settings: Settings) -> None:
        self._stop = threading.Event()
        self._lifeline, self._held = os.pipe()  # children read the first; it ends when we do
        fd, line = listener.fileno(), str(self._lifeline)
        web = ["service.web", str(fd), settings.database, str(settings.lease_seconds), line]
        self._children = [
            _Child("web", web, [fd, self._lifeline]),
            _Child("director", ["service.directing", settings.database, line], [self._lifeline]),
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
