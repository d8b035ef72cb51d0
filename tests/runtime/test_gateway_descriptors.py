"""The gateway, which is this process, at the limit of its descriptors: its environments outlive that."""

import asyncio
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from sandgate.core.errors import SandboxFailed
from sandgate.core.execution import ExecutionRequest
from sandgate.core.states import ExecutionStatus
from sandgate.sandbox.link import SandboxLink
from tests.runtime.hosts import Bench, until

pytestmark = pytest.mark.needs_root_namespaces


@contextmanager
def _full() -> Iterator[None]:
    """Let this process open no more descriptors than it has; what it closes it may open again."""
    taken = set(map(int, os.listdir("/proc/self/fd")))
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (next(n for n in range(4096) if n not in taken), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def _take_all() -> list[int]:
    taken: list[int] = []
    with suppress(OSError):
        while True:
            taken.append(os.dup(2))
    return taken


@pytest.mark.parametrize("room", range(4))
async def test_child_whose_ends_do_not_fit(room: int, standard: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is lost, and the next one comes when there is room again; whoever waits is served then.

    However long that takes: it is no fault of the sandbox's.
    """
    sandbox = await standard.make()
    assert isinstance(sandbox, SandboxLink)
    assert await standard.works(sandbox)
    await until(lambda: sandbox._first.is_ready)
    running = sandbox.execute(ExecutionRequest("print('ran')", 60.0))
    with _full():
        ended = await running.wait()
        # What that one gave back would be taken by the next child.
        taken = _take_all()
        for end in taken[:room]:
            os.close(end)
        waiting = [sandbox.execute(ExecutionRequest("print('ran')", 60.0)) for _each in range(3)]
        # Until then there is no other reason than a forker that is slow, which would be one to give it up.
        await until(lambda: sandbox._first.lacks_room or all(each.ended for each in waiting))
        monkeypatch.setattr(sandbox._stall, "limit_s", 0.05)
        sandbox._stall.close()
        sandbox._stall._timer = None
        sandbox._stall.begin()
        await asyncio.sleep(0.12)
        for end in taken[room:]:
            os.close(end)
    monkeypatch.undo()
    results = [ended, *[await each.wait() for each in waiting]]
    assert {(each.status, each.stdout) for each in results} == {(ExecutionStatus.COMPLETED, b"ran\n")}
    assert sandbox.failure is None
    assert standard.ended == []


async def test_sandbox_whose_ends_do_not_fit(standard: Bench) -> None:
    """It is refused with what there is to do, and gone."""
    other = await standard.make()
    assert isinstance(other, SandboxLink)
    await until(lambda: other._first.is_ready)
    with _full(), pytest.raises(SandboxFailed, match="raise its limit of open files"):
        await standard.make()
    await until(lambda: len(standard.host.groups()) == 1)
    assert await standard.works(other)
    assert await standard.works(await standard.make())
