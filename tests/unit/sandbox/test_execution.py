"""An execution with real pipes and a real socket, and nothing behind them but the test."""

import asyncio
import contextlib
import gc
import os
import signal
import socket
import time
import weakref
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from sandgate.core.execution import ExecutionRequest
from sandgate.core.limits import MIB, Limits
from sandgate.core.output_watch import OutputWatch
from sandgate.core.states import ExecutionStatus
from sandgate.environments.journal import OutputJournal
from sandgate.sandbox import execution
from sandgate.sandbox.execution import WaitingChild, ZygoteExecution
from sandgate.sandbox.kernel_kills import KernelKills
from sandgate_agent.wire import REPORT_LIMIT, Exited, pack_report
from tests.unit.sandbox.conftest import settle

SMALL = Limits(output_bytes=10, drained_output_bytes=1000)
_MUCH = SMALL.memory_bytes // 2


class Child:
    """A child that does what the test says. ``kernel_kills`` is what the kernel's count says."""

    def __init__(self) -> None:
        near, self.inner = socket.socketpair()
        stdout, self.stdout = os.pipe()
        stderr, self.stderr = os.pipe()
        for pipe in (stdout, stderr):
            os.set_blocking(pipe, False)
        self._waiting = WaitingChild(1, near, stdout, stderr)
        self.kills = 0
        self.asked = 0
        self.kernel_kills = 0
        self.kernel = KernelKills(self._count)
        self._counter = -1

    async def _count(self) -> int:
        self.asked += 1
        return self.kernel_kills

    def _kill(self) -> None:
        self.kills += 1

    def count_exactly(self) -> None:
        """The kernel's own counter is there: what it says goes with ``kernel_kills`` whenever that is looked at."""
        self._counter = os.memfd_create("counter")
        self.kernel = KernelKills(self._count, os.dup(self._counter))
        self.tell_kills(0)

    def tell_kills(self, number: int) -> None:
        """So many by now."""
        os.pwrite(self._counter, f"oom_kill_disable 0\nunder_oom 0\noom_kill {number}\n".encode(), 0)

    def start(
        self,
        limits: Limits = SMALL,
        timeout_s: float = 60.0,
        watch: OutputWatch | None = None,
        kills_before: int = 0,
    ) -> ZygoteExecution:
        """Run something in it."""
        request = ExecutionRequest("pass", timeout_s, watch=watch)
        self.execution = ZygoteExecution(request, limits, self.kernel)
        self.execution.start(self._waiting, kills_before, self._kill)
        return self.execution

    def end(self, wait_status: int = 0, worked_us: int = 0, peak_bytes: int = 0) -> None:
        """What the slot says of its end."""
        self.execution.on_exited(Exited(1, wait_status, worked_us, 0, peak_bytes))

    def close(self) -> None:
        """Let go of everything."""
        self.kernel.close()
        if self._counter >= 0:
            os.close(self._counter)
        self.inner.close()
        os.close(self.stdout)
        os.close(self.stderr)


@pytest.fixture
async def child(no_leak: None) -> AsyncIterator[Child]:
    """A child that waits."""
    child = Child()
    yield child
    child.close()


async def test_several_may_wait(child: Child) -> None:
    """Everybody gets the same answer, also later; who stops waiting ends nothing."""
    running = child.start()
    waiters = [asyncio.ensure_future(running.wait()) for _each in range(3)]
    await asyncio.sleep(0)
    waiters[0].cancel()
    await settle(waiters[0].done)
    assert not running.ended
    child.end()
    assert await waiters[1] is await waiters[2] is await running.wait()


async def test_deadline(child: Child) -> None:
    """The kill is sent at the deadline; the answer waits for its confirmation, or for 35 ms."""
    started = time.perf_counter()
    running = child.start(timeout_s=0.01)
    os.write(child.stdout, b"before")
    ended = await running.wait()
    assert (ended.status, ended.exit_code, ended.stdout, child.kills) == (ExecutionStatus.TIMED_OUT, None, b"before", 1)
    assert time.perf_counter() - started >= 0.044
    child.end(9)
    assert (await running.wait()) is ended


async def test_confirmed_kill(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    """A confirmation brings the answer at once."""
    monkeypatch.setattr(execution, "_CONFIRM_S", 60.0)
    running = child.start()
    running.cancel()
    running.cancel()
    child.end(signal.SIGKILL)
    ended = await asyncio.wait_for(running.wait(), 20)
    assert (ended.status, ended.exit_code, ended.error, child.kills) == (ExecutionStatus.CANCELLED, None, None, 1)


async def test_first_reason_stands(child: Child) -> None:
    """A deadline or a loss after a cancellation changes nothing."""
    running = child.start(timeout_s=0.001)
    running.cancel()
    await asyncio.sleep(0.005)
    running.on_lost()
    assert (await running.wait()).status is ExecutionStatus.CANCELLED


async def test_late_words_are_nobodys(child: Child) -> None:
    """What is written after the end is not in the answer, and harms nobody."""
    running = child.start()
    child.end()
    ended = await running.wait()
    with pytest.raises(BrokenPipeError):
        child.inner.send(pack_report("E", "v", "t"))
    with pytest.raises(BrokenPipeError):
        os.write(child.stdout, b"late")
    assert (ended.stdout, ended.error) == (b"", None)


async def test_cancelled_before_it_started() -> None:
    """An execution that never got a child has an empty answer."""
    child = Child()
    running = ZygoteExecution(ExecutionRequest("pass", 1), SMALL, child.kernel)
    running.cancel()
    ended = await running.wait()
    assert (ended.status, ended.duration_s, ended.stdout) == (ExecutionStatus.CANCELLED, 0.0, b"")
    child._waiting.close()
    child.close()


async def test_out_of_memory(child: Child) -> None:
    """Killed, and the kernel's count went up."""
    running = child.start()
    child.kernel_kills = 1
    child.end(signal.SIGKILL)
    ended = await running.wait()
    assert (ended.status, ended.exit_code, ended.error) == (ExecutionStatus.OUT_OF_MEMORY, None, None)


async def test_killed_by_itself(child: Child) -> None:
    """Killed, and the kernel's count stayed."""
    running = child.start()
    child.end(signal.SIGKILL)
    ended = await running.wait()
    assert (ended.status, ended.exit_code, child.asked) == (ExecutionStatus.FAILED, 137, 1)
    assert ended.error is not None
    assert (ended.error.name, ended.error.value) == ("Signal", "ended by SIGKILL")


@pytest.mark.parametrize(
    ("alone", "lasted_s", "worked_us"),
    [(True, 0.011, 11_000), (True, 0.0, 11_000), (True, 0.011, 9_000), (True, 0.101, 0), (False, 0.011, 11_000)],
)
async def test_failed_while_the_count_went_up(
    alone: bool, lasted_s: float, worked_us: int, child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is out of memory when nobody else can have been meant, and when it had the time and did the work for it."""
    running = child.start()
    child.kernel_kills = 1
    if not alone:
        running.share()
    monkeypatch.setattr(ZygoteExecution, "age_s", lasted_s)
    child.end(1 << 8, worked_us)
    can_be = alone and (lasted_s > 0.1 or (lasted_s > 0.01 and worked_us > 10_000))
    expected = ExecutionStatus.OUT_OF_MEMORY if can_be else ExecutionStatus.FAILED
    assert (await running.wait()).status is expected


@pytest.mark.parametrize(
    ("before", "others", "after", "is_its_own"), [(0, 0, 1, True), (1, 0, 1, False), (0, 1, 1, False), (0, 1, 2, True)]
)
async def test_failed_beside_others(
    before: int, others: int, after: int, is_its_own: bool, child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kill is its own that came since it began, and that no other one has been told for."""
    child.count_exactly()
    child.tell_kills(before)
    running = child.start(kills_before=child.kernel.look())
    running.share()
    child.tell_kills(before + others)
    assert await child.kernel.have_killed(before) is bool(others)
    child.tell_kills(after)
    monkeypatch.setattr(ZygoteExecution, "age_s", 1.0)
    child.end(1 << 8, peak_bytes=_MUCH)
    expected = ExecutionStatus.OUT_OF_MEMORY if is_its_own else ExecutionStatus.FAILED
    assert ((await running.wait()).status, child.asked) == (expected, 0)
    assert not await child.kernel.have_hurt(before), "it is laid to two"


async def test_failed_of_its_own_accord_beside_others(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernel has killed was no process of one that held little; the one that lost it is told all the same."""
    child.count_exactly()
    running = child.start()
    running.share()
    child.tell_kills(1)
    monkeypatch.setattr(ZygoteExecution, "age_s", 1.0)
    child.end(1 << 8, peak_bytes=_MUCH - 1)
    assert (await running.wait()).status is ExecutionStatus.FAILED
    assert await child.kernel.have_hurt(0), "it was borne by one that had no part in it"


@pytest.mark.parametrize("cause", [None, ExecutionStatus.CANCELLED])
async def test_what_was_borne_is_laid_to_nobody(
    cause: ExecutionStatus | None, child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that held much has ended well, or for another reason: who fails after it does so of its own accord."""
    child.count_exactly()
    running = child.start()
    running.share()
    child.tell_kills(1)
    monkeypatch.setattr(ZygoteExecution, "age_s", 1.0)
    if cause is not None:
        running.cancel()
    child.end(0, peak_bytes=_MUCH)
    assert (await running.wait()).status is (cause or ExecutionStatus.COMPLETED)
    await settle()
    assert not await child.kernel.have_hurt(0)
    child.tell_kills(2)
    assert await child.kernel.have_hurt(0), "a later one was borne, too"


async def test_what_came_before_it_is_not_borne(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that began after a kill has no part in it, however much it held."""
    child.count_exactly()
    child.tell_kills(1)
    running = child.start(kills_before=child.kernel.look())
    running.share()
    monkeypatch.setattr(ZygoteExecution, "age_s", 1.0)
    child.end(0, peak_bytes=_MUCH)
    await running.wait()
    await settle()
    assert await child.kernel.have_hurt(0)


async def test_cancelled_while_the_count_is_asked(child: Child) -> None:
    """The answer is there once, whatever comes between."""
    running = child.start()
    child.kernel_kills = 1
    child.end(signal.SIGKILL)
    running.cancel()
    assert (await running.wait()).status is ExecutionStatus.CANCELLED


async def test_report_of_any_size(child: Child) -> None:
    """One that is too long is none."""
    running = child.start()
    child.inner.setblocking(False)
    child.inner.send(b'"' + b"x" * REPORT_LIMIT + b'"')
    child.end(1 << 8)
    ended = await running.wait()
    assert ended.error is not None
    assert ended.error.name == "NonZeroExit"


async def test_flood(child: Child) -> None:
    """More than may be dropped is the end, with what was kept."""
    running = child.start()
    os.set_blocking(child.stdout, False)
    while not child.kills:
        with contextlib.suppress(BlockingIOError):
            os.write(child.stdout, b"x" * 500)
        await asyncio.sleep(0.0005)
    child.end(9)
    ended = await running.wait()
    assert (ended.status, ended.stdout, ended.stdout_truncated) == (ExecutionStatus.OUTPUT_LIMIT, b"x" * 10, True)
    assert (ended.stderr, ended.stderr_truncated) == (b"", False)


@pytest.mark.parametrize("is_watched", [True, False])
async def test_nothing_that_was_written_waits_for_the_collector(child: Child, is_watched: bool) -> None:
    """It seldom looks in a process that has much, and what was written may be large."""
    journal = OutputJournal(MIB, MIB, MIB) if is_watched else None
    execution = child.start(replace(SMALL, output_bytes=MIB), watch=journal)
    os.write(child.stdout, b"x" * 1000)
    child.end()
    assert (await execution.wait()).stdout == b"x" * 1000
    held = [weakref.ref(each) for each in (execution, execution._stdout, journal) if each is not None]
    gc.disable()
    try:
        del execution, child.execution, journal
        await asyncio.sleep(0)
        assert [each() for each in held] == [None] * len(held)
    finally:
        gc.enable()
