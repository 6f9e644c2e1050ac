"""Lets claims wait for a ready trial without holding a thread each: one look at the database for all."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Engine
from starlette.concurrency import run_in_threadpool

from service.claiming import Group, ready_groups
from service.clock import Clock
from service.database import ChangeSignal, is_away, reading, without_statement
from service.roster import Asking

log = logging.getLogger(__name__)

BUSY_POLL_SECONDS = 0.005
"""How long after a look that found a change the next one follows."""
POLL_SECONDS = 0.02
"""How long after one that found none."""
AWAY_SECONDS = 1.0
"""How long after one that found no database."""


@dataclass(eq=False)
class _Waiting:
    asking: Asking
    future: asyncio.Future[bool]


class ReadyWatch:
    """Wakes as many waiting claims as there are ready trials for. Looks only while somebody waits."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock
        self._signal = ChangeSignal(engine)
        self._waiting: list[_Waiting] = []
        self._someone_came = False
        self._ended = False
        self._looking: asyncio.Task[None] | None = None

    async def wait(self, asking: Asking, timeout_seconds: float) -> bool:
        """Wait until there may be a trial for this claim, those that have waited longest first; False if none came."""
        if self._ended:
            return False
        one = _Waiting(asking, asyncio.get_running_loop().create_future())
        self._waiting.append(one)
        self._someone_came = True  # what became ready since it last asked is not missed
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        try:
            return await asyncio.wait_for(one.future, timeout_seconds)
        except TimeoutError:
            return False
        finally:
            if one in self._waiting:
                self._waiting.remove(one)

    def end(self) -> None:
        """Let every claim that waits, now or later, return at once: the process is about to stop.

        For the event loop's own thread, as signal handlers of asyncio servers are.
        """
        self._ended = True
        for one in self._waiting:
            if not one.future.done():
                one.future.set_result(False)

    async def close(self) -> None:
        """Stop looking."""
        if self._looking is not None:
            self._looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._looking
        self._signal.close()

    async def _look(self) -> None:
        while self._waiting:
            someone_came, self._someone_came = self._someone_came, False
            try:
                groups = await run_in_threadpool(self._groups, someone_came)
            except Exception as error:
                if not is_away(error):
                    self._fail(error)
                    raise
                log.warning("the database is busy or away, looking again: %s", without_statement(error))
                self._someone_came = True
                await asyncio.sleep(AWAY_SECONDS)
                continue
            self._wake(groups or ())
            await asyncio.sleep(POLL_SECONDS if groups is None else BUSY_POLL_SECONDS)

    def _groups(self, someone_came: bool) -> list[Group] | None:
        """What is ready; None if nothing has changed since the last look."""
        if not self._signal.changed() and not someone_came:
            return None
        with reading(self._engine) as connection:
            return ready_groups(connection, self._clock())

    def _wake(self, groups: Sequence[Group]) -> None:
        for group in groups:
            left = group.number
            for one in list(self._waiting):
                if left and not one.future.done() and group.suits(one.asking):
                    one.future.set_result(True)
                    self._waiting.remove(one)
                    left -= 1

    def _fail(self, error: Exception) -> None:
        for one in self._waiting:
            if not one.future.done():
                one.future.set_exception(error)
