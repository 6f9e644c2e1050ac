"""Lets claims wait for a ready trial without holding a thread each: one look at the database for all."""

from __future__ import annotations

import asyncio
import contextlib

from sqlalchemy import Engine
from starlette.concurrency import run_in_threadpool

from service.database import ChangeSignal

POLL_SECONDS = 0.02


class ReadyWatch:
    """Wakes every waiting claim when anybody has committed. Looks only while somebody waits."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._signal: ChangeSignal | None = None
        self.seen = 0
        """How many changes have been noticed so far; read it before looking, and give it to `wait`."""
        self._waiting: set[asyncio.Future[None]] = set()
        self._ended = False
        self._looking: asyncio.Task[None] | None = None

    async def wait(self, seen: int, timeout_seconds: float) -> bool:
        """Wait until something was committed since `seen` was read; False if nothing was in this time."""
        if self.seen != seen or self._ended:
            return not self._ended
        future = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        try:
            await asyncio.wait_for(future, timeout_seconds)
        except TimeoutError:
            return False
        finally:
            self._waiting.discard(future)
        return not self._ended

    def end(self) -> None:
        """Let every claim that waits, now or later, return at once: the process is about to stop.

        For the event loop's own thread, as signal handlers of asyncio servers are.
        """
        self._ended = True
        self._wake()

    async def close(self) -> None:
        """Stop looking."""
        if self._looking is not None:
            self._looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._looking
        if self._signal is not None:
            self._signal.close()

    async def _look(self) -> None:
        try:
            while self._waiting:
                if await run_in_threadpool(self._changed):
                    self.seen += 1
                    self._wake()
                await asyncio.sleep(POLL_SECONDS)
        except Exception as error:
            for future in self._waiting:
                if not future.done():
                    future.set_exception(error)
            raise

    def _wake(self) -> None:
        for future in self._waiting:
            if not future.done():
                future.set_result(None)

    def _changed(self) -> bool:
        if self._signal is None:
            self._signal = ChangeSignal(self._engine)
        return self._signal.changed()
