"""Uvicorn's HTTP protocol, but that what is written to a connection at one go is sent at one go.

Uvicorn writes the head of an answer and then its body, and each would be a system call, a packet, and a waking of
whoever reads it: for answers as small as most are here, that is more work than all the rest of HTTP.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_BYTES = 65_536
"""So much is kept back at most: a long answer is sent piece by piece, and the transport says when to wait."""


class JoinedWrites:
    """A transport that sends what was written to it once the event loop's turn is over."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._kept: list[bytes] = []
        self._size = 0

    def write(self, data: bytes) -> None:
        """Send `data` soon."""
        if not self._kept:
            self._loop.call_soon(self._flush)
        self._kept.append(data)
        self._size += len(data)
        if self._size > MOST_BYTES:
            self._flush()

    def close(self) -> None:
        """Send what is kept, then close."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        kept, self._kept, self._size = self._kept, [], 0
        if kept:
            self._transport.write(b"".join(kept))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class JoinedWritesProtocol(HttpToolsProtocol):
    """For `uvicorn.Config(http=...)`."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, as uvicorn's does."""
        super().connection_made(cast(asyncio.Transport, JoinedWrites(transport)))
