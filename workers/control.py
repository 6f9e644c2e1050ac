"""What is wished of a run while it runs, and what it tells by the way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from studies.protocol import Outcome


class Control:
    """A wish, set by one thread and looked at by the training one after every batch.

    `suspend`: end with the epoch that runs, in a checkpoint; `stop`: end now, with what there is as the
    result; `drop`: end now, without a result. A later one in this order takes the place of an earlier one.
    batch_ended: called by the training thread after every batch that is trained on, validated or scored.
    """

    def __init__(self, batch_ended: Callable[[], None] = lambda: None) -> None:
        self.wish: Literal["suspend", "stop", "drop"] | None = None
        self.batch_ended = batch_ended

    @property
    def to_end_now(self) -> bool:
        """Whether the run is to end before its next batch."""
        return self.wish in ("stop", "drop")

    def suspend(self) -> None:
        """Wish for a checkpoint at the epoch's end, and for the run to end there."""
        if self.wish is None:
            self.wish = "suspend"

    def stop(self) -> None:
        """Wish for an early end."""
        if self.wish != "drop":
            self.wish = "stop"

    def drop(self) -> None:
        """Wish for an end without a result."""
        self.wish = "drop"


class Ended(Exception):
    """Ends a training from within; without an outcome where nobody wants one."""

    def __init__(self, outcome: Outcome | None, reason: str = "") -> None:
        self.outcome = outcome
        self.reason = reason
