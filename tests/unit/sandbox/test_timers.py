"""Timers that stand still."""

import asyncio

from sandgate.sandbox.timers import Timers


async def test_what_stands_still_is_late_by_that() -> None:
    """One that is made meanwhile waits, too; one that is not needed any more is not acted, nor is one of two."""
    timers, acted = Timers(), asyncio.Queue[str]()
    timers.set("a", 0.01, lambda: acted.put_nowait("first"))
    timers.set("a", 0.01, lambda: acted.put_nowait("a"))
    timers.stand_still()
    timers.stand_still()
    timers.set("b", 0.05, lambda: acted.put_nowait("b"))
    timers.set("c", 0.0, lambda: acted.put_nowait("c"))
    timers.cancel("c")
    await asyncio.sleep(0.03)
    assert acted.empty()
    timers.go_on()
    timers.go_on()
    assert [await acted.get(), await acted.get()] == ["a", "b"]
    timers.set("d", 0.0, lambda: acted.put_nowait("d"))
    timers.close()
    await asyncio.sleep(0.001)
    assert acted.empty()


async def test_one_that_is_set_meanwhile_counts_from_its_beginning() -> None:
    """How long it had stood still before is nothing to it."""
    timers, acted = Timers(), asyncio.Queue[str]()
    timers.stand_still()
    await asyncio.sleep(0.5)
    timers.set("late", 0.001, lambda: acted.put_nowait("late"))
    timers.go_on()
    asyncio.get_running_loop().call_later(0.45, acted.put_nowait, "later")
    assert [await acted.get(), await acted.get()] == ["late", "later"]
