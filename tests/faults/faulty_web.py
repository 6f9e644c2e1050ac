"""The web process with points to die at: before and after each commit and each answer, by route."""

from __future__ import annotations

import os
import socket
from contextvars import ContextVar
from typing import Any

from fastapi import FastAPI
from sqlalchemy import Engine
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import service.app
import service.web
from service.settings import Settings
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
                pass_point(f"web-{route}-after-answer")

        await self._app(scope, receive, answer)


def with_points(engine: Engine) -> Engine:
    commit = engine.dialect.do_commit

    def do_commit(connection: Any) -> None:
        pass_point(f"web-{_route.get()}-before-commit")
        commit(connection)
        pass_point(f"web-{_route.get()}-after-commit")

    engine.dialect.do_commit = do_commit
    return engine


def main(listener: socket.socket, settings: Settings, bombs: str) -> None:
    lay_in(bombs)
    open_database = service.app.open_database
    service.app.open_database = lambda url: with_points(open_database(url))
    create_app = service.web.create_app

    def create(settings: Settings) -> FastAPI:
        app = create_app(settings)
        app.add_middleware(Points)
        return app

    service.web.create_app = create
    lifeline, _held = os.pipe()  # never closed: these processes end by SIGKILL alone
    os.environ.update(settings.as_environment)
    service.web.main(str(listener.detach()), str(lifeline))
