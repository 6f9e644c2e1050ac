"""Assembles the web application. The routes are in `service.routes`, the work is done elsewhere."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.routing import APIRoute

from service import errors, queue
from service.clock import Clock, system_clock
from service.database import migrate, open_database, writing
from service.routes import boards, catalogue, health, studies, trials, work
from service.settings import Settings
from service.state import Arena
from service.waiting import ReadyWatch
from studies.protocol import API_PREFIX


def create_app(settings: Settings, clock: Clock = system_clock) -> FastAPI:
    """The service as an ASGI application. Starting it migrates the database; its director runs beside it.

    clock: where the service takes the time from; tests give their own.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        engine = open_database(settings.database)
        migrate(engine)
        with writing(engine) as connection:
            queue.grant_grace(connection, clock(), settings.lease)
        app.state.arena = Arena(settings, engine, clock, ReadyWatch(engine))
        yield
        await app.state.arena.ready.close()
        engine.dispose()

    app = FastAPI(
        title="LR Arena",
        summary="Which learning-rate schedule wins on your task, and how sure that is.",
        version="1",
        lifespan=lifespan,
        generate_unique_id_function=_operation_id,
        redirect_slashes=False,
    )
    errors.install(app)
    app.include_router(health.router)
    for module in (studies, trials, boards, catalogue, work):
        app.include_router(module.router, prefix=API_PREFIX)
    return app


def _operation_id(route: APIRoute) -> str:
    return route.name
