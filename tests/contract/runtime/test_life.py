"""What every runtime promises of the life of its sandboxes."""

import asyncio

import pytest

from sandgate.core.errors import SandboxFailed
from sandgate.core.execution import ExecutionRequest
from sandgate.core.ids import make_environment_id
from sandgate.core.limits import Limits
from sandgate.core.states import ExecutionStatus
from tests.contract.runtime.conftest import Subject
from tests.runtime.hosts import until

LOOP = "while True: pass"


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


async def test_lifetime(subject: Subject) -> None:
    """When it is over the sandbox ends with what runs in it, and its owner is told why, once."""
    sandbox = await subject.create(subject.short_s)
    ran = await sandbox.execute(ExecutionRequest(LOOP, 60)).wait()
    assert ran.status is ExecutionStatus.LOST
    await until(lambda: subject.ended)
    assert subject.ended == [(sandbox.environment_id, "expired")]
    assert sandbox.failure is not None


async def test_extend(subject: Subject) -> None:
    """The lifetime is counted anew, to a longer or a shorter one."""
    sandbox = await subject.create(subject.short_s)
    await sandbox.extend(60)
    ran = await subject.run(sandbox, "import time\ntime.sleep(0.5)\nprint('on')")
    assert ran.stdout == b"on\n"
    await sandbox.extend(0.01)
    await until(lambda: subject.ended)
    assert subject.ended == [(sandbox.environment_id, "expired")]


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
