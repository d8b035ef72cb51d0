"""Guessing is slowed down; owners are not locked out."""

import pytest

from sandgate.auth.throttle import LoginThrottle
from sandgate.core.clock import ManualClock
from sandgate.core.errors import TooManyLoginAttempts

HOME, STRANGER = "192.0.2.1", "198.51.100.7"


@pytest.fixture
def throttle(clock: ManualClock) -> LoginThrottle:
    """Ten failures in a minute."""
    return LoginThrottle(clock, attempts=10, window_s=60)


def fail(throttle: LoginThrottle, name: str, address: str, times: int) -> int:
    """Attempts that fail; answers how many of them were let through."""
    let_through = 0
    for _ in range(times):
        try:
            throttle.admit(name, address)
        except TooManyLoginAttempts:
            continue
        let_through += 1
    return let_through


def test_ten_failures_of_a_name_from_an_address(throttle: LoginThrottle) -> None:
    """The eleventh is told how long to wait."""
    assert fail(throttle, "ann", STRANGER, 10) == 10
    with pytest.raises(TooManyLoginAttempts) as refused:
        throttle.admit("ann", STRANGER)
    assert refused.value.retry_after_s == pytest.approx(6.0)
    assert "6 s" in refused.value.message


def test_who_waits_as_long_as_was_said_gets_through(throttle: LoginThrottle, clock: ManualClock) -> None:
    """Again and again: never longer than a tenth of the window for one more attempt."""
    fail(throttle, "ann", STRANGER, 10)
    for _ in range(50):
        with pytest.raises(TooManyLoginAttempts) as refused:
            throttle.admit("ann", STRANGER)
        assert 0 < refused.value.retry_after_s <= 6.0
        clock.advance(refused.value.retry_after_s)
        throttle.admit("ann", STRANGER)


def test_refused_attempts_do_not_prolong_the_wait(throttle: LoginThrottle, clock: ManualClock) -> None:
    """Hammering makes nothing worse, and nothing better."""
    fail(throttle, "ann", STRANGER, 1000)
    clock.advance(6)
    assert fail(throttle, "ann", STRANGER, 1000) == 1


def test_attempts_side_by_side_do_not_slip_through(throttle: LoginThrottle) -> None:
    """An attempt counts from its beginning: of a hundred at once ten are let through."""
    assert fail(throttle, "ann", STRANGER, 100) == 10


def test_a_success_counts_nothing(throttle: LoginThrottle) -> None:
    """Somebody who logs in a thousand times is not slowed down."""
    for _ in range(1000):
        throttle.succeed(throttle.admit("ann", HOME))


def test_a_success_forgives_earlier_failures_of_its_address(throttle: LoginThrottle) -> None:
    """Nine typing errors, the right one, nine errors again."""
    fail(throttle, "ann", HOME, 9)
    throttle.succeed(throttle.admit("ann", HOME))
    assert fail(throttle, "ann", HOME, 10) == 10


def test_many_addresses_share_the_limit_of_a_name(throttle: LoginThrottle) -> None:
    """Half as many again as one address has."""
    assert sum(fail(throttle, "ann", f"203.0.113.{number}", 10) for number in range(100)) == 15


def test_one_address_shares_a_limit_for_all_names(throttle: LoginThrottle) -> None:
    """One password tried on many names."""
    assert sum(fail(throttle, f"user{number}", STRANGER, 1) for number in range(500)) == 100


def test_strangers_do_not_lock_the_owner_out(throttle: LoginThrottle, clock: ManualClock) -> None:
    """From an address that has logged in within a day, a name that is under attack still gets in."""
    throttle.succeed(throttle.admit("ann", HOME))
    clock.advance(3600)
    for number in range(100):
        fail(throttle, "ann", f"203.0.113.{number}", 10)
    throttle.succeed(throttle.admit("ann", HOME))


def test_neighbours_behind_one_proxy_do_not_lock_the_owner_out(throttle: LoginThrottle) -> None:
    """The address is used up on other names, and the owner still gets in."""
    throttle.succeed(throttle.admit("ann", HOME))
    for number in range(500):
        fail(throttle, f"user{number}", HOME, 1)
    throttle.succeed(throttle.admit("ann", HOME))


def test_a_known_address_may_not_guess_either(throttle: LoginThrottle) -> None:
    """That the owner has logged in there gives no one there more attempts than ten."""
    throttle.succeed(throttle.admit("ann", HOME))
    assert fail(throttle, "ann", HOME, 100) == 10


def test_an_address_is_known_for_a_day(throttle: LoginThrottle, clock: ManualClock) -> None:
    """After that it waits like all others."""
    throttle.succeed(throttle.admit("ann", HOME))
    clock.advance(86_400)
    for number in range(100):
        fail(throttle, "ann", f"203.0.113.{number}", 10)
    assert fail(throttle, "ann", HOME, 1) == 0


def test_what_was_not_carried_out_counts_nothing(throttle: LoginThrottle) -> None:
    """A database that is gone is not held against the user."""
    for _ in range(100):
        throttle.withdraw(throttle.admit("ann", HOME))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8:1:1::1", "2001:db8:1:1:ffff::2", True),
        ("2001:db8:1:1::1", "2001:db8:1:2::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::1", "::2", True),
        ("not an address", "", True),
    ],
)
def test_addresses_count_by_what_a_customer_holds(throttle: LoginThrottle, one: str, other: str, same: bool) -> None:
    """An IPv6 customer has a /64 of addresses to guess from."""
    fail(throttle, "ann", one, 10)
    assert (fail(throttle, "ann", other, 1) == 0) is same


def test_impossible_names_are_one_name(throttle: LoginThrottle) -> None:
    """They may be of any length, and are not kept."""
    assert sum(fail(throttle, "x" * 10_000 + str(number), STRANGER, 1) for number in range(100)) == 10


def test_memory_is_bounded(clock: ManualClock) -> None:
    """A flood of names and addresses is forgotten from its beginning."""
    throttle = LoginThrottle(clock, attempts=1, window_s=60, most=50)
    for number in range(500):
        throttle.admit(f"user{number}", f"10.0.{number >> 8}.{number & 255}")
    assert throttle.remembered == 3 * 50
    for number in range(500, 1000):
        throttle.succeed(throttle.admit(f"user{number}", f"10.0.{number >> 8}.{number & 255}"))
    assert 3 * 50 < throttle.remembered <= 4 * 50


def test_one_attempt_is_always_possible(clock: ManualClock) -> None:
    """With the smallest setting an owner on another address than the attacker's gets a turn."""
    throttle = LoginThrottle(clock, attempts=1, window_s=60)
    assert fail(throttle, "ann", STRANGER, 5) == 1
    throttle.succeed(throttle.admit("ann", HOME))
