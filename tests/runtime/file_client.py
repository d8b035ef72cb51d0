"""Asks a sandbox to work on its files, as the service does."""

import asyncio
from collections.abc import Mapping
from typing import Any

from sandgate.core.execution import ExecutionRequest, FileOperation
from sandgate.core.intake import Intake
from sandgate.core.outlet import Outlet
from sandgate.environments.files import Channel
from sandgate.sandbox.base import Sandbox


def begin(sandbox: Sandbox, operation: str, outlet: Outlet | None = None, **arguments: Any) -> Channel:
    """An operation under way."""
    intake = Intake()
    request = ExecutionRequest("", 20, sink=intake, files=FileOperation(operation, arguments, outlet))
    return Channel(sandbox.execute(request), intake)


async def ask(sandbox: Sandbox, operation: str, **arguments: Any) -> Mapping[str, Any]:
    """The answer to an operation without content. Raises what it says."""
    channel = begin(sandbox, operation, **arguments)
    try:
        return await channel.answer()
    finally:
        channel.close()


async def write(sandbox: Sandbox, path: str, content: bytes, *, overwrite: bool = True) -> Mapping[str, Any]:
    """Write a file."""
    outlet = Outlet()
    channel = begin(sandbox, "write", outlet, path=path, overwrite=overwrite, mode=None)
    answering = asyncio.ensure_future(channel.answer())
    answering.add_done_callback(lambda _answer: outlet.close())
    try:
        pieces = [content[start : start + 65_536] for start in range(0, len(content), 65_536)]
        for piece in [*pieces, b""]:
            if not await outlet.put(len(piece).to_bytes(4, "big") + piece):
                break
        return await answering
    finally:
        channel.close()


async def read(sandbox: Sandbox, path: str, offset: int = 0, most: int = 1 << 30) -> bytes:
    """Read a file, or its beginning."""
    outlet = Outlet()
    channel = begin(sandbox, "read", outlet, path=path)
    try:
        await channel.answer()
        await outlet.put(offset.to_bytes(8, "big"))
        content = b""
        while len(content) < most and (piece := await channel.read()):
            content += piece
        return content
    finally:
        channel.close()
