"""Calling a service that may be away: what is worth another try, when, and what the log says meanwhile."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from studies.errors import Refused, ServiceError, Unreachable

log = logging.getLogger(__name__)

FIRST_DELAY_SECONDS = 0.25
LONGEST_DELAY_SECONDS = 30.0
LONGEST_RETRY_AFTER_SECONDS = 300.0
"""A service that asks for more patience than this is asked again all the same: its trials' leases run out."""
REMIND_SECONDS = 60.0
"""How often the log mentions an outage that goes on."""

_PASSING_STATUS = {408, 425, 429}
_Reply = TypeVar("_Reply")


class Patience:
    """Makes calls one at a time and paces the tries of one that fails.

    How long it waits between them, `delay_after` says.
    """

    def __init__(self) -> None:
        self._failures = 0
        self._retry_after: float | None = None
        self._since = 0.0
        self._reminded = 0.0

    def attempt(self, call: Callable[[], _Reply]) -> _Reply | None:
        """The reply, or None if the service is away or in trouble: then try again after `delay` seconds.

        Raises Refused for an answer that another try would not change.
        """
        try:
            reply = call()
        except (Unreachable, Refused) as error:
            if isinstance(error, Refused) and error.status < 500 and error.status not in _PASSING_STATUS:
                raise
            self._retry_after = error.retry_after_seconds if isinstance(error, Refused) else None
            self._failed(error)
            return None
        if self._failures:
            log.info("the service answers again, after %.0f s", time.monotonic() - self._since)
            self._failures = 0
        return reply

    def delay(self, longest: float = LONGEST_DELAY_SECONDS) -> float:
        """How long to wait before the next try, in seconds; no longer than this if the service does not ask for it."""
        return delay_after(self._failures, self._retry_after, random.random(), longest)

    def _failed(self, error: ServiceError) -> None:
        now = time.monotonic()
        if self._failures == 0:
            self._since = self._reminded = now
            log.warning("%s; trying again until it answers, nothing is lost meanwhile", error)
        elif now - self._reminded >= REMIND_SECONDS:
            self._reminded = now
            log.warning("still, after %.0f s: %s", now - self._since, error)
        self._failures += 1


def delay_after(
    failures: int, retry_after_seconds: float | None, chance: float, longest: float = LONGEST_DELAY_SECONDS
) -> float:
    """How long to wait after so many failed tries in a row, in seconds.

    The delays double from FIRST_DELAY_SECONDS to `longest`, each shortened by up to a half. Where
    the service has asked for a time itself, it is that time, lengthened by up to a quarter, if it is longer.
    chance: in [0, 1), drawn at random, so that many workers do not come back in the same instant.
    """
    delay = min(FIRST_DELAY_SECONDS * 2.0 ** min(failures - 1, 20), longest)
    asked_for = min(retry_after_seconds or 0.0, LONGEST_RETRY_AFTER_SECONDS)
    return max(delay * (0.5 + 0.5 * chance), asked_for * (1.0 + 0.25 * chance))
