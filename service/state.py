"""What the routes share: settings, engine, clock; and the dependencies that hand them out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy import Connection, Engine

from service.clock import Clock
from service.database import reading, writing
from service.settings import Settings
from service.waiting import ReadyWatch


@dataclass(frozen=True)
class Arena:
    """The state of one web process; nothing in it that the database does not hold."""

    settings: Settings
    engine: Engine
    clock: Clock
    ready: ReadyWatch


def arena(request: Request) -> Arena:
    """The state of this process."""
    state: Arena = request.app.state.arena
    return state


ArenaState = Annotated[Arena, Depends(arena)]


def _reading(state: ArenaState) -> Iterator[Connection]:
    with reading(state.engine) as connection:
        yield connection


def _writing(state: ArenaState) -> Iterator[Connection]:
    with writing(state.engine) as connection:
        yield connection


# One request, one transaction, over before the answer is sent: an answer that was sent is committed.
Reading = Annotated[Connection, Depends(_reading, scope="function")]
Writing = Annotated[Connection, Depends(_writing, scope="function")]
