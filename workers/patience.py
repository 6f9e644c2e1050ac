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
REMIND_SECONDS = 60.0
"""How often the log mentions an outage that goes on."""

_PASSING_STATUS = {408, 425, 429}
_Reply = TypeVar("_Reply")


class Patience:
    """Makes calls one at a time and paces the tries of one that fails.

    The delays double from FIRST_DELAY_SECONDS to LONGEST_DELAY_SECONDS, each shortened at random by up to
    a half, so that many workers do not come back in the same instant.
    """

    def __init__(self) -> None:
        self._failures = 0
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
            self._failed(error)
            return None
        if self._failures:
            log.info("the service answers again, after %.0f s", time.monotonic() - self._since)
            self._failures = 0
        return reply

    def delay(self) -> float:
        """How long to wait before the next try, in seconds."""
        longest = min(FIRST_DELAY_SECONDS * 2.0 ** min(self._failures - 1, 20), LONGEST_DELAY_SECONDS)
        return longest * random.uniform(0.5, 1.0)

    def _failed(self, error: ServiceError) -> None:
        now = time.monotonic()
        if self._failures == 0:
            self._since = self._reminded = now
            log.warning("%s; trying again until it answers, nothing is lost meanwhile", error)
        elif now - self._reminded >= REMIND_SECONDS:
            self._reminded = now
            log.warning("still, after %.0f s: %s", now - self._since, error)
        self._failures += 1
