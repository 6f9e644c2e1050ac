"""Slows those down who try tokens that are not good, address by address. Pure: the time comes in as `now`.

A good token is looked at first and never slowed, so that nobody can shut others out, not even from behind the same
proxy. What is kept off is the load of endless tries; that no try succeeds is due to the tokens' length.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass

from service.clock import SECOND, Instant

FREE_FAILURES = 10
"""So many failures of an address are answered at once."""
FIRST_WAIT = SECOND
LONGEST_WAIT = 60 * SECOND
FORGIVEN_AFTER = 600 * SECOND
"""An address without a failure for so long begins anew."""
MAX_ADDRESSES = 10_000
"""So many addresses are remembered, those with the latest failures."""


@dataclass(frozen=True)
class Failures:
    """The failures of one address: how many, and when the last one was."""

    count: int
    last: Instant


def after_failure(before: Failures | None, now: Instant) -> Failures:
    """The record with one more failure."""
    return Failures(1 if before is None or _forgiven(before, now) else before.count + 1, now)


def wait_of(failures: Failures | None, now: Instant) -> int:
    """How long the address has to wait before its next try is looked at, in microseconds; 0 if it need not.

    1 s after the 10th failure, doubled with each one after it, up to 60 s.
    """
    if failures is None or failures.count < FREE_FAILURES or _forgiven(failures, now):
        return 0
    wait = min(FIRST_WAIT << min(failures.count - FREE_FAILURES, 30), LONGEST_WAIT)
    return max(failures.last + wait - now, 0)


def _forgiven(failures: Failures, now: Instant) -> bool:
    return not 0 <= now - failures.last < FORGIVEN_AFTER  # a clock that was put back does not lock anybody out


class Throttle:
    """Remembers the failures of a bounded number of addresses."""

    def __init__(self) -> None:
        self._failures: OrderedDict[str, Failures] = OrderedDict()

    def __len__(self) -> int:
        return len(self._failures)

    def wait(self, address: str, now: Instant) -> int:
        """How long this address has to wait, in microseconds."""
        return wait_of(self._failures.get(network_of(address)), now)

    def failed(self, address: str, now: Instant) -> None:
        """Count a failure of this address."""
        network = network_of(address)
        self._failures[network] = after_failure(self._failures.get(network), now)
        self._failures.move_to_end(network)
        if len(self._failures) > MAX_ADDRESSES:
            self._failures.popitem(last=False)


def network_of(address: str) -> str:
    """What counts as one address: of IPv6 the first 64 bits, which one customer has all the rest of.

    >>> network_of("2001:db8::1:2"), network_of("192.0.2.7")
    ('2001:db8::', '192.0.2.7')
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Address(int(parsed) >> 64 << 64))
