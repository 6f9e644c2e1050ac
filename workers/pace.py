"""How much to do in one call, where a call should take a certain time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Pace:
    """Twice as much in the next call after a short one, half as much after a long one.

    seconds: what a call is to take at most, if one piece of work alone does not take longer.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._pieces = 1

    @contextmanager
    def call(self, left: int) -> Iterator[int]:
        """Around a call: how many pieces it is to do, of those that are left."""
        pieces = min(self._pieces, left)
        started = time.perf_counter()
        yield pieces
        took = time.perf_counter() - started
        if took > self._seconds:
            self._pieces = max(1, pieces // 2)
        elif took < self._seconds / 2 and pieces == self._pieces:
            self._pieces *= 2
