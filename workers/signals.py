"""How the worker is told to end."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def told_of_signals(tell: Callable[[str], None]) -> Iterator[None]:
    """Within, the first SIGTERM or SIGINT is told by its name; a SIGINT after that ends the process at once.

    Outside the main thread, where Python takes no signals, nothing is told.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    told = False

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal told
        if not told:
            told = True
            tell(signal.Signals(number).name)
        elif number == signal.SIGINT:
            os._exit(128 + number)

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
