"""What is wished of a run while it runs."""

from __future__ import annotations

from typing import Literal


class Control:
    """A wish, set by one thread and looked at by the training one after every batch.

    `stop`: end now, with what there is as the result; `drop`: end now, without a result. The first to be
    dropped stays dropped.
    """

    def __init__(self) -> None:
        self.wish: Literal["stop", "drop"] | None = None

    def stop(self) -> None:
        """Wish for an early end."""
        if self.wish is None:
            self.wish = "stop"

    def drop(self) -> None:
        """Wish for an end without a result."""
        self.wish = "drop"
