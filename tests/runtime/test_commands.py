"""Commands beside what is executed: fed, resized, signalled and ended from outside, whatever they do inside."""

import asyncio
import signal

import pytest

from sandgate.core.limits import Limits
from sandgate.core.states import ExecutionStatus
from tests.runtime.commands import Started
from tests.runtime.hosts import Bench

MIB = 1024**2


async def test_a_command_is_fed_and_ends_by_itself(bench: Bench) -> None:
    """Both streams of output, input to its end, the exit code, variables and the folder."""
    sandbox = await bench.make()
    script = 'echo "$X $(basename "$PWD")"; cat; echo done >&2; exit 3'
    command = Started(sandbox, "sh", "-c", script, takes_input=True, env={"X": "set"}, cwd=".")
    await command.begun()
    await command.type(b"typed\n")
    await command.written.until(b"typed\n")
    command.talk.end_input()
    ended = await command.end()
    assert (ended.status, ended.exit_code) == (ExecutionStatus.FAILED, 3)
    assert command.written.text == {"stdout": b"set workspace\ntyped\n", "stderr": b"done\n"}
    assert not command.talk.takes_input
    assert await bench.works(sandbox)


async def test_a_terminal_is_one(bench: Bench) -> None:
    """With its size, its echo, its control characters and jobs that are in the foreground."""
    sandbox = await bench.make()
    command = Started(sandbox, "sh", "-i", terminal=(31, 97), env={"PS1": "> "})
    await command.written.until(b"> ")
    await command.type(b"stty size; test -t 0 && echo is-a-$(basename $(tty))\n")
    await command.written.until(b"31 97\r\n")
    command.resize(40, 120)
    await command.type(b"stty size\n")
    await command.written.until(b"40 120\r\n")
    job = 'trap "echo caught-$((1+1)); exit" INT; echo job-$((1+1)); while :; do sleep 0.02; done'
    await command.type(f"sh -c '{job}'\n".encode())
    await command.written.until(b"job-2\r\n")
    await command.type(b"\x03")
    await command.written.until(b"caught-2\r\n")
    await command.type(b"echo after-$((1+1))\n")
    await command.written.until(b"after-2\r\n")
    await command.type(b"exit 6\n")
    assert (await command.end()).exit_code == 6


@pytest.mark.not_on_gvisor("the terminals of an old one know no end of input")
async def test_the_end_of_input_is_one_on_a_terminal(bench: Bench) -> None:
    """As if somebody had typed the character for it."""
    sandbox = await bench.make()
    command = Started(sandbox, "sh", "-c", "echo ready; cat; exit 7", terminal=(24, 80))
    await command.written.until(b"ready\r\n")
    command.talk.end_input()
    assert (await command.end()).exit_code == 7


async def test_what_ignores_signals_is_ended_with_all_it_started(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """HUP and TERM may be ignored, a session of its own may be made: nothing outlives the end."""
    sandbox = await bench.make()
    script = (
        'trap "" HUP TERM; (trap "" HUP TERM; exec setsid sh -c "while :; do echo x >> alive; sleep 0.01; done") '
        ">/dev/null 2>&1 & echo started; while :; do sleep 0.02; done"
    )
    command = Started(sandbox, "sh", "-c", script)
    await command.written.until(b"started\n")
    for number in (signal.SIGHUP, signal.SIGTERM):
        command.signal(number)
    look = "import os, time\nbefore = os.path.getsize('alive') if os.path.exists('alive') else 0\ntime.sleep(0.1)\n"
    look += "answer = os.path.exists('alive') and os.path.getsize('alive') > before"
    async with asyncio.timeout(60):
        while not await bench.ask(sandbox, look):
            pass
    assert not command.execution.ended  # type: ignore[attr-defined]
    # It answers when all of it is dead, however long the kernel takes.
    monkeypatch.setattr("sandgate.sandbox.execution._CONFIRM_S", 20.0)
    command.execution.cancel()
    assert (await command.end()).status is ExecutionStatus.CANCELLED
    assert await bench.ask(sandbox, look) is False


async def test_a_signal_reaches_what_reads_no_input(bench: Bench) -> None:
    """Input is taken as far as there is room for it, and nothing waits behind it."""
    sandbox = await bench.make()
    command = Started(sandbox, "sh", "-c", 'trap "echo caught; exit 5" USR1; echo ready; while :; do sleep 0.02; done',
                      takes_input=True)  # fmt: skip
    await command.written.until(b"ready\n")
    assert await command.talk.feed(bytes(4 * MIB), 0.3) < MIB
    assert command.talk.feed_some(b"x") == 0
    command.signal(signal.SIGUSR1)
    ended = await command.end()
    assert (ended.exit_code, command.written.text["stdout"]) == (5, b"ready\ncaught\n")
    assert command.talk.feed_some(b"x") == 0


async def test_much_input_comes_whole(bench: Bench) -> None:
    """A megabyte through a window of less, and its end after it."""
    sandbox = await bench.make()
    command = Started(sandbox, "sh", "-c", "wc -c", takes_input=True)
    await command.begun()
    await command.type(b"x" * MIB)
    command.talk.end_input()
    assert (await command.end()).exit_code == 0
    assert command.written.text["stdout"].strip() == b"1048576"


async def test_one_that_closes_its_input_takes_no_more(bench: Bench) -> None:
    """Whoever feeds it is told, instead of being left to wait."""
    sandbox = await bench.make()
    command = Started(sandbox, "sh", "-c", "exec <&-; echo closed; while :; do sleep 0.02; done", takes_input=True)
    await command.written.until(b"closed\n")
    assert await command.talk.feed(bytes(4 * MIB), 60) < 4 * MIB
    assert not command.talk.takes_input
    command.execution.cancel()
    await command.end()


async def test_one_that_lets_go_of_its_terminal_is_still_held(bench: Bench) -> None:
    """It runs on without one, costs nothing meanwhile, and can come back to it."""
    sandbox = await bench.make()
    # Waits without any work of its own, however long it takes until somebody writes.
    script = "t=$(tty); mkfifo go; exec <&- >&- 2>&-; read word < go; exec >$t; echo back; exit 4"
    command = Started(sandbox, "sh", "-c", script, terminal=(24, 80))
    await command.begun()
    go = "import os, time\nwhile not os.path.exists('go'): time.sleep(0.01)\n"
    go += "time.sleep(0.1)\nopen('go', 'w').write('x\\n')"
    await bench.run(sandbox, go)
    ended = await command.end()
    assert (ended.exit_code, command.written.text["stdout"]) == (4, b"back\r\n")
    assert ended.usage.cpu_ms < 1000


@pytest.mark.not_on_gvisor("its terminals lose a part of large writes that have to wait")
async def test_who_writes_waits_for_who_reads(bench: Bench) -> None:
    """On a terminal as through a pipe: nothing piles up, and nothing is lost."""
    sandbox = await bench.make()
    # A terminal of an old gVisor's loses what nobody reads in time.
    for terminal in (None,) if bench.on_gvisor else (None, (24, 80)):
        command = Started(
            sandbox, "sh", "-c", "rm -f end; head -c 3000000 /dev/zero | tr '\\0' x; touch end", terminal=terminal
        )
        command.written.paused = True
        await command.begun()
        await bench.run(sandbox, "import time\ntime.sleep(0.15)")
        assert len(command.written.text["stdout"]) < MIB
        assert await bench.ask(sandbox, "import os\nanswer = os.path.exists('end')") is False
        command.written.go_on()
        assert (await command.end()).exit_code == 0
        assert command.written.text["stdout"] == b"x" * 3_000_000


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (65535, 65535), (0, 0)])
async def test_odd_sizes_are_only_numbers(bench: Bench, rows: int, columns: int) -> None:
    """The kernel takes any, and nobody inside is harmed."""
    sandbox = await bench.make()
    command = Started(sandbox, "sh", "-c", "read x; stty size", terminal=(24, 80))
    await command.begun()
    for _time in range(100):
        command.resize(rows, columns)
    await command.type(b"\n")
    await command.end()
    assert f"{rows} {columns}\r\n".encode() in command.written.text["stdout"]


async def test_what_cannot_be_started_is_said(bench: Bench) -> None:
    """With the error that the kernel has for it, and nothing of the product's."""
    sandbox = await bench.make()
    await bench.run(sandbox, "import os\nopen('text', 'w').write('no program')\nos.chmod('text', 0o755)")
    for words, fields, name in (
        (("no-such-program",), {}, "FileNotFoundError"),
        (("./text",), {}, "OSError"),
        (("sh",), {"cwd": "nowhere"}, "FileNotFoundError"),
    ):
        ended = await Started(sandbox, *words, **fields).end()  # type: ignore[arg-type]
        assert ended.error is not None
        assert (ended.exit_code, ended.error.name, ended.error.traceback) == (127, name, "")


async def test_signals_and_limits_are_ends(bench: Bench) -> None:
    """A signal is told as one; a time limit ends it with all that it started."""
    sandbox = await bench.make()
    command = Started(sandbox, "sh", "-c", "echo ready; exec sleep 100")
    await command.written.until(b"ready\n")
    command.signal(signal.SIGINT)
    ended = await command.end()
    assert ended.error is not None
    assert (ended.exit_code, ended.error.name, ended.error.value) == (130, "Signal", "ended by SIGINT")
    late = await Started(sandbox, "sleep", "100", timeout_s=0.2).end()
    assert late.status is ExecutionStatus.TIMED_OUT


@pytest.mark.needs_root_namespaces
async def test_commands_take_no_place_of_what_is_executed(standard: Bench) -> None:
    """However many run beside it, as many executions run side by side as before."""
    sandbox = await standard.make(limits=Limits(concurrent_executions=1))
    commands = [Started(sandbox, "sleep", "100") for _number in range(3)]
    for command in commands:
        await command.begun()
    assert await standard.ask(sandbox, "answer = 5") == 5
    for command in commands:
        command.execution.cancel()
        assert (await command.end()).status is ExecutionStatus.CANCELLED


@pytest.mark.needs_root_namespaces
async def test_a_sandbox_that_ends_takes_its_commands_along(standard: Bench) -> None:
    """They are lost, and whoever feeds them is told."""
    sandbox = await standard.make()
    command = Started(sandbox, "sleep", "100", takes_input=True)
    await command.begun()
    await standard.runtime.destroy(sandbox.environment_id)
    assert (await command.end()).status is ExecutionStatus.LOST
    assert not command.talk.takes_input
