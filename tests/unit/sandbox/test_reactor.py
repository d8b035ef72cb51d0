"""The launcher's timers."""

import os
import weakref

import pytest

from sandgate.sandbox.launcher.reactor import Reactor


class _Kept:
    def __call__(self) -> None:
        raise AssertionError("a cancelled timer was called")


def test_timers_come_in_their_order() -> None:
    """By moment, and those of one moment in the order in which they were set."""
    reactor, seen = Reactor(), []
    reactor.call_at(0.0, lambda: seen.append("first"))
    reactor.call_at(0.0, lambda: seen.append("second"))
    reactor.call_at(-1.0, lambda: seen.append("earliest"))
    reactor.call_later(0.0, reactor.stop)
    reactor.run()
    assert seen == ["earliest", "first", "second"]


def test_a_timer_that_is_far_off_keeps_nobody_waiting() -> None:
    """Also one that is further off than the kernel waits."""
    reactor = Reactor()
    reactor.call_later(32 * 86_400.0, lambda: None)
    read, write = os.pipe()
    reactor.watch(read, reactor.stop)
    os.close(write)
    reactor.run()
    os.close(read)


def test_a_cancelled_timer_is_not_called_and_lets_go_at_once() -> None:
    """What its callback holds is not kept until its moment."""
    reactor, kept = Reactor(), _Kept()
    gone = weakref.ref(kept)
    timer = reactor.call_later(0.0, kept)
    del kept
    reactor.cancel(timer)
    reactor.cancel(timer)
    assert gone() is None
    reactor.call_later(0.0, reactor.stop)
    reactor.run()


def test_a_hundred_thousand_cancelled_timers_take_no_room() -> None:
    """Environments that were deleted long before their time leave nothing behind."""
    reactor = Reactor()
    for _sandbox in range(100_000):
        reactor.cancel(reactor.call_later(3600.0, lambda: None))
    assert reactor.timer_count < 1000


def test_cancelling_does_not_lose_the_others() -> None:
    """Also when the cancelled ones are cleared away."""
    reactor, seen = Reactor(), []
    for number in range(1000):
        timer = reactor.call_at(float(number - 1000), lambda number=number: seen.append(number))  # type: ignore[misc]
        if number % 4:
            reactor.cancel(timer)
    reactor.call_later(0.0, reactor.stop)
    reactor.run()
    assert seen == list(range(0, 1000, 4))


def test_what_fails_ends_what_it_was_for_and_nothing_else(capfd: pytest.CaptureFixture[str]) -> None:
    """Whether it was a timer's callback or a descriptor's, and whether or not anybody is to blame."""
    reactor, blamed, seen = Reactor(), [], []
    reading, writing = os.pipe()
    os.write(writing, b"x")

    def fail() -> None:
        seen.append("called")
        raise KeyError("a bug")

    def fail_again(reason: str) -> None:
        blamed.append(reason)
        raise RuntimeError("another one")

    reactor.watch(reading, fail, fail_again)
    reactor.call_later(0.0, fail, blamed.append)
    reactor.call_later(0.0, fail)
    reactor.call_later(0.01, reactor.stop)
    reactor.run()
    # The descriptor can still be read, and nobody is called for it any more.
    assert len(seen) == 3
    assert blamed == ["the launcher failed at it: KeyError('a bug')"] * 2
    assert capfd.readouterr().err.count("Traceback") == 4
    os.close(reading)
    os.close(writing)


def test_a_descriptor_that_was_given_up_and_taken_again_is_watched() -> None:
    """A callback that fails after it has handed its descriptor to another one does that one no harm."""
    reactor, seen = Reactor(), []
    reading, writing = os.pipe()
    os.write(writing, b"x")

    def then() -> None:
        seen.append(os.read(reading, 1))
        reactor.stop()

    def first() -> None:
        reactor.forget(reading)
        reactor.watch(reading, then)
        raise ValueError("too late")

    reactor.watch(reading, first)
    reactor.run()
    assert seen == [b"x"]
    os.close(reading)
    os.close(writing)
