"""A load balancer with a bad network: drops, cuts, delays and doubles requests between workers and services.

Each request gets a connection of its own, and goes to one of the services that take it, drawn at random.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import threading
from collections import Counter
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any

KINDS = ("request dropped", "answer dropped", "answer cut off", "delayed", "duplicated", "replayed")
LONGEST_DELAY_SECONDS = 3.0
LONGEST_REPLAY_SECONDS = 20.0
CONNECTION = re.compile(rb"\r\nconnection:[^\r]*", re.IGNORECASE)
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Decks:
    """Draws from a deck that is shuffled anew when it is through, so that nothing stays out for long."""

    def __init__(self, cards: Sequence[str], chance: random.Random) -> None:
        self._cards = list(cards)
        self._chance = chance
        self._deck: list[str] = []

    def draw(self) -> str:
        """The next card."""
        if not self._deck:
            self._deck = self._chance.sample(self._cards, len(self._cards))
        return self._deck.pop()


class Proxy:
    """Listens on a loopback port in a thread of its own.

    ports: of the services. fault_rate: the part of requests that meet a fault; `faults` counts them by kind.
    """

    def __init__(self, ports: Sequence[int], fault_rate: float, seed: int) -> None:
        self._ports = list(ports)
        self._fault_rate = fault_rate
        self._chance = random.Random(seed)
        self._decks = Decks(KINDS, self._chance)
        self.faults: Counter[str] = Counter()
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._calm = asyncio.Event()
        self._end = asyncio.Event()
        self._listening = threading.Event()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._serve()), daemon=True)

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()
        self._listening.wait()

    def calm(self) -> None:
        """Do no more harm; what was to be replayed later is replayed now."""
        self._fault_rate = 0.0
        self._loop.call_soon_threadsafe(self._calm.set)

    def close(self) -> None:
        """Stop listening."""
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()
        self._loop.close()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0, backlog=512)
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        await self._end.wait()
        server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._start(self._answer(reader, writer))

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer), contextlib.suppress(OSError, asyncio.IncompleteReadError):
            request = await _read_request(reader)
            exchange = self._start(self._exchange(request, writer))
            gone = asyncio.ensure_future(reader.read(1))
            # A client that is dead wants no answer, and a claim of its no trial.
            await asyncio.wait([exchange, gone], return_when=asyncio.FIRST_COMPLETED)
            exchange.cancel()
            gone.cancel()
            await asyncio.gather(exchange, gone, return_exceptions=True)

    async def _exchange(self, request: bytes, writer: asyncio.StreamWriter) -> None:
        fault = self._decks.draw() if self._chance.random() < self._fault_rate else ""
        if fault:
            self.faults[fault] += 1
        match fault:
            case "request dropped":
                return
            case "delayed":
                await self._wait(self._chance.uniform(0.05, LONGEST_DELAY_SECONDS))
            case "replayed":
                self._start(self._replay(request))
            case "duplicated":
                twice = await asyncio.gather(self._ask(request), self._ask(request))
                writer.write(self._chance.choice([answer for answer in twice if answer] or [b""]))
                await writer.drain()
                return
        answer = await self._ask(request)
        if fault == "answer dropped":
            return
        writer.write(answer[: len(answer) // 2] if fault == "answer cut off" else answer)
        await writer.drain()

    async def _replay(self, request: bytes) -> None:
        await self._wait(self._chance.uniform(0.5, LONGEST_REPLAY_SECONDS))
        await self._ask(request)

    async def _wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._calm.wait(), seconds)

    async def _ask(self, request: bytes) -> bytes:
        """What a service answers; what came of it if the service dies meanwhile, nothing if there is none."""
        for port in self._chance.sample(self._ports, len(self._ports)):
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                continue
            answer = bytearray()
            with closing(writer), contextlib.suppress(OSError):
                writer.write(request)
                while part := await reader.read(65_536):
                    answer += part
            return bytes(answer)
        return b""


async def _read_request(reader: asyncio.StreamReader) -> bytes:
    """A whole request, changed to one that ends its connection."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = LENGTH.search(head)
    body = await reader.readexactly(int(length[1])) if length else b""
    return CONNECTION.sub(b"", head[:-4]) + b"\r\nConnection: close\r\n\r\n" + body


@contextlib.contextmanager
def closing(writer: asyncio.StreamWriter) -> Iterator[None]:
    """Close the connection at the end, without a word of it to the other side."""
    try:
        yield
    finally:
        writer.close()
