"""The web process with points to die at: before and after each commit and each answer, by route."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from typing import Any

from fastapi import FastAPI
from sqlalchemy import Engine
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import service.faults
import service.roster
import service.web
from service.database import open_database
from service.own_connection import OwnConnection
from service.settings import Settings
from service.together import Together
from studies.protocol import ClaimRequest, ReleaseRequest, ReportRequest, ResultRequest
from tests.faults.bombs import lay_in, pass_point

_route: ContextVar[str] = ContextVar("route", default="none")


class Points:
    """ASGI middleware: knows the route, and passes the points around its answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        route = scope["path"].rsplit("/", 1)[-1]
        _route.set(route)

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                pass_point(f"web-{route}-before-answer")
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                # It is sent once the event loop's turn is over.
                asyncio.get_running_loop().call_soon(pass_point, f"web-{route}-after-answer")

        await self._app(scope, receive, answer)


def with_points(engine: Engine) -> Engine:
    commit = engine.dialect.do_commit

    def do_commit(connection: Any) -> None:
        pass_point(f"web-{_route.get()}-before-commit")
        commit(connection)
        pass_point(f"web-{_route.get()}-after-commit")

    engine.dialect.do_commit = do_commit
    return engine


_ROUTES: dict[object, str] = {
    ClaimRequest: "claims",
    ReportRequest: "reports",
    ResultRequest: "results",
    ReleaseRequest: "releases",
}


def by_message(accepted: Callable[..., Any]) -> Callable[..., Any]:
    """Messages that share a transaction are taken by a thread of their own, which does not know of the route."""

    def run(self: Any, messages: Sequence[Any]) -> Any:
        _route.set(_ROUTES[type(messages[0])])
        return accepted(self, messages)

    return run


def by_first_message(replies: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """The task that takes messages was begun by one of them, perhaps not of those that it takes now."""

    async def run(self: Any, messages: Sequence[Any]) -> Any:
        _route.set(_ROUTES[type(messages[0])])
        return await replies(self, messages)

    return run


def committing(use: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """The statements of most messages commit themselves."""

    async def run(*arguments: Any) -> Any:
        pass_point(f"web-{_route.get()}-before-commit")
        done = await use(*arguments)
        pass_point(f"web-{_route.get()}-after-commit")
        return done

    return run


def main(listener: socket.socket, settings: Settings, bombs: str) -> None:
    lay_in(bombs)
    # What is done about a cluster whose trainers all die is tried elsewhere; here it would hold the study up.
    service.roster.FIRST_BAR_SECONDS = 1
    service.faults.SAME_FAILURES = 1000
    Together._accepted = by_message(Together._accepted)
    Together._replies = by_first_message(Together._replies)
    OwnConnection.use = committing(OwnConnection.use)
    create_app = service.web.create_app

    def create(settings: Settings) -> FastAPI:
        app = create_app(settings, engine_of=lambda url: with_points(open_database(url)))
        app.add_middleware(Points)
        return app

    service.web.create_app = create
    lifeline, _held = os.pipe()  # never closed: these processes end by SIGKILL alone
    os.environ.update(settings.as_environment)
    service.web.main(str(listener.detach()), str(lifeline))
