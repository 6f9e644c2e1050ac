"""What the routes share: settings, engine, clock.

A route opens its transaction itself, in the one function that a thread runs for it: opened by a
dependency, which is a thread's errand of its own, it would hold its lock while it waits for a thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy import Engine

from service.clock import Clock
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
