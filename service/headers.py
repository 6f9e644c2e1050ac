"""The headers that every answer carries, whatever made it: nothing here is to be guessed at, framed, cached or run."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.types import Message, Send

SAFE: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_SAFE = [(name.lower().encode(), value.encode()) for name, value in SAFE.items()]
"""A route that answers with a page of its own sets another Content-Security-Policy, which then stays."""


def with_safe_headers(send: Send) -> Send:
    """A `send` that adds to the beginning of an answer those of the headers that it lacks."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = message.setdefault("headers", [])
            present = {name.lower() for name, _ in headers}
            message["headers"] = [*headers, *(header for header in _SAFE if header[0] not in present)]
        await send(message)

    return sending
