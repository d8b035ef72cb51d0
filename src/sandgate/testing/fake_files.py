"""Files of fake sandboxes: the worker of the real ones, as a process of its own in a folder of this machine."""

import asyncio
import json
import sys
from importlib.resources import files

from sandgate.core.execution import FileOperation, OutputSink

_CALL = "import sys\nsys.exit(run(json.loads(sys.argv[1]), 0, 1))\n"
_READ_BYTES = 65_536


async def run_file_worker(folder: str, operation: FileOperation, sink: OutputSink) -> int:
    """Run one operation in the folder; the exit code. Killed when it is cancelled."""
    source = files("sandgate_agent").joinpath("file_worker.py").read_text(encoding="utf-8") + _CALL
    asked = json.dumps({"operation": operation.operation, "arguments": dict(operation.arguments)})
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-S", "-c", source, asked,
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
