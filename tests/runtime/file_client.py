"""Asks a sandbox to work on its files, as the service does."""

import asyncio
from collections.abc import Mapping
from typing import Any

from sandgate.core.execution import ExecutionRequest, FileOperation
from sandgate.core.files import parse_answer
from sandgate.core.intake import Intake
from sandgate.core.outlet import Outlet
from sandgate.environments.file_channels import Channel
from sandgate.sandbox.base import Sandbox

MODULES = {
    "pack": ("walking", "tarring", "zipping", "packing"),
    "unpack": ("laying", "unpacking", "unzip", "untar", "expanding"),
    "snapshot": ("walking", "tarring", "snapshotting"),
    "restore": ("laying", "untar", "restoring"),
    "watch": ("walking", "watching"),
    "search": ("walking", "searching"),
    "discard": ("laying", "unpacking", "unzip", "untar", "expanding"),
}


def begin(sandbox: Sandbox, operation: str, outlet: Outlet | None = None, **arguments: Any) -> Channel:
    """An operation under way."""
    intake = Intake()
    files = FileOperation(operation, arguments, outlet, MODULES.get(operation, ()))
    request = ExecutionRequest("", 60, sink=intake, files=files)
    return Channel(sandbox.execute(request), intake)


async def ask(sandbox: Sandbox, operation: str, **arguments: Any) -> Mapping[str, Any]:
    """The answer to an operation without content. Raises what it says."""
    channel = begin(sandbox, operation, **arguments)
    try:
        return await channel.answer()
    finally:
        channel.close()


async def list_folder(sandbox: Sandbox, path: str, after: str = "", limit: int = 10) -> tuple[list[Any], str | None]:
    """A part of a folder, and the name to go on after."""
    channel = begin(sandbox, "list", path=path, after=after, limit=limit)
    try:
        last = (await channel.answer())["last"]
        return [entry async for entry in channel.found(limit)], last
    finally:
        channel.close()


async def pack(sandbox: Sandbox, path: str, form: str, entries: int = 10_000, size: int = 1 << 34) -> bytes:
    """A folder as an archive."""
    channel = begin(sandbox, "pack", path=path, form=form, most_entries=entries, most_bytes=size)
    try:
        await channel.answer()
        content = b""
        while part := await channel.part():
            content += part
        parse_answer(await channel.record())
        return content
    finally:
        channel.close()


async def unpack(sandbox: Sandbox, path: str, form: str, content: bytes, **caps: Any) -> Mapping[str, Any]:
    """Lay an archive out."""
    named = {"entries": 10_000, "bytes": 1 << 34, "overwrite": True, "outside_links": False, **caps}
    return await send(sandbox, "unpack", content, path=path, form=form, staging=".unpack-test", **named)


async def write(sandbox: Sandbox, path: str, content: bytes, *, overwrite: bool = True) -> Mapping[str, Any]:
    """Write a file."""
    return await send(sandbox, "write", content, path=path, overwrite=overwrite, mode=None)


async def send(sandbox: Sandbox, operation: str, content: bytes, **arguments: Any) -> Mapping[str, Any]:
    """Give an operation what it reads; its answer."""
    outlet = Outlet()
    channel = begin(sandbox, operation, outlet, **arguments)
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
