"""Threads beside the main loop: if one ends with an error, the main loop is told and ends too."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class SideThreadFailed:
    """A thread has ended with an error; the worker must not go on without it."""

    error: BaseException


def start(name: str, run: Callable[[], None], tell: Callable[[SideThreadFailed], None]) -> threading.Thread:
    """Start a thread that does not keep the process alive, and tells of its own failure."""

    def guarded() -> None:
        try:
            run()
        except BaseException as error:  # noqa: BLE001 - not swallowed: the main loop raises it
            tell(SideThreadFailed(error))

    thread = threading.Thread(target=guarded, name=name, daemon=True)
    thread.start()
    return thread
