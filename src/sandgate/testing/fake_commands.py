"""Commands of fake sandboxes: the worker of the real ones, as a process of its own in a folder of this machine."""

import asyncio
import json
import os
import signal
import socket
import sys
from contextlib import suppress
from importlib.resources import files
from pathlib import Path

from sandgate.core.command_talk import CommandStart
from sandgate.core.execution import ErrorReport
from sandgate.core.output_watch import OutputWatch
from sandgate.sandbox.command_channel import CommandChannel, describe
from sandgate_agent import wire

_CALL = (
    "import json, sys\nsys.path.insert(0, sys.argv[3])\nfrom sandgate_agent import process_worker\n"
    "sys.exit(process_worker.run(json.loads(sys.argv[1]), int(sys.argv[2])))"
)
_AGENT = str(Path(str(files("sandgate_agent"))).parent)
_READ_BYTES = 65_536


def describe_exit(code: int) -> ErrorReport:
    """As a sandbox tells of an end that is no success."""
    if code > 128:
        return ErrorReport("Signal", f"ended by {signal.Signals(code - 128).name}", "")
    return ErrorReport("NonZeroExit", f"exit code {code}", "")


async def run_command(folder: str, command: CommandStart, watch: OutputWatch) -> tuple[int, ErrorReport | None]:
    """Run it to its end in the folder; the exit code as a shell counts, and the report of one that was not started.

    Killed with all that it has started in its session when it is cancelled.
    """
    outer, inner = socket.socketpair()
    outer.setblocking(False)
    words = CommandChannel(command.talk)
    with outer, inner:
        worker = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-S", "-c", _CALL, json.dumps(describe(command.command)), str(inner.fileno()), _AGENT,
            cwd=folder, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE, pass_fds=[inner.fileno()], start_new_session=True,
        )  # fmt: skip
        inner.close()
        assert worker.stdout is not None  # noqa: S101 - asked for
        assert worker.stderr is not None  # noqa: S101 - asked for
        talking = [asyncio.ensure_future(_hear(outer, words)), asyncio.ensure_future(_tell(outer, words))]
        try:
            await asyncio.gather(_show(worker.stdout, "stdout", watch), _show(worker.stderr, "stderr", watch))
            code = await worker.wait()
            await asyncio.wait(talking[:1], timeout=1)
        finally:
            for task in talking:
                task.cancel()
            await asyncio.wait(talking)
            words.close()
            if worker.returncode is None:
                _kill_all(worker.pid)
                # Its end is only told of once its output has been read to the end.
                await asyncio.gather(worker.stdout.read(), worker.stderr.read())
                await worker.wait()
    report = wire.parse_report(words.report)
    return (code if code >= 0 else 128 - code), None if report is None else ErrorReport(*report)


def _kill_all(root: int) -> None:
    """A process and its children, which are in sessions of their own."""
    children = Path(f"/proc/{root}/task/{root}/children").read_text().split()
    for pid in (root, *map(int, children)):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


async def _show(stream: asyncio.StreamReader, name: str, watch: OutputWatch) -> None:
    while data := await stream.read(_READ_BYTES):
        resumed = asyncio.Event()
        if not watch.put(name, data, resumed.set):
            await resumed.wait()


async def _hear(channel: socket.socket, words: CommandChannel) -> None:
    loop = asyncio.get_running_loop()
    while data := await loop.sock_recv(channel, _READ_BYTES):
        words.hear(data)


async def _tell(channel: socket.socket, words: CommandChannel) -> None:
    loop = asyncio.get_running_loop()
    while True:
        resumed = asyncio.Event()
        data = words.take(resumed.set)
        if data:
            with suppress(ConnectionError):
                await loop.sock_sendall(channel, data)
        else:
            await resumed.wait()
