"""What every runtime promises of the life of its sandboxes."""

import asyncio
from contextlib import suppress

import pytest

from sandgate.core.errors import SandboxFailed
from sandgate.core.execution import ExecutionRequest
from sandgate.core.ids import make_environment_id
from sandgate.core.limits import Limits
from sandgate.core.states import ExecutionStatus
from sandgate.sandbox.base import Sandbox
from tests.contract.runtime.conftest import Subject
from tests.runtime.hosts import until

LOOP = "while True: pass"
# Longer than a busy machine needs to begin and to stop something.
LIMIT_S = 6.0


async def test_create_and_destroy(subject: Subject) -> None:
    """Ended by its maker it is told to nobody; what was never made can be destroyed."""
    sandbox = await subject.create()
    assert sandbox.failure is None
    assert (await subject.run(sandbox, "print('here')")).stdout == b"here\n"
    await subject.runtime.destroy(sandbox.environment_id)
    await subject.runtime.destroy(sandbox.environment_id)
    await subject.runtime.destroy(make_environment_id())
    await subject.runtime.check()
    assert subject.ended == []


async def test_many_at_once(subject: Subject) -> None:
    """Each is its own, and one that ends harms no other."""
    sandboxes = await asyncio.gather(*(subject.create() for _each in range(5)))
    assert len({sandbox.environment_id for sandbox in sandboxes}) == 5
    await subject.runtime.destroy(sandboxes[0].environment_id)
    ran = await asyncio.gather(*(subject.run(sandbox, "print('on')") for sandbox in sandboxes[1:]))
    assert {each.stdout for each in ran} == {b"on\n"}


def _ends(subject: Subject, sandbox: Sandbox) -> list[str]:
    """What its owner was told of its end, each time."""
    return [reason for environment_id, reason in subject.ended if environment_id == sandbox.environment_id]


async def test_lifetime(subject: Subject) -> None:
    """When it is over the sandbox ends with what runs in it, and its owner is told why, once."""
    for lifetime_s in subject.lifetimes:
        with suppress(SandboxFailed):
            sandbox = await subject.create(lifetime_s)
            running = sandbox.execute(ExecutionRequest(LOOP, 60))
            break
    assert (await running.wait()).status is ExecutionStatus.LOST
    await until(lambda: _ends(subject, sandbox))
    assert _ends(subject, sandbox) == ["expired"]
    assert sandbox.failure is not None


async def test_extend(subject: Subject) -> None:
    """The lifetime is counted anew, to a longer or a shorter one."""
    for lifetime_s in subject.lifetimes:
        with suppress(SandboxFailed):
            sandbox = await subject.create(lifetime_s)
            await sandbox.extend(60)
            break
    ran = await subject.run(sandbox, f"import time\ntime.sleep({lifetime_s + 0.2})\nprint('on')", 40)
    assert ran.stdout == b"on\n"
    await sandbox.extend(0.01)
    await until(lambda: _ends(subject, sandbox))
    assert _ends(subject, sandbox) == ["expired"]


async def test_adoption(subject: Subject) -> None:
    """The next gateway finds what it expects, ends the rest, and what ran has nobody to answer to."""
    kept, dropped = await subject.create(), await subject.create()
    running = kept.execute(ExecutionRequest(LOOP, 60))
    await subject.runtime.stop(keep_sandboxes=True)
    assert (await running.wait()).status is ExecutionStatus.LOST
    await subject.connect()
    adopted = await subject.runtime.adopt({kept.environment_id: Limits(), make_environment_id(): Limits()})
    assert [sandbox.environment_id for sandbox in adopted] == [kept.environment_id]
    assert (await subject.run(adopted[0], "print('on')")).stdout == b"on\n"
    assert dropped.environment_id not in {sandbox.environment_id for sandbox in adopted}
    await subject.runtime.destroy(kept.environment_id)
    assert subject.ended == []


async def test_create_that_is_cancelled(subject: Subject) -> None:
    """Its id is free again."""
    wanted = subject.spec()
    creating = asyncio.ensure_future(subject.runtime.create(wanted))
    await asyncio.sleep(0)
    creating.cancel()
    await asyncio.wait([creating])
    await subject.runtime.destroy(wanted.environment_id)
    again = await subject.runtime.create(wanted)
    assert (await subject.run(again, "print('on')")).stdout == b"on\n"


async def test_an_id_is_used_once(subject: Subject) -> None:
    """While a sandbox lives its id is taken, and the refusal does not harm it."""
    wanted = subject.spec()
    sandbox = await subject.runtime.create(wanted)
    failures = await asyncio.gather(subject.runtime.create(wanted), return_exceptions=True)
    assert [type(failure).__name__ for failure in failures] == ["SandboxFailed"]
    assert (await subject.run(sandbox, "print('on')")).stdout == b"on\n"


async def test_usage(subject: Subject) -> None:
    """What is counted at all is no less than nothing, and the most is no less than the present."""
    sandbox = await subject.create()
    await subject.run(sandbox, "print('x')")
    used = await sandbox.usage()
    for now, most in (
        (used.memory_bytes, used.peak_memory_bytes),
        (used.processes, used.peak_processes),
        (used.disk_bytes, used.peak_disk_bytes),
    ):
        assert (now is None and most is None) or 0 <= (now or 0) <= (most or 0)
    assert all(value is None or value >= 0 for value in (used.cpu_us, used.inodes, used.out_of_memory_kills))
    await subject.runtime.destroy(sandbox.environment_id)
    with pytest.raises(SandboxFailed):
        await sandbox.usage()


async def test_what_stands_still_runs_nothing(subject: Subject) -> None:
    """Its time does not go on either; what is executed meanwhile waits."""
    sandbox = await subject.create()
    if not subject.runtime.can_pause(subject.runtime.isolation):
        with pytest.raises(SandboxFailed):
            await sandbox.standstill.begin()
        assert (await subject.run(sandbox, "print('on')")).stdout == b"on\n"
        return
    slow = sandbox.execute(ExecutionRequest(LOOP, LIMIT_S))
    assert not sandbox.is_idle
    assert await sandbox.standstill.begin()
    assert await sandbox.standstill.begin()
    later = sandbox.execute(ExecutionRequest("print('late')", 60))
    waiting = [asyncio.create_task(each.wait()) for each in (slow, later)]
    done, _waiting = await asyncio.wait(waiting, timeout=LIMIT_S + 0.2)
    assert not done
    await sandbox.standstill.end()
    slow.cancel()
    ended, after = await asyncio.gather(*waiting)
    assert ended.status is ExecutionStatus.CANCELLED
    assert ended.duration_s < LIMIT_S
    assert after.stdout == b"late\n"
    assert sandbox.is_idle


async def test_what_stands_still_ends_at_once(subject: Subject) -> None:
    """Its owner ends it as any other, and a gateway that comes finds one that an earlier one has left so."""
    kept, dropped = await subject.create(), await subject.create()
    if not subject.runtime.can_pause(subject.runtime.isolation):
        return
    running = dropped.execute(ExecutionRequest(LOOP, 60))
    for sandbox in (kept, dropped):
        await sandbox.standstill.begin()
    await subject.runtime.destroy(dropped.environment_id)
    assert (await running.wait()).status is ExecutionStatus.LOST
    await subject.runtime.stop(keep_sandboxes=True)
    await subject.connect()
    (adopted,) = await subject.runtime.adopt({kept.environment_id: Limits()})
    await adopted.standstill.begin()
    await adopted.standstill.end()
    assert (await subject.run(adopted, "print('on')")).stdout == b"on\n"
