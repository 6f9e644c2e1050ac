"""How tries with tokens that are not good are slowed."""

from __future__ import annotations

from service.clock import SECOND
from service.throttle import MAX_ADDRESSES, Failures, Throttle, after_failure, network_of, wait_of


def after(count: int) -> Failures:
    failures = Failures(1, 0)
    for _ in range(count - 1):
        failures = after_failure(failures, 0)
    return failures


def test_the_wait_doubles_from_the_tenth_failure_on_up_to_a_minute() -> None:
    waits = [wait_of(after(count), 0) // SECOND for count in (1, 9, 10, 11, 12, 15, 16, 17, 100)]
    assert waits == [0, 0, 1, 2, 4, 32, 60, 60, 60]
    assert wait_of(after(12), 3 * SECOND) == SECOND
    assert wait_of(after(12), 4 * SECOND) == 0
    assert wait_of(None, 0) == 0


def test_ten_quiet_minutes_are_a_new_beginning_and_so_is_a_clock_put_back() -> None:
    many = Failures(50, 1000 * SECOND)
    assert after_failure(many, 1599 * SECOND) == Failures(51, 1599 * SECOND)
    assert after_failure(many, 1600 * SECOND) == Failures(1, 1600 * SECOND)
    assert (wait_of(many, 1000 * SECOND), wait_of(many, 999 * SECOND)) == (60 * SECOND, 0)


def test_addresses_do_not_slow_each_other() -> None:
    throttle = Throttle()
    for _ in range(20):
        throttle.failed("192.0.2.1", 0)
    assert throttle.wait("192.0.2.1", 0) > 0
    assert throttle.wait("192.0.2.2", 0) == 0


def test_whoever_has_many_addresses_of_ipv6_has_one_here() -> None:
    throttle = Throttle()
    for n in range(10):
        throttle.failed(f"2001:db8::{n:x}", 0)
    assert throttle.wait("2001:db8::ffff", 0) == SECOND
    assert throttle.wait("2001:db8:0:1::1", 0) == 0
    assert [network_of(a) for a in ("::ffff:192.0.2.1", "192.0.2.1", "not one")] == [
        "192.0.2.1",
        "192.0.2.1",
        "not one",
    ]


def test_a_bounded_number_of_addresses_is_remembered_the_latest_ones() -> None:
    throttle = Throttle()
    for n in range(MAX_ADDRESSES + 100):
        for _ in range(10):
            throttle.failed(f"10.{n // 65536}.{n // 256 % 256}.{n % 256}", 0)
    assert len(throttle) == MAX_ADDRESSES
    assert throttle.wait("10.0.0.0", 0) == 0
    assert throttle.wait(f"10.0.{(MAX_ADDRESSES + 99) // 256}.{(MAX_ADDRESSES + 99) % 256}", 0) > 0
