"""The child that waits for the next execution comes back, whatever has ended it or kept it from being made."""

import asyncio
import os
import signal

import pytest

from sandgate.sandbox.base import Sandbox
from tests.runtime.hosts import Bench, LauncherHost, descendants, until

pytestmark = [
    pytest.mark.needs_root_namespaces,
    pytest.mark.not_on_gvisor("nobody on the host reaches a process inside"),
]


def _waiting(host: LauncherHost) -> list[int]:
    """The children of the only forker."""
    (forker,) = host.forkers()
    return [pid for pid, (_name, parent) in descendants(forker).items() if parent == forker]


async def _make(bench: Bench) -> Sandbox:
    sandbox = await bench.make()
    assert await bench.works(sandbox)
    await bench.quiet()
    return sandbox


async def test_one_that_waits_is_killed(walled: Bench) -> None:
    """As the kernel does where memory runs out: that is no end of the environment, nor of anything that runs in it."""
    sandbox = await _make(walled)
    for _round in range(5):
        (child,) = _waiting(walled.host)
        os.kill(child, signal.SIGKILL)
        await until(lambda child=child: child not in descendants(walled.host.process.pid))  # type: ignore[misc]
        await walled.quiet()
        # Its end was told before the next one was made; here the loop hears of it.
        for _turn in range(3):
            await asyncio.sleep(0)
        assert await walled.works(sandbox)
        await walled.quiet()
    assert (sandbox.failure, walled.ended) == (None, [])


async def test_there_are_no_processes_for_the_next_one(walled: Bench) -> None:
    """It comes as soon as there are some, and whoever waits for it gets it."""
    sandbox = await _make(walled)
    (group,) = walled.host.groups()
    before = (group / "pids.max").read_text()
    (group / "pids.max").write_text("1")
    try:
        assert await walled.works(sandbox)
        waiting = sandbox.execute(walled.request("print('works')"))
        await until(lambda: "max 0" not in (group / "pids.events").read_text())
        assert _waiting(walled.host) == []
    finally:
        (group / "pids.max").write_text(before)
    assert (await waiting.wait()).stdout == b"works\n"
    await walled.quiet()
    assert (sandbox.failure, walled.ended) == (None, [])
