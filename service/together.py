"""Messages that come in while a transaction runs share the next one: a statement serves many, and so does a commit."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Generic, TypeVar

from sqlalchemy import Connection, Engine

from service.database import writing

MOST = 64
"""So many messages share a transaction at most."""
CLOSE_SECONDS = 5.0

_Message = TypeVar("_Message")
_Reply = TypeVar("_Reply")
_Result = TypeVar("_Result")
_Errand = Callable[[], None]


@dataclass(eq=False)
class _Waiting(Generic[_Message, _Reply]):
    message: _Message
    future: asyncio.Future[_Reply]


_Batch = list[_Waiting[_Message, _Reply]]
_Replies = Sequence[_Reply | Exception]


class Together(Generic[_Message, _Reply]):
    """One kind of message, accepted many at a time, one transaction after the other.

    accept: takes messages in a transaction, in a thread, and gives a reply for each; if it raises for several, each is
    tried alone. subjects: what a message is about; messages about the same thing never share a transaction.
    at_once: if given, is tried first, in the event loop; it replies None to those that `accept` has to take.
    """

    def __init__(
        self,
        engine: Engine,
        accept: Callable[[Connection, Sequence[_Message]], Sequence[_Reply]],
        subjects: Callable[[_Message], Sequence[Hashable]],
        at_once: Callable[[Sequence[_Message]], Awaitable[Sequence[_Reply | None]]] | None = None,
    ) -> None:
        self._engine = engine
        self._accept = accept
        self._subjects = subjects
        self._at_once = at_once
        self._waiting: _Batch[_Message, _Reply] = []
        self._working: asyncio.Task[None] | None = None
        self._thread: _Thread | None = None

    async def accept(self, message: _Message) -> _Reply:
        """The reply to a message, once it is committed. Raises what `accept` raises for it."""
        one = _Waiting[_Message, _Reply](message, asyncio.get_running_loop().create_future())
        self._waiting.append(one)
        if self._working is None:
            self._working = asyncio.create_task(self._work())
        return await one.future

    async def close(self) -> None:
        """End what runs once it is done, or leave it alone with a database that hangs."""
        if self._working is not None:
            await asyncio.wait([self._working], timeout=CLOSE_SECONDS)
        if self._thread is not None:
            self._thread.end()
            self._thread = None

    async def _work(self) -> None:
        while batch := self._next():
            replies = await self._replies([one.message for one in batch])
            for one, reply in zip(batch, replies, strict=True):
                if one.future.done():  # nobody waits for it any more
                    continue
                if isinstance(reply, Exception):
                    one.future.set_exception(reply)
                else:
                    one.future.set_result(reply)
        self._working = None

    def _next(self) -> _Batch[_Message, _Reply]:
        batch: _Batch[_Message, _Reply] = []
        met: set[Hashable] = set()
        for one in self._waiting:
            about = set(self._subjects(one.message))
            if len(batch) < MOST and not about & met:
                batch.append(one)
            met |= about  # messages about the same thing stay in their order
        self._waiting = [one for one in self._waiting if one not in batch]
        return batch

    async def _replies(self, messages: Sequence[_Message]) -> _Replies[_Reply]:
        if self._at_once is None:
            return await self._in_thread(messages)
        try:
            first = await self._at_once(messages)
        except Exception as error:  # noqa: BLE001 - raised again for each of them
            return [error] * len(messages)
        left = [message for message, reply in zip(messages, first, strict=True) if reply is None]
        others = iter(await self._in_thread(left) if left else ())
        return [next(others) if reply is None else reply for reply in first]

    async def _in_thread(self, messages: Sequence[_Message]) -> _Replies[_Reply]:
        if self._thread is None:
            self._thread = _Thread()
        return await self._thread.run(lambda: self._accepted(messages))

    def _accepted(self, messages: Sequence[_Message]) -> _Replies[_Reply]:
        try:
            with writing(self._engine) as connection:
                return self._accept(connection, messages)
        except Exception as error:  # noqa: BLE001 - raised again for the one that it belongs to
            if len(messages) == 1:
                return [error]
        return [reply for message in messages for reply in self._accepted([message])]


class _Thread:
    """A thread of its own: the others may all be waiting for the database. It holds nobody up who wants to end."""

    def __init__(self) -> None:
        self._errands: SimpleQueue[_Errand | None] = SimpleQueue()
        threading.Thread(target=self._run, daemon=True).start()

    async def run(self, work: Callable[[], _Result]) -> _Result:
        """What `work` gives; it must not raise."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[_Result] = loop.create_future()

        def settle(result: _Result) -> None:
            if not done.done():  # nobody waits for it any more
                done.set_result(result)

        self._errands.put(lambda: _tell(loop, settle, work()))
        return await done

    def end(self) -> None:
        """End it once it is done with what it has begun."""
        self._errands.put(None)

    def _run(self) -> None:
        while (errand := self._errands.get()) is not None:
            errand()


def _tell(loop: asyncio.AbstractEventLoop, settle: Callable[[_Result], None], result: _Result) -> None:
    with suppress(RuntimeError):  # the loop was closed, and nobody waits any more
        loop.call_soon_threadsafe(settle, result)
