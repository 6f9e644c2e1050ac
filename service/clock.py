"""The one clock of the service. Instants are integers: microseconds since 1970, UTC."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

Instant = int
Clock = Callable[[], Instant]

SECOND = 1_000_000


def system_clock() -> Instant:
    """Now, by the machine's clock."""
    return time.time_ns() // 1000


def iso(instant: Instant) -> str:
    """An instant as people read it: ISO 8601 in UTC, to the microsecond."""
    return datetime.fromtimestamp(instant / SECOND, UTC).isoformat(timespec="microseconds")


def iso_or_none(instant: Instant | None) -> str | None:
    """The same, None for None."""
    return None if instant is None else iso(instant)
