"""What is written to a connection at one go is sent at one go, and nothing is kept for long."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
from collections.abc import Callable
from typing import Any, cast

import uvicorn
from starlette.types import Receive, Scope, Send

from service.joined_writes import MOST_BYTES, JoinedWrites, JoinedWritesProtocol


class Wire:
    """What a transport was told, in order."""

    def __init__(self) -> None:
        self.told: list[bytes | str] = []

    def write(self, data: bytes) -> None:
        self.told.append(data)

    def close(self) -> None:
        self.told.append("close")

    def is_closing(self) -> bool:
        return "close" in self.told


def told(use: Callable[[Any, Wire], None]) -> list[bytes | str]:
    """What the wire was told by the end of a turn of the loop."""

    async def turn() -> list[bytes | str]:
        wire = Wire()
        use(JoinedWrites(cast(asyncio.Transport, wire)), wire)
        await asyncio.sleep(0)
        return wire.told

    return asyncio.run(turn())


def test_what_is_written_in_a_turn_is_sent_once_and_in_order() -> None:
    def use(joined: JoinedWrites, wire: Wire) -> None:
        joined.write(b"head ")
        joined.write(b"body")
        assert wire.told == []

    assert told(use) == [b"head body"]


def test_a_close_sends_what_is_kept_first() -> None:
    def use(joined: JoinedWrites, wire: Wire) -> None:
        joined.write(b"last")
        joined.close()
        assert wire.told == [b"last", "close"]
        assert joined.is_closing()

    assert told(use) == [b"last", "close"]


def test_no_more_than_a_little_is_kept() -> None:
    def use(joined: JoinedWrites, wire: Wire) -> None:
        joined.write(b"a")
        joined.write(b"b" * MOST_BYTES)
        assert wire.told == [b"a" + b"b" * MOST_BYTES]
        joined.write(b"c")

    assert told(use)[1:] == [b"c"]


def test_uvicorn_serves_over_it_answers_of_any_length() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        parts = int(scope["path"].strip("/"))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(parts):
            await send({"type": "http.response.body", "body": json.dumps([number] * 1000).encode(), "more_body": True})
        await send({"type": "http.response.body"})

    server = uvicorn.Server(
        uvicorn.Config(app, http=JoinedWritesProtocol, log_config=None, access_log=False, lifespan="off")
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        port = listener.getsockname()[1]
        try:
            for parts in (0, 1, 500):
                body = "".join(json.dumps([number] * 1000) for number in range(parts))
                assert _get(port, parts) == body
        finally:
            server.should_exit = True
            thread.join()


def _get(port: int, parts: int) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", f"/{parts}")
    body = connection.getresponse().read().decode()
    connection.close()
    return body
