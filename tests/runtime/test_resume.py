"""Code that goes on while its gateway is gone."""

import asyncio
import sys
import time
from pathlib import Path

import pytest

from sandgate.core.execution import ExecutionRequest, StepData
from sandgate.core.ids import EnvironmentId, make_environment_id
from sandgate.core.limits import Limits
from sandgate.core.states import ExecutionStatus, Isolation
from sandgate.sandbox.base import Sandbox
from sandgate.sandbox.zygote_runtime import ZygoteRuntime
from tests.runtime.hosts import Bench, Lag, LauncherHost, available_versions, until
from tests.stalls import Stalls

ROOT = Path(__file__).resolve().parent.parent.parent
TEMPLATE = f"python-{available_versions()[-1]}"
TAG = "run-1|step|-|1"
_STANDARD = pytest.param(Isolation.STANDARD, marks=pytest.mark.needs_root_namespaces)
_GVISOR = pytest.param(Isolation.GVISOR, marks=pytest.mark.needs_gvisor)
both = pytest.mark.parametrize("isolation", [_STANDARD, Isolation.PROCESS])
every = pytest.mark.parametrize("isolation", [_STANDARD, _GVISOR, Isolation.PROCESS])


def request_of(code: str = "", timeout_s: float = 100.0, tag: str = TAG) -> ExecutionRequest:
    """What a later gateway knows of the execution."""
    return ExecutionRequest(code, timeout_s, StepData({"n": 1}, {}), is_last=True, tag=tag)


def spool_of(host: LauncherHost) -> Path:
    """Where the gateways of a test leave output to each other."""
    return host.config.run_folder / "spool"


async def run_and_kill(host: LauncherHost, environment_id: EnvironmentId, code: str, word: bytes) -> None:
    """Begin code in a gateway, and kill the gateway once it has said a word."""
    arguments = [str(host.config.socket_path), host.isolation, TEMPLATE, environment_id, TAG, code, str(spool_of(host))]
    gateway = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.runtime.kept_gateway", *arguments, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert gateway.stdout is not None
    while await gateway.stdout.readline() != word:
        assert gateway.returncode is None
    gateway.kill()
    await gateway.wait()


async def connect(host: LauncherHost) -> Bench:
    """The next gateway, which knows of no environments."""
    bench = Bench(host, ZygoteRuntime(host.isolation, host.config.socket_path, spool_of(host)))
    await bench.runtime.start(bench.on_end)
    assert await bench.runtime.adopt({}) == []
    return bench


def host_of(isolation: Isolation, request: pytest.FixtureRequest) -> LauncherHost:
    """The launcher of a class."""
    host: LauncherHost = request.getfixturevalue(f"{isolation}_host")
    return host


# Until the test takes the file away.
HELD = "import os, sys, time\nopen('held', 'w').close()\nwhile os.path.exists('held'): time.sleep(0.002)\n"


async def let_go(bench: Bench, sandbox: Sandbox, file: str = "held") -> None:
    """Take the file of such code away, as soon as it is there."""
    wait = f"import os, time\nwhile not os.path.exists({file!r}): time.sleep(0.002)\n"
    assert (await bench.run(sandbox, f"{wait}os.remove({file!r})")).exit_code == 0


@every
async def test_it_is_taken_up_and_ends(isolation: Isolation, request: pytest.FixtureRequest) -> None:
    """What it prints and hands on after the kill of its gateway arrives, once."""
    host, environment_id = host_of(isolation, request), make_environment_id()
    await run_and_kill(host, environment_id, f"{HELD}print('after')\noutputs['n'] = inputs['n'] + 1", b"begun\n")
    bench = await connect(host)
    resumed = await bench.runtime.resume(request_of(), Limits())
    assert resumed is not None
    assert resumed.sandbox.environment_id == environment_id
    assert await bench.runtime.resume(request_of(), Limits()) is None
    await let_go(bench, resumed.sandbox)
    ended = await resumed.execution.wait()
    assert (ended.status, ended.stdout, ended.outputs) == (ExecutionStatus.COMPLETED, b"after\n", b'{"n": 2}')
    await bench.runtime.destroy(environment_id)
    await until(lambda: host.processes() == {})
    await bench.runtime.stop(keep_sandboxes=True)


@every
@pytest.mark.parametrize("word", [b"begun\n", b"ended\n"])
@pytest.mark.few_on_gvisor(word=[b"ended\n"])
async def test_its_end_is_told_again(isolation: Isolation, word: bytes, request: pytest.FixtureRequest) -> None:
    """Whether or not the gateway that was killed had heard of the end."""
    host, environment_id = host_of(isolation, request), make_environment_id()
    await run_and_kill(host, environment_id, "import sys; sys.exit(3)", word)
    bench = await connect(host)
    resumed = await bench.runtime.resume(request_of(), Limits())
    assert resumed is not None
    ended = await resumed.execution.wait()
    assert (ended.status, ended.exit_code) == (ExecutionStatus.FAILED, 3)
    # The sandbox is as good as any.
    assert await bench.works(resumed.sandbox)
    await bench.runtime.destroy(environment_id)
    await bench.runtime.stop(keep_sandboxes=True)


@both
async def test_its_time_counts_from_its_beginning(isolation: Isolation, request: pytest.FixtureRequest) -> None:
    """Nobody gains time by the death of a gateway."""
    host, environment_id = host_of(isolation, request), make_environment_id()
    await run_and_kill(host, environment_id, "import time; time.sleep(1000)", b"begun\n")
    begun_at = time.monotonic()
    bench = await connect(host)
    await asyncio.sleep(4)  # waits: the time that has to be over
    taken_at = time.monotonic()
    with Stalls.noted() as stalls:
        resumed = await bench.runtime.resume(request_of(timeout_s=taken_at - begun_at), Limits())
        assert resumed is not None
        ended = await resumed.execution.wait()
        assert ended.status is ExecutionStatus.TIMED_OUT
        took_s = time.monotonic() - taken_at
    assert took_s - stalls.total_s < taken_at - begun_at
    await bench.runtime.destroy(environment_id)
    await bench.runtime.stop(keep_sandboxes=True)


@every
async def test_it_can_be_cancelled(isolation: Isolation, request: pytest.FixtureRequest) -> None:
    """A kill reaches it as before."""
    host, environment_id = host_of(isolation, request), make_environment_id()
    await run_and_kill(host, environment_id, "import time; time.sleep(1000)", b"begun\n")
    bench = await connect(host)
    resumed = await bench.runtime.resume(request_of(), Limits())
    assert resumed is not None
    resumed.execution.cancel()
    assert (await resumed.execution.wait()).status is ExecutionStatus.CANCELLED
    await bench.runtime.destroy(environment_id)
    await bench.runtime.stop(keep_sandboxes=True)


@every
async def test_what_nobody_wants_is_ended(isolation: Isolation, request: pytest.FixtureRequest) -> None:
    """After everybody has taken up what is theirs."""
    host, environment_id = host_of(isolation, request), make_environment_id()
    await run_and_kill(host, environment_id, "import time; time.sleep(1000)", b"begun\n")
    bench = await connect(host)
    assert await bench.runtime.resume(request_of(tag="another"), Limits()) is None
    await bench.runtime.discard()
    await until(lambda: host.processes() == {})
    assert await bench.runtime.resume(request_of(), Limits()) is None
    await bench.runtime.stop(keep_sandboxes=True)


@both
async def test_of_two_with_one_tag_one_is_taken_up(isolation: Isolation, request: pytest.FixtureRequest) -> None:
    """And nothing stays of the other."""
    host = host_of(isolation, request)
    for _time in range(2):
        await run_and_kill(host, make_environment_id(), "import time; time.sleep(1000)", b"begun\n")
    bench = await connect(host)
    resumed = await bench.runtime.resume(request_of(), Limits())
    assert resumed is not None
    await until(lambda: len(host.forkers()) == 1)
    await bench.runtime.destroy(resumed.sandbox.environment_id)
    await bench.runtime.stop(keep_sandboxes=True)


@both
async def test_a_sandbox_that_ends_by_itself_leaves_no_output(
    isolation: Isolation, request: pytest.FixtureRequest
) -> None:
    """Nobody can take up what ran in it."""
    host = host_of(isolation, request)
    bench = await connect(host)
    sandbox = await bench.make()
    running = sandbox.execute(request_of("import time; print('x' * 50_000, flush=True); time.sleep(1000)"))
    await until(lambda: list(spool_of(host).glob("*")))
    await sandbox.extend(0.1)
    assert (await running.wait()).status is ExecutionStatus.LOST
    await until(lambda: bench.ended)
    await until(lambda: not list(spool_of(host).glob("*")))
    await bench.runtime.stop(keep_sandboxes=True)


@every
@pytest.mark.parametrize("count", [0, 30_000, 300_000, 2_000_000])
@pytest.mark.parametrize("word", [b"seen\n", b"ended\n"])
@pytest.mark.few_on_gvisor(count=[300_000], word=[b"ended\n"])
async def test_nothing_that_it_printed_is_lost(
    isolation: Isolation, count: int, word: bytes, request: pytest.FixtureRequest
) -> None:
    """Neither what the gateway had read before it was killed, nor what came after, up to the cap."""
    host, environment_id = host_of(isolation, request), make_environment_id()
    if count > Limits().output_bytes:
        # Beyond the cap the word is not seen any more.
        word = b"ended\n"
    held = HELD if word == b"seen\n" else ""
    code = f"print('now', file=sys.stderr)\nprint('x' * {count})\nprint('now', flush=True)\n{held}print('after')"
    await run_and_kill(host, environment_id, f"import sys\n{code}\noutputs['n'] = 1", word)
    bench = await connect(host)
    resumed = await bench.runtime.resume(request_of(), Limits())
    assert resumed is not None
    if held:
        await let_go(bench, resumed.sandbox)
    ended = await resumed.execution.wait()
    whole = b"x" * count + b"\nnow\nafter\n"
    assert ended.stdout == whole[: Limits().output_bytes]
    assert (ended.stderr, ended.outputs, ended.stdout_truncated) == (b"now\n", b'{"n": 1}', len(whole) > 1 << 20)
    await bench.runtime.destroy(environment_id)
    assert not list(spool_of(host).glob("*"))
    await bench.runtime.stop(keep_sandboxes=True)


@both
async def test_the_largest_outputs_wait_for_the_next_gateway(
    isolation: Isolation, request: pytest.FixtureRequest
) -> None:
    """The child does not have to wait for a reader to hand on all that it may."""
    host, environment_id = host_of(isolation, request), make_environment_id()
    await run_and_kill(host, environment_id, "outputs['x'] = 'y' * (256 * 1024 - 100)", b"begun\n")
    bench = await connect(host)
    resumed = await bench.runtime.resume(request_of(), Limits())
    assert resumed is not None
    ended = await resumed.execution.wait()
    assert ended.outputs == b'{"x": "' + b"y" * (256 * 1024 - 100) + b'"}'
    await bench.runtime.destroy(environment_id)
    await bench.runtime.stop(keep_sandboxes=True)


@both
async def test_output_without_a_kill_is_the_same(isolation: Isolation, request: pytest.FixtureRequest) -> None:
    """What is kept for another gateway is what this one answers, fast or slow, little or much."""
    host = host_of(isolation, request)
    bench = await connect(host)
    for code in (
        "print('x')",
        "import time\nfor n in range(50): print(n, flush=True); time.sleep(0.002)",
        "for n in range(20_000): print(n)",
        "import sys\nfor n in range(300): sys.stdout.write('z' * 1000); sys.stderr.write('e' * 500)",
        "import os\nos.write(1, b'q' * 65536); os.write(2, b'q' * 65536); os.write(1, b'r' * 10)",
    ):
        sandbox = await bench.make()
        plain = await sandbox.execute(ExecutionRequest(code, 60)).wait()
        kept = await sandbox.execute(request_of(code)).wait()
        assert (kept.stdout, kept.stderr, kept.exit_code) == (plain.stdout, plain.stderr, plain.exit_code)
        await bench.runtime.destroy(sandbox.environment_id)
    assert not list(spool_of(host).glob("*"))
    await bench.runtime.stop(keep_sandboxes=True)


@both
async def test_a_flood_ends_as_any_other(isolation: Isolation, request: pytest.FixtureRequest) -> None:
    """The gateway goes on with other things meanwhile, and no more than the cap is on its disk."""
    host = host_of(isolation, request)
    bench = await connect(host)
    sandbox = await bench.make()
    running = sandbox.execute(request_of("import os\nwhile True: os.write(1, b'z' * 65536)"))
    async with Lag.measured() as lag:
        ended = await running.wait()
    assert (ended.status, len(ended.stdout)) == (ExecutionStatus.OUTPUT_LIMIT, Limits().output_bytes)
    assert lag.worst_s < 2
    assert sum(path.stat().st_size for path in spool_of(host).glob("*")) <= Limits().output_bytes + 1
    await bench.runtime.destroy(sandbox.environment_id)
    await bench.runtime.stop(keep_sandboxes=True)
