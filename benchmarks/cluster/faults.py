"""Which process dies next, and how: kills at random instants, of everything that runs, by turns."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.cluster.cluster import Cluster, Worker
from benchmarks.cluster.notes import SUFFIX, read_notes
from benchmarks.cluster.proxy import Decks
from benchmarks.cluster.services import DIRECTOR, WEB, Service

DECK: Mapping[str, int] = {
    "worker killed": 4,
    "training process killed": 4,
    "worker frozen": 2,
    "worker told to end": 1,
    "web process killed": 2,
    "director killed": 2,
    "service killed": 1,
    "PostgreSQL killed": 2,
}
"""The faults, and how often each comes in a round; the first round has each of them once."""
MOST_CRASHES = 2
"""So often at most the training process of one trial is killed: with one crash more the trial would be failed, and
rightly so."""


class Faults:
    """Does a fault every now and then; `done` counts them by kind.

    pause: the shortest and the longest time between two, in seconds. away: the same of PostgreSQL's absences. most:
    after so many faults there are no more.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        lease_seconds: float,
        pause: tuple[float, float],
        away: tuple[float, float],
        seed: int,
        most: int | None = None,
    ) -> None:
        self._cluster = cluster
        self._away = away
        self._most = most
        self._lease_seconds = lease_seconds
        self._pause = pause
        self._chance = random.Random(seed)
        self._first = self._chance.sample(sorted(DECK), len(DECK))
        self._decks = Decks([kind for kind, times in DECK.items() for _ in range(times)], self._chance)
        self._next_at = time.monotonic() + self._chance.uniform(*pause)
        self._later: list[tuple[float, Callable[[], None]]] = []
        self._crashes: Counter[int] = Counter()
        self.done: Counter[str] = Counter()
        self._ways: Mapping[str, Callable[[], bool]] = {
            "worker killed": self._kill_worker,
            "training process killed": self._kill_trainer,
            "worker frozen": self._freeze_worker,
            "worker told to end": self._end_worker,
            "web process killed": lambda: self._kill_child(WEB),
            "director killed": lambda: self._kill_child(DIRECTOR),
            "service killed": self._kill_service,
            "PostgreSQL killed": self._kill_postgresql,
        }

    def step(self, now: float) -> None:
        """Do what is due."""
        for due in [due for due in self._later if due[0] <= now]:
            self._later.remove(due)
            due[1]()
        if now < self._next_at or (self._most is not None and self.done.total() >= self._most):
            return
        kind = self._first.pop() if self._first else self._decks.draw()
        if self._ways[kind]():
            self.done[kind] += 1
        elif not self.done[kind]:
            self._first.insert(0, kind)  # nothing there to be hit just now
        self._next_at = time.monotonic() + self._chance.uniform(*self._pause)

    def finish(self) -> None:
        """Take back what would have been taken back later."""
        for _, action in self._later:
            action()
        self._later.clear()

    # --- the ways; each tells whether there was something to hit

    def _worker(self) -> Worker | None:
        alive = [
            one
            for one in self._cluster.workers
            if one.process is not None and one.process.exitcode is None and not one.dies_by and not one.frozen
        ]
        return self._chance.choice(alive) if alive else None

    def _kill_worker(self) -> bool:
        if (one := self._worker()) is None:
            return False
        one.dies_by.add(-signal.SIGKILL)
        one.start_at = time.monotonic() + self._chance.uniform(0.0, 2.0)
        one.signal(signal.SIGKILL)
        return True

    def _end_worker(self) -> bool:
        if (one := self._worker()) is None:
            return False
        one.dies_by.add(0)
        one.signal(signal.SIGTERM)
        return True

    def _freeze_worker(self) -> bool:
        """Stop a worker, perhaps its training process, too, for longer than its lease, so that it comes back late."""
        if (one := self._worker()) is None or one.process is None or one.process.pid is None:
            return False
        trainer = one.trainer() if self._chance.random() < 0.5 else None
        one.frozen = [one.process.pid, *([trainer] if trainer is not None else [])]
        for pid in one.frozen:
            _send(pid, signal.SIGSTOP)
        seconds = self._lease_seconds + self._chance.uniform(1.0, 4.0)
        self._later.append((time.monotonic() + seconds, lambda: self._thaw(one)))
        return True

    def _thaw(self, one: Worker) -> None:
        for pid in one.frozen:
            _send(pid, signal.SIGCONT)
        one.frozen = []

    def _kill_trainer(self) -> bool:
        if (one := self._worker()) is None or (pid := one.trainer()) is None:
            return False
        trial = self._trained_by(one)
        if trial is None or self._crashes[trial] >= MOST_CRASHES:
            return False
        self._crashes[trial] += 1
        _send(pid, signal.SIGKILL)
        return True

    def _trained_by(self, one: Worker) -> int | None:
        """The trial whose training is not over, by the training process' own notes."""
        last: dict[str, Any] = {}
        for note in read_notes(self._cluster.folder, f"{one.id}-trainer{SUFFIX}"):
            last = note
        return int(last["trial"]) if last and last["event"] in ("started", "epoch") else None

    def _service(self) -> Service:
        return self._chance.choice(self._cluster.services)

    def _kill_child(self, module: str) -> bool:
        if (pid := self._service().child(module)) is None:
            return False
        _send(pid, signal.SIGKILL)
        return True

    def _kill_service(self) -> bool:
        self._service().kill()
        return True

    def _kill_postgresql(self) -> bool:
        self._cluster.postgresql.kill()
        time.sleep(self._chance.uniform(*self._away))
        self._cluster.postgresql.start()
        return True


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
