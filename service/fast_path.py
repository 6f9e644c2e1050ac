"""The short way of the workers' messages: a route is called without FastAPI's machinery, which costs more than it does.

Only what is right goes this way. A message that is not, or not plainly, what its route takes is passed on to
FastAPI as it came, so that errors are found and told of in one place.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import errors

Endpoint = Callable[[Any, Request], Awaitable[Response]]


@dataclass(frozen=True)
class _Route:
    message: type[BaseModel]
    endpoint: Endpoint


class FastPath:
    """ASGI middleware behind the gate; calls the endpoints of a router, each of which takes a message and a request."""

    def __init__(self, app: ASGIApp, router: APIRouter, prefix: str) -> None:
        self._app = app
        self._routes: Mapping[str, _Route] = {
            prefix + route.path: _Route(_message_of(route), route.endpoint)
            for route in router.routes
            if isinstance(route, APIRoute)
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a message here, or pass it on."""
        route = self._routes.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if route is None or not _is_plain_json(scope):
            await self._app(scope, receive, send)
            return
        body = await _read(receive)
        if body is None:
            return  # whoever asked has gone
        try:
            message = route.message.model_validate(json.loads(body))
        except (ValueError, RecursionError):  # ValidationError, JSONDecodeError and UnicodeDecodeError are ValueErrors
            await self._app(scope, _again(body, receive), send)
            return
        request = Request(scope, receive)
        try:
            response = await route.endpoint(message, request)
        except Exception as error:  # noqa: BLE001 - raised again if it is not one that is answered
            response = errors.answer_to(request, error)
        await response(scope, receive, send)


def _message_of(route: APIRoute) -> type[BaseModel]:
    (parameter,) = route.dependant.body_params
    message = parameter.field_info.annotation
    assert isinstance(message, type)
    assert issubclass(message, BaseModel)
    return message


def _is_plain_json(scope: Scope) -> bool:
    """Whether the body is JSON of a stated length, the whole of which the gate has allowed."""
    headers = dict(scope["headers"])
    if headers.get(b"content-type") != b"application/json":
        return False
    return b"content-length" in headers and b"transfer-encoding" not in headers


async def _read(receive: Receive) -> bytes | None:
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


def _again(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives a body, which has been read, once more."""
    given = False

    async def receiving() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receiving
