"""All of it together: started, kept alive, and ended without a process left behind."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import FrameType

import psutil

from benchmarks.cluster import worker
from benchmarks.cluster.proxy import Proxy
from benchmarks.cluster.services import Service
from studies.client import Client
from studies.errors import Refused, Unreachable
from studies.protocol import StudyView
from tests.postgres import DURABLE, PostgreSQL, running_postgresql

END_SECONDS = 40.0
"""How long the workers may take to end when they are told to."""

# A process forked from one that has everything imported is there in a tenth of a second.
FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload([worker.__name__])


@dataclass
class Worker:
    """A place for a worker; whatever dies there is followed by another one, with a new id."""

    number: int
    lives: int = 0
    process: ForkServerProcess | None = None
    dies_by: set[int] = field(default_factory=set)
    """The exit codes that are to be expected of the process."""
    start_at: float = 0.0
    frozen: list[int] = field(default_factory=list)
    """Process ids that were told to stop for a while."""

    @property
    def id(self) -> str:
        """What the present one is called."""
        return f"worker-{self.number}-{self.lives}"

    def trainer(self) -> int | None:
        """The process id of its training process, if there is one."""
        if self.process is None or self.process.pid is None:
            return None
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.process.pid).children():
                return int(child.pid)
        return None

    def signal(self, number: int) -> None:
        """Send the agent a signal."""
        assert self.process is not None
        assert self.process.pid is not None
        os.kill(self.process.pid, number)


class Cluster:
    """PostgreSQL, services and workers; between services and workers, a proxy.

    folder: of the workers' notes, and everybody's logs. unexpected: what has ended by itself, in words.
    """

    def __init__(
        self,
        postgresql: PostgreSQL,
        database: str,
        services: list[Service],
        proxy: Proxy,
        workers: int,
        *,
        folder: Path,
        epoch_seconds: float,
    ) -> None:
        self.postgresql = postgresql
        self.database = database
        self.services = services
        self.proxy = proxy
        self.workers = [Worker(number) for number in range(workers)]
        self.unexpected: list[str] = []
        self.folder = folder
        self._epoch_seconds = epoch_seconds
        self._clients = [Client(service.url, timeout_seconds=5.0) for service in services]

    def keep_alive(self) -> None:
        """Start again what is dead."""
        for service in self.services:
            if not service.is_running:
                service.start()
        for one in self.workers:
            if one.process is not None and one.process.exitcode is not None:
                if one.process.exitcode not in one.dies_by:
                    log = (self.folder / f"{one.id}.log").read_text()[-2000:]
                    self.unexpected.append(f"{one.id} ended by itself (exit {one.process.exitcode}): {log}")
                one.process.close()
                one.process, one.dies_by, one.frozen = None, set(), []
            if one.process is None and time.monotonic() >= one.start_at:
                one.lives += 1
                arguments = (f"http://127.0.0.1:{self.proxy.port}", one.id, str(self.folder), self._epoch_seconds)
                one.process = FORKED.Process(target=worker.main, args=arguments, name=one.id)
                one.process.start()

    def study(self, name: str) -> StudyView | None:
        """A study as one of the services tells of it; None while none can."""
        for client in random.sample(self._clients, len(self._clients)):
            try:
                return client.study(name)
            except Unreachable:
                continue
            except Refused as error:
                if error.status != 503:
                    raise
        return None

    def client(self) -> Client:
        """A client of one of the services."""
        return self._clients[0]

    def settle(self) -> None:
        """Do no more harm; let everybody say what there is to say, and end the workers."""
        self.proxy.calm()
        for one in self.workers:
            for pid in one.frozen:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
        for service in self.services:
            service.wait_until_ready()
        self._end_workers()

    def close(self) -> None:
        """End whatever runs."""
        for one in self.workers:
            if one.process is not None and one.process.pid is not None:
                for pid in [one.process.pid, *filter(None, [one.trainer()])]:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                one.process.join()
        for service in self.services:
            service.kill()
        for client in self._clients:
            client.close()
        self.proxy.close()

    def _end_workers(self) -> None:
        running = [one for one in self.workers if one.process is not None]
        for one in running:
            with contextlib.suppress(ProcessLookupError):
                one.signal(signal.SIGTERM)
        until = time.monotonic() + END_SECONDS
        for one in running:
            assert one.process is not None
            one.process.join(max(until - time.monotonic(), 0.0))
            if one.process.exitcode not in {0, *one.dies_by}:
                self.unexpected.append(f"{one.id} did not end well when it was told to (exit {one.process.exitcode})")


def _as_ctrl_c(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextmanager
def running_cluster(
    *,
    services: int,
    workers: int,
    lease_seconds: float,
    epoch_seconds: float,
    fault_rate: float,
    seed: int,
) -> Iterator[Cluster]:
    """A cluster whose services answer; its workers start with the first `keep_alive`.

    epoch_seconds: of an epoch on the average. fault_rate: the part of requests that meet a fault on their way.
    """
    forkserver.ensure_running()  # it imports while the rest starts
    with ExitStack() as stack:
        if threading.current_thread() is threading.main_thread():
            before = signal.signal(signal.SIGTERM, _as_ctrl_c)
            stack.callback(signal.signal, signal.SIGTERM, before)
        postgresql = stack.enter_context(running_postgresql(DURABLE))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="arena-notes-")))
        database = postgresql.new_database()
        served = [Service(database, lease_seconds, folder / f"service-{number}.log") for number in range(services)]
        proxy = Proxy([service.port for service in served], fault_rate, seed)
        proxy.start()
        cluster = Cluster(postgresql, database, served, proxy, workers, folder=folder, epoch_seconds=epoch_seconds)
        stack.callback(cluster.close)
        for service in served:
            service.start()
        for service in served:
            service.wait_until_ready()
        yield cluster
