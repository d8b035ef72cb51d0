"""Files of fake sandboxes: the worker of the real ones, as a process of its own in a folder of this machine."""

import asyncio
import json
import sys
from importlib.resources import files
from pathlib import Path

from sandgate.core.execution import FileOperation, OutputSink
from sandgate.sandbox.payload import pack_modules

_CALL = (
    "import json, sys\nsys.path.insert(0, sys.argv[3])\nfrom sandgate_agent import file_worker\n"
    "sys.exit(file_worker.run(json.loads(sys.argv[1]), 0, 1, sys.argv[2].encode()))"
)
_AGENT = str(Path(str(files("sandgate_agent"))).parent)
_READ_BYTES = 65_536


async def run_file_worker(folder: str, operation: FileOperation, sink: OutputSink) -> int:
    """Run one operation in the folder; the exit code. Killed when it is cancelled."""
    arguments = dict(operation.arguments)
    if operation.operation in ("snapshot", "restore"):
        # The folder stands for the work folder of a whole file system.
        arguments["root"] = str(Path(folder).parent)
    asked = json.dumps({"operation": operation.operation, "arguments": arguments})
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-S", "-c", _CALL, asked, pack_modules(operation.modules).decode(), _AGENT,
        cwd=folder, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert worker.stdin is not None  # noqa: S101 - asked for
    assert worker.stdout is not None  # noqa: S101 - asked for
    feeding = asyncio.create_task(_feed(worker.stdin, operation))
    try:
        while data := await worker.stdout.read(_READ_BYTES):
            resumed = asyncio.Event()
            if not sink.put(data, resumed.set):
                await resumed.wait()
        return await worker.wait()
    finally:
        feeding.cancel()
        if worker.returncode is None:
            worker.kill()
            # Its end is only told of once its output has been read to the end.
            await worker.stdout.read()
            await worker.wait()


async def _feed(writer: asyncio.StreamWriter, operation: FileOperation) -> None:
    while operation.source is not None:
        resumed = asyncio.Event()
        piece = operation.source.take(resumed.set)
        if not piece:
            await resumed.wait()
            continue
        writer.write(piece)
        try:
            await writer.drain()
        except ConnectionError:
            # It has ended before it had read all; what it has to say of that is on its way.
            return
