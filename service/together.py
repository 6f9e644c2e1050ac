"""Messages that come in while a transaction runs share the next one: a statement serves many, and so does a commit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from sqlalchemy import Connection, Engine
from starlette.concurrency import run_in_threadpool

from service.database import writing

MOST = 64
"""So many messages share a transaction at most."""

_Message = TypeVar("_Message")
_Reply = TypeVar("_Reply")


@dataclass(eq=False)
class _Waiting(Generic[_Message, _Reply]):
    message: _Message
    future: asyncio.Future[_Reply]


class Together(Generic[_Message, _Reply]):
    """One kind of message, accepted many at a time, one transaction after the other.

    accept: takes messages in a transaction and gives a reply for each; if it raises for several, each is tried alone.
    subjects: what a message is about; messages about the same thing never share a transaction.
    """

    def __init__(
        self,
        engine: Engine,
        accept: Callable[[Connection, Sequence[_Message]], Sequence[_Reply]],
        subjects: Callable[[_Message], Sequence[Hashable]],
    ) -> None:
        self._engine = engine
        self._accept = accept
        self._subjects = subjects
        self._waiting: list[_Waiting[_Message, _Reply]] = []
        self._working: asyncio.Task[None] | None = None

    async def accept(self, message: _Message) -> _Reply:
        """The reply to a message, once it is committed. Raises what `accept` raises for it."""
        one = _Waiting[_Message, _Reply](message, asyncio.get_running_loop().create_future())
        self._waiting.append(one)
        if self._working is None or self._working.done():
            self._working = asyncio.create_task(self._work())
        return await one.future

    async def _work(self) -> None:
        while batch := self._next():
            replies = await run_in_threadpool(self._replies, [one.message for one in batch])
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
        try:
            with writing(self._engine) as connection:
                return self._accept(connection, messages)
        except Exception as error:  # noqa: BLE001 - raised again for the one that it belongs to
            if len(messages) == 1:
                return [error]
        return [reply for message in messages for reply in self._replies([message])]
