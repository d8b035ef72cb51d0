"""Executions side by side in one environment: each has a slot, with processes of its own and files in common."""

import asyncio
import os
import signal

import pytest

from sandgate.core.errors import SandboxFailed, TooManyExecutions
from sandgate.core.execution import ExecutionRequest
from sandgate.core.limits import Limits
from sandgate.core.states import ExecutionStatus
from sandgate.sandbox import line, link
from sandgate.sandbox.base import RunningExecution, Sandbox
from tests.runtime.hosts import Bench, until

# Waits until so many have come, by files that they make.
MEET = """
import os, time
open('here-{number}', 'w').close()
while len([n for n in os.listdir() if n.startswith('here-')]) < {all}: time.sleep(0.005)
print('met')
"""
WAIT = """
import os, time
open('waits-{number}', 'w').close()
while not os.path.exists('go'): time.sleep(0.005)
print('went')
"""


def start(sandbox: Sandbox, template: str, count: int, limit_s: float = 60.0) -> list[RunningExecution]:
    """So many executions at once."""
    codes = [template.replace("{number}", str(number)).replace("{all}", str(count)) for number in range(count)]
    return [sandbox.execute(ExecutionRequest(code, limit_s)) for code in codes]


async def started(bench: Bench, sandbox: Sandbox, count: int) -> None:
    """Wait until so many executions of WAIT run; asked from inside by one more."""
    look = (
        f"import os, time\nwhile len([n for n in os.listdir() if n.startswith('waits-')]) < {count}: time.sleep(0.002)"
    )
    assert (await bench.run(sandbox, look)).exit_code == 0


async def test_sixteen_side_by_side(bench: Bench) -> None:
    """As many as the limit says run at the same time, in the same files."""
    sandbox = await bench.make()
    met = [await each.wait() for each in start(sandbox, MEET, 16)]
    assert {(each.status, each.stdout) for each in met} == {(ExecutionStatus.COMPLETED, b"met\n")}
    assert bench.on_gvisor or len(bench.host.forkers()) == 16


async def test_more_wait_their_turn(bench: Bench) -> None:
    """Beyond the limit an execution waits, is run when another has ended, and can be cancelled before."""
    sandbox = await bench.make(limits=Limits(concurrent_executions=2))
    waiting = start(sandbox, WAIT, 2)
    queued = [sandbox.execute(ExecutionRequest(f"print({number})", 2.0)) for number in range(5)]
    await asyncio.sleep(2.1)  # waits: for longer than each of them may run
    queued[3].cancel()
    cancelled = await queued[3].wait()
    assert (cancelled.status, cancelled.duration_s, cancelled.stdout) == (ExecutionStatus.CANCELLED, 0.0, b"")
    waiting[0].cancel()
    assert (await waiting[0].wait()).status is ExecutionStatus.CANCELLED
    # The time of one that waited is counted from its start.
    assert [(await each.wait()).stdout for each in queued] == [b"0\n", b"1\n", b"2\n", b"", b"4\n"]
    assert (await bench.run(sandbox, "open('go', 'w').close()")).exit_code == 0
    assert (await waiting[1].wait()).stdout == b"went\n"
    assert bench.on_gvisor or len(bench.host.forkers()) == 2


async def test_queue_is_bounded(bench: Bench) -> None:
    """A queue that is full refuses; what is in it is lost with its sandbox, and said to be."""
    sandbox = await bench.make(limits=Limits(concurrent_executions=1))
    accepted: list[RunningExecution] = []
    # One of them may run already.
    with pytest.raises(TooManyExecutions):
        accepted.extend(sandbox.execute(ExecutionRequest(WAIT, 60)) for _each in range(line.LIMIT + 2))
    assert line.LIMIT <= len(accepted) <= line.LIMIT + 1
    await bench.runtime.destroy(sandbox.environment_id)
    ended = [await each.wait() for each in accepted]
    assert {each.status for each in ended} == {ExecutionStatus.LOST}
    with pytest.raises(SandboxFailed):
        sandbox.execute(ExecutionRequest("pass", 1))


async def test_what_was_cancelled_takes_no_place_in_the_queue(bench: Bench) -> None:
    """However often somebody asks and gives up while the only slot is taken, and what it came with is let go."""
    sandbox = await bench.make(limits=Limits(concurrent_executions=1))
    (first,) = start(sandbox, WAIT, 1)
    given_up = []
    for _each in range(line.LIMIT + 2):
        given_up.append(sandbox.execute(ExecutionRequest("pass", 60)))
        given_up[-1].cancel()
    assert {(await each.wait()).status for each in given_up} == {ExecutionStatus.CANCELLED}
    last = sandbox.execute(ExecutionRequest("print('ran')", 60))
    first.cancel()
    assert (await last.wait()).stdout == b"ran\n"


@pytest.mark.needs_root_namespaces
async def test_slots_see_files_and_no_processes(walled: Bench) -> None:
    """Side by side, executions share disk and network, and see none of each other's processes."""
    sandbox = await walled.make()
    waiting = start(sandbox, WAIT, 3)
    await started(walled, sandbox, 3)
    look = (
        "import os\nanswer = [[n for n in os.listdir('/proc') if n.isdigit() and n != '1'] == [str(os.getpid())],\n"
        "  os.path.exists('/proc/1'), sorted(n for n in os.listdir() if n.startswith('waits')),\n"
        "  os.readlink('/proc/self/ns/net')]"
    )
    alone, one, files, network = await walled.ask(sandbox, look)
    assert (alone, one) == (True, walled.on_gvisor)
    assert files == ["waits-0", "waits-1", "waits-2"]
    # An old gVisor numbers namespaces anew each time that somebody looks.
    assert walled.on_gvisor or (await walled.ask(sandbox, look))[3] == network
    storm = (
        "import os, signal\nfor pid in set(range(2, 400)) - {os.getpid()}:\n"
        "    for s in (signal.SIGKILL, signal.SIGSTOP):\n        try: os.kill(pid, s)\n"
        "        except (ProcessLookupError, PermissionError): pass"
    )
    assert (await walled.run(sandbox, storm)).exit_code == 0
    await walled.run(sandbox, "open('go', 'w').close()")
    assert [(await each.wait()).stdout for each in waiting] == [b"went\n"] * 3


@pytest.mark.needs_root_namespaces
async def test_walls_of_later_slots(walled: Bench) -> None:
    """A slot that joins an environment has the walls of the first one."""
    sandbox = await walled.make()
    waiting = start(sandbox, WAIT, 1)
    await started(walled, sandbox, 1)
    look = (
        "import os\nstatus = dict(l.split(':', 1) for l in open('/proc/self/status').read().splitlines())\n"
        "answer = [{k: v.strip() for k, v in status.items() if k[:3] in ('Cap', 'Uid', 'Gid', 'NoN', 'Sec')},\n"
        "  os.getcwd(), sorted(os.listdir('/proc/self/fd')), dict(os.environ), os.uname().nodename,\n"
        # A later slot has the first one's mounts below its own.
        "  sorted({' '.join(l.split()[3:6]) for l in open('/proc/self/mountinfo')}),\n"
        "  [l.split(':')[2] for l in open('/proc/self/cgroup')],\n"
        "  [os.path.exists(n) and os.readlink(n) for n in ('/proc/self/ns/' + n for n in NAMES)],\n"
        "  [__import__('resource').getrlimit(n) for n in range(16)]]"
    ).replace("NAMES", "('user', 'net', 'ipc', 'uts')")
    second = await walled.ask(sandbox, look)
    waiting[0].cancel()
    await waiting[0].wait()
    assert walled.on_gvisor or len(walled.host.forkers()) == 2
    # The first of several that are free.
    await walled.quiet(2)
    first = await walled.ask(sandbox, look)
    if walled.on_gvisor:
        del first[7], second[7]
    assert first == second


@pytest.mark.needs_root_namespaces
@pytest.mark.not_on_gvisor("nobody on the host reaches a process inside")
async def test_death_of_a_later_slot(walled: Bench) -> None:
    """When the process 1 of a slot dies, its execution is lost, the others and the environment go on."""
    sandbox = await walled.make()
    waiting = start(sandbox, WAIT, 1)
    await started(walled, sandbox, 1)
    lost = sandbox.execute(
        ExecutionRequest("import time\nprint('before', flush=True)\nopen('on', 'w').close()\ntime.sleep(60)", 60)
    )
    await walled.run(sandbox, "import os, time\nwhile not os.path.exists('on'): time.sleep(0.002)")
    for pid in walled.host.forkers()[1:]:
        os.kill(pid, signal.SIGKILL)
    ended = await lost.wait()
    assert (ended.status, ended.exit_code) == (ExecutionStatus.LOST, None)
    assert ended.stdout == b"before\n"
    # The loop hears of every end that has come by then before it goes on.
    await until(lambda: len(walled.host.forkers()) == 1)
    for _round in range(3):
        await asyncio.sleep(0)
    assert sandbox.failure is None
    assert (await walled.run(sandbox, "open('go', 'w').close()")).exit_code == 0
    assert (await waiting[0].wait()).stdout == b"went\n"
    assert await walled.works(sandbox)
    assert walled.ended == []


@pytest.mark.needs_root_namespaces
@pytest.mark.not_on_gvisor("nobody on the host reaches a process inside")
async def test_death_of_the_first_slot(walled: Bench) -> None:
    """It holds the environment: everything in it is lost, and whoever owns it is told why."""
    sandbox = await walled.make()
    first = walled.host.forkers()[0]
    neighbour = await walled.make()
    waiting = start(sandbox, WAIT, 3)
    await started(walled, sandbox, 3)
    os.kill(first, signal.SIGKILL)
    assert {(await each.wait()).status for each in waiting} == {ExecutionStatus.LOST}
    await until(lambda: walled.ended)
    assert walled.ended == [(sandbox.environment_id, "its process 1 ended by itself")]
    assert sandbox.failure is not None
    with pytest.raises(SandboxFailed):
        sandbox.execute(ExecutionRequest("pass", 1))
    assert await walled.works(neighbour)
    await until(lambda: len(walled.host.groups()) == 1)
    assert len(walled.host.forkers()) == 1


async def test_idle_slots_are_let_go(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody has needed for a while is given back, the first slot stays."""
    monkeypatch.setattr(link, "_IDLE_SLOT_S", 0.1)
    sandbox = await bench.make()
    # Those that meet are in a slot each.
    assert {(await each.wait()).stdout for each in start(sandbox, MEET, 5)} == {b"met\n"}
    await bench.quiet()
    assert {(await each.wait()).stdout for each in start(sandbox, MEET, 5)} == {b"met\n"}
    await bench.quiet()
    assert await bench.works(sandbox)


@pytest.mark.needs_root_namespaces
async def test_no_process_is_left_for_a_slot(walled: Bench) -> None:
    """Where an execution holds all processes, others wait for it and then run."""
    sandbox = await walled.make(limits=Limits(processes=8, concurrent_executions=4))
    hog = (
        "import os, time\nn = 0\nwhile n < 2:\n    try:\n        if os.fork() == 0: time.sleep(60)\n"
        "    except BlockingIOError: n += 1; time.sleep(0.05)\nprint('full')\n"
    )
    hogging = sandbox.execute(ExecutionRequest(hog + "time.sleep(0.2)", 60))
    others = [sandbox.execute(ExecutionRequest("print('ran')", 60)) for _other in range(6)]
    assert (await hogging.wait()).stdout == b"full\n"
    assert [(await each.wait()).stdout for each in others] == [b"ran\n"] * 6


@pytest.mark.not_on_gvisor("slow; the suite of the contract asks the same")
async def test_many_at_once_in_many(bench: Bench) -> None:
    """Many environments, each with some at once, mix up no answers."""
    sandboxes = [await bench.make() for _each in range(4)]

    async def one(place: int, number: int) -> None:
        ran = await bench.run(sandboxes[place], f"import sys\nprint({place}, {number})\nsys.exit({number})")
        assert (ran.stdout, ran.exit_code) == (f"{place} {number}\n".encode(), number)

    await asyncio.gather(*(one(place, number) for place in range(4) for number in range(20)))
