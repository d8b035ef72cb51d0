"""A slot that is apart, and whose child has been ended before it was needed."""

import pytest

from sandgate.core.execution import ExecutionRequest
from sandgate.core.limits import Limits
from sandgate.core.states import ExecutionStatus
from sandgate.sandbox.execution import ZygoteExecution
from sandgate.sandbox.kernel_kills import KernelKills
from sandgate.sandbox.standstill import Apart
from sandgate_agent import wire
from tests.unit.sandbox.conftest import Peer, settle


async def _none() -> int:
    return 0


@pytest.fixture
async def apart(peer: Peer) -> Apart:
    """One without a child: it had one, which the kernel has ended."""
    apart = Apart(peer.control, lambda request: ZygoteExecution(request, Limits(), KernelKills(_none)))
    peer.send_child()
    await apart.wait_until_ready()
    peer.send_exited(9)
    await settle(lambda: not apart._slot.is_ready)
    return apart


async def test_the_next_child_does_it(apart: Apart, peer: Peer) -> None:
    """It is asked for, and comes a moment later."""
    running = apart.execute(ExecutionRequest("pass", 60))
    assert [wire.parse_numbered(peer.heard())[0] for _each in range(2)] == [wire.HOLD, wire.NEXT]
    inner, _stdout, _stderr = peer.send_child()
    await settle(lambda: apart._slot.running is running)
    assert inner.recv(100) == wire.pack_code(b"pass")
    second = apart.execute(ExecutionRequest("pass", 60))
    assert (await second.wait()).status is ExecutionStatus.LOST, "there is one at a time"
    peer.send_exited()
    assert (await running.wait()).status is ExecutionStatus.COMPLETED
    apart.close()


async def test_one_that_was_cancelled_takes_no_child(apart: Apart, peer: Peer) -> None:
    """The child is there for what comes after it."""
    running = apart.execute(ExecutionRequest("pass", 60))
    running.cancel()
    assert (await running.wait()).status is ExecutionStatus.CANCELLED
    peer.send_child()
    await settle(lambda: apart._slot.is_ready)
    apart.close()


@pytest.mark.parametrize("end", ["closed", "gone", "too late"])
async def test_it_is_lost_with_the_slot(end: str, apart: Apart, peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    """And when no child comes for it in time; nobody waits for ever."""
    if end == "too late":
        monkeypatch.setattr("sandgate.sandbox.standstill._READY_LIMIT_S", 0.01)
    running = apart.execute(ExecutionRequest("pass", 60))
    if end == "closed":
        apart.close()
    elif end == "gone":
        peer.far_control.close()
    assert (await running.wait()).status is ExecutionStatus.LOST
    apart.close()
    after = apart.execute(ExecutionRequest("pass", 60))
    assert (await after.wait()).status is ExecutionStatus.LOST
