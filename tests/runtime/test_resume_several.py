"""Several executions of one sandbox that go on while their gateway is gone."""

import asyncio
import json
import os
import sys
import time
from collections.abc import Mapping

import pytest

from sandgate.core.execution import ExecutionRequest, StepData, Termination
from sandgate.core.ids import EnvironmentId, make_environment_id
from sandgate.core.limits import Limits
from sandgate.core.states import ExecutionStatus, Isolation
from sandgate.sandbox.base import Sandbox
from sandgate.sandbox.zygote_runtime import ZygoteRuntime
from tests.runtime.hosts import Bench, LauncherHost, until
from tests.runtime.test_resume import ROOT, TEMPLATE, both, host_of, let_go, spool_of

SLEEP = "import time; time.sleep(1000)"
# Its name is what it is found by from outside.
LEAVING = """
import ctypes, os, time
ctypes.CDLL(None).prctl(15, b"leaving", 0, 0, 0)
place = os.environ["SANDGATE_ARTIFACTS"]
open(place + "/kept", "w").close()
os.rename(place + "/kept", place + "/left")
folder, name = os.path.split(place)
open(folder + "/mine-" + name, "w").close()
time.sleep(1000)
"""
HELLO = "print('hello', inputs['tag'])\noutputs['tag'] = inputs['tag']"


# Says something at once, and something when the test takes its file away.
LATER = """
import os, time
print('before', flush=True)
held = 'held-' + inputs['tag']
open(held, 'w').close()
while os.path.exists(held): time.sleep(0.002)
print('after')
outputs['tag'] = inputs['tag']
"""


async def release(bench: Bench, sandbox: Sandbox, *tags: str) -> None:
    """Let the code of these go on, as soon as it has come as far as that."""
    for tag in tags:
        await let_go(bench, sandbox, f"held-{tag}")


def request_of(tag: str, timeout_s: float = 100.0, code: str = HELLO) -> ExecutionRequest:
    """What a later gateway knows of one of them."""
    return ExecutionRequest(code, timeout_s, StepData({"tag": tag}, {}), tag=tag)


async def run_and_kill(host: LauncherHost, environment_id: EnvironmentId, codes: Mapping[str, str]) -> None:
    """Begin them in a gateway, and kill it."""
    arguments = [str(host.config.socket_path), host.isolation, TEMPLATE, environment_id, str(spool_of(host))]
    gateway = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.runtime.several_gateway", *arguments, json.dumps(codes),
        cwd=ROOT, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert gateway.stdout is not None
    while await gateway.stdout.readline() != b"begun\n":
        assert gateway.returncode is None
    gateway.kill()
    await gateway.wait()


async def connect(host: LauncherHost, *expected: EnvironmentId, tagged_s: float = 20.0) -> tuple[Bench, list[Sandbox]]:
    """The next gateway, and what it finds of the sandboxes that it knows of."""
    runtime = ZygoteRuntime(host.isolation, host.config.socket_path, spool_of(host), tagged_s=tagged_s)
    bench = Bench(host, runtime)
    await runtime.start(bench.on_end)
    return bench, list(await runtime.adopt({environment_id: Limits() for environment_id in expected}))


async def take_up(bench: Bench, tag: str, timeout_s: float = 100.0) -> "asyncio.Task[Termination]":
    """The end of one of them."""
    resumed = await bench.runtime.resume(request_of(tag, timeout_s), Limits())
    assert resumed is not None
    return asyncio.ensure_future(resumed.execution.wait())


async def close(host: LauncherHost, bench: Bench, environment_id: EnvironmentId) -> None:
    """Nothing stays."""
    await bench.runtime.destroy(environment_id)
    await until(lambda: host.processes() == {})
    assert not list(spool_of(host).glob("*"))
    await bench.runtime.stop(keep_sandboxes=True)


@both
async def test_each_is_taken_up_and_ends(isolation: Isolation, request: pytest.FixtureRequest) -> None:
    """Side by side, those that had ended, too, each with its own output; what had no tag is gone."""
    host, environment_id = host_of(isolation, request), make_environment_id()
    flood = f"print('x' * 300_000)\n{LATER}"
    codes = {"ended-1": HELLO, "ended-2": "import sys; sys.exit(3)", "a": LATER, "b": flood, "c": LATER}
    await run_and_kill(host, environment_id, codes)
    bench, sandboxes = await connect(host, environment_id)
    assert [sandbox.environment_id for sandbox in sandboxes] == [environment_id]
    assert set(bench.runtime.kept()) == set(codes)
    ending = {tag: await take_up(bench, tag) for tag in codes}
    await release(bench, sandboxes[0], "a", "b", "c")
    ends = {tag: await end for tag, end in ending.items()}
    assert bench.runtime.kept() == frozenset()
    for tag, expected in {"ended-1": b"hello ended-1\n", "a": b"before\nafter\n", "c": b"before\nafter\n"}.items():
        ended = ends[tag]
        assert (ended.status, ended.stdout, ended.outputs) == (
            ExecutionStatus.COMPLETED, expected, json.dumps({"tag": tag}).encode(),
        )  # fmt: skip
    assert ends["b"].stdout == b"x" * 300_000 + b"\nbefore\nafter\n"
    assert (ends["ended-2"].status, ends["ended-2"].exit_code) == (ExecutionStatus.FAILED, 3)
    # The sandbox is as good as any, and side by side.
    assert all(await asyncio.gather(*(bench.works(sandboxes[0]) for _time in range(4))))
    await close(host, bench, environment_id)


@both
async def test_one_is_cancelled_and_the_others_go_on(isolation: Isolation, request: pytest.FixtureRequest) -> None:
    """The kill reaches one slot; a time limit of one counts from its beginning, and ends that one only."""
    host, environment_id = host_of(isolation, request), make_environment_id()
    await run_and_kill(host, environment_id, {"a": SLEEP, "b": LATER, "c": SLEEP, "d": SLEEP})
    bench, sandboxes = await connect(host, environment_id)
    resumed = await bench.runtime.resume(request_of("a"), Limits())
    assert resumed is not None
    going_on, short = await take_up(bench, "b"), await take_up(bench, "c", timeout_s=0.1)
    resumed.execution.cancel()
    assert (await resumed.execution.wait()).status is ExecutionStatus.CANCELLED
    assert (await short).status is ExecutionStatus.TIMED_OUT
    # Nobody wants the last one.
    await bench.runtime.discard()
    await release(bench, sandboxes[0], "b")
    assert (await going_on).stdout == b"before\nafter\n"
    assert bench.runtime.kept() == frozenset()
    await close(host, bench, environment_id)


@both
async def test_they_are_taken_up_again_and_again(isolation: Isolation, request: pytest.FixtureRequest) -> None:
    """Until somebody says that what they came to is known; then nobody hears of them any more."""
    host, environment_id = host_of(isolation, request), make_environment_id()
    await run_and_kill(host, environment_id, {"ended": HELLO, "a": HELLO, "b": SLEEP})
    for _gateway in range(2):
        bench, _ = await connect(host, environment_id)
        assert set(bench.runtime.kept()) == {"ended", "a", "b"}
        assert (await (await take_up(bench, "ended"))).stdout == b"hello ended\n"
        assert (await (await take_up(bench, "a"))).stdout == b"hello a\n"
        await take_up(bench, "b")
        await bench.runtime.stop(keep_sandboxes=True)
    bench, _ = await connect(host, environment_id)
    for tag in ("ended", "b"):
        await take_up(bench, tag)
        bench.runtime.let_go(tag)
    await bench.runtime.check()
    await bench.runtime.stop(keep_sandboxes=True)
    bench, sandboxes = await connect(host, environment_id)
    assert set(bench.runtime.kept()) == {"a"}
    await bench.runtime.discard()
    assert await bench.works(sandboxes[0])
    await close(host, bench, environment_id)


@both
async def test_what_was_kept_and_not_begun_begins(isolation: Isolation, request: pytest.FixtureRequest) -> None:
    """A gateway may be killed after it has had the child kept, and before it has given it its code."""
    host, environment_id = host_of(isolation, request), make_environment_id()
    await run_and_kill(host, environment_id, {"unsent": HELLO, "a": HELLO})
    bench, _ = await connect(host, environment_id)
    ended = await (await take_up(bench, "unsent"))
    assert (ended.status, ended.stdout) == (ExecutionStatus.COMPLETED, b"hello unsent\n")
    await close(host, bench, environment_id)


@both
async def test_what_nobody_holds_ends(isolation: Isolation, request: pytest.FixtureRequest) -> None:
    """It may run elsewhere by then; the gateway that comes back hears that it is lost, and the sandbox stays."""
    host, environment_id = host_of(isolation, request), make_environment_id()
    bench, _ = await connect(host, tagged_s=3.0)
    sandbox = await bench.make()
    environment_id = sandbox.environment_id
    running = [asyncio.ensure_future(sandbox.execute(request_of(tag, code=SLEEP)).wait()) for tag in ("a", "b")]
    apart_s, held_at = 0.0, time.monotonic()
    for _beat in range(6):
        await asyncio.sleep(0.6)  # waits: longer in all than it lives unheld
        bench.runtime.hold()
        apart_s, held_at = max(apart_s, time.monotonic() - held_at), time.monotonic()
    # Nothing is promised to who was late himself.
    assert not any(end.done() for end in running) or apart_s > 2
    assert [(await end).status for end in running] == [ExecutionStatus.LOST] * 2
    assert sandbox.failure is None
    assert await bench.works(sandbox)
    await close(host, bench, environment_id)


@both
async def test_files_of_what_ended_unheld_are_removed(isolation: Isolation, request: pytest.FixtureRequest) -> None:
    """When no gateway is there to do it, by the next one, where the sandbox goes on; others' files stay."""
    host = host_of(isolation, request)
    bench, _ = await connect(host, tagged_s=60.0)
    sandbox = await bench.make()
    running = [
        asyncio.ensure_future(
            sandbox.execute(ExecutionRequest(LEAVING, 100.0, data, tag=f"run-1|a|-|1|{folder}")).wait()
        )
        for folder, data in ((folder, StepData({}, {}, folder)) for folder in ("first", "second"))
    ]
    look = "import os\nanswer = sorted(os.listdir(os.environ.get('TMPDIR', '/tmp')))"
    while [name for name in await bench.ask(sandbox, look) if name.startswith("mine-")] != [
        "mine-first",
        "mine-second",
    ]:
        bench.runtime.hold()
    before = await bench.ask(sandbox, look)
    assert {"first", "second", "first-inputs.json", "second-inputs.json"} <= set(before)
    assert list(host.processes().values()).count("leaving") == 2
    # So long before nobody needed to say a word, and this little from here on.
    bench.runtime._tagged_s = 1.0
    bench.runtime.hold()
    await bench.runtime.stop(keep_sandboxes=True)
    await asyncio.gather(*running, return_exceptions=True)
    await until(lambda: "leaving" not in host.processes().values())
    bench, (adopted,) = await connect(host, sandbox.environment_id)
    assert not bench.runtime.kept()
    async with asyncio.timeout(60):
        while "first" in (names := await bench.ask(adopted, look)) or "second" in names:
            pass
    assert [name for name in names if "first" in name or "second" in name] == ["mine-first", "mine-second"]
    await close(host, bench, sandbox.environment_id)


@both
async def test_a_cancelled_adoption_leaves_nothing(isolation: Isolation, request: pytest.FixtureRequest) -> None:
    """Whoever gives up in the middle of taking up has lost nothing: what was left goes with the next discard."""
    host, environment_id = host_of(isolation, request), make_environment_id()
    await run_and_kill(host, environment_id, {"a": SLEEP})
    bench, _ = await connect(host)
    before = len(os.listdir("/proc/self/fd"))
    taking = asyncio.ensure_future(bench.runtime.resume(request_of("a"), Limits()))
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    await bench.runtime.discard()
    await until(lambda: host.processes() == {})
    await until(lambda: len(os.listdir("/proc/self/fd")) < before)
    await bench.runtime.stop(keep_sandboxes=True)


@both
async def test_ends_of_a_time_without_a_gateway_are_told(isolation: Isolation, request: pytest.FixtureRequest) -> None:
    """In every slot, whatever was said in it meanwhile."""
    host, environment_id = host_of(isolation, request), make_environment_id()
    ends_at = time.time() + 0.8
    wait = f"import time\nprint('before', flush=True)\nwhile time.time() < {ends_at}: time.sleep(0.002)\nprint('after')"
    await run_and_kill(host, environment_id, dict.fromkeys("abc", wait))
    await asyncio.sleep(max(0.0, ends_at + 0.2 - time.time()))  # waits: for the ends
    bench, _ = await connect(host, environment_id)
    ends = [await (await take_up(bench, tag)) for tag in "abc"]
    assert [ended.stdout for ended in ends] == [b"before\nafter\n"] * 3
    await close(host, bench, environment_id)
