"""Messages that come in while a transaction runs share the next one: a statement serves many, and so does a commit."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Hashable, Sequence
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


@dataclass(eq=False)
class _Waiting(Generic[_Message, _Reply]):
    message: _Message
    future: asyncio.Future[_Reply]


_Batch = list[_Waiting[_Message, _Reply]]


class Together(Generic[_Message, _Reply]):
    """One kind of message, accepted many at a time, one transaction after the other, by a thread of its own.

    accept: takes messages in a transaction and gives a reply for each; if it raises for several, each is tried alone.
    subjects: what a message is about; messages about the same thing never share a transaction.
    at_once: if given, is tried first; it replies None to those that `accept` has to take.
    """

    def __init__(
        self,
        engine: Engine,
        accept: Callable[[Connection, Sequence[_Message]], Sequence[_Reply]],
        subjects: Callable[[_Message], Sequence[Hashable]],
        at_once: Callable[[Sequence[_Message]], Sequence[_Reply | None]] | None = None,
    ) -> None:
        self._engine = engine
        self._accept = accept
        self._subjects = subjects
        self._at_once = at_once
        self._waiting: list[_Waiting[_Message, _Reply]] = []
        self._batches: SimpleQueue[_Batch[_Message, _Reply] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._working = False

    async def accept(self, message: _Message) -> _Reply:
        """The reply to a message, once it is committed. Raises what `accept` raises for it."""
        loop = asyncio.get_running_loop()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, args=[loop], daemon=True)
            self._thread.start()
        one = _Waiting[_Message, _Reply](message, loop.create_future())
        self._waiting.append(one)
        if not self._working:
            self._begin()
        return await one.future

    async def close(self) -> None:
        """End the thread once it is done with what it has begun, or leave it alone with a database that hangs."""
        if self._thread is not None:
            self._batches.put(None)
            await asyncio.to_thread(self._thread.join, CLOSE_SECONDS)
            self._thread = None

    def _begin(self) -> None:
        batch = self._next()
        self._working = bool(batch)
        if batch:
            self._batches.put(batch)

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        while (batch := self._batches.get()) is not None:
            replies = self._replies([one.message for one in batch])
            with suppress(RuntimeError):  # the loop was closed, and nobody waits any more
                loop.call_soon_threadsafe(self._settle, batch, replies)

    def _settle(self, batch: _Batch[_Message, _Reply], replies: Sequence[_Reply | Exception]) -> None:
        self._begin()
        for one, reply in zip(batch, replies, strict=True):
            if one.future.done():  # nobody waits for it any more
                continue
            if isinstance(reply, Exception):
                one.future.set_exception(reply)
            else:
                one.future.set_result(reply)

    def _next(self) -> list[_Waiting[_Message, _Reply]]:
        batch: list[_Waiting[_Message, _Reply]] = []
        met: set[Hashable] = set()
        for one in self._waiting:
            about = set(self._subjects(one.message))
            if len(batch) < MOST and not about & met:
                batch.append(one)
            met |= about  # messages about the same thing stay in their order
        self._waiting = [one for one in self._waiting if one not in batch]
        return batch

    def _replies(self, messages: Sequence[_Message]) -> Sequence[_Reply | Exception]:
        if self._at_once is None:
            return self._accepted(messages)
        try:
            first = self._at_once(messages)
        except Exception as error:  # noqa: BLE001 - raised again for each of them
            return [error] * len(messages)
        left = [message for message, reply in zip(messages, first, strict=True) if reply is None]
        others = iter(self._accepted(left) if left else ())
        return [next(others) if reply is None else reply for reply in first]

    def _accepted(self, messages: Sequence[_Message]) -> Sequence[_Reply | Exception]:
        try:
            with writing(self._engine) as connection:
                return self._accept(connection, messages)
        except Exception as error:  # noqa: BLE001 - raised again for the one that it belongs to
            if len(messages) == 1:
                return [error]
        return [reply for message in messages for reply in self._accepted([message])]
