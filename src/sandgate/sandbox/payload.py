"""What a child is sent when it gets its work."""

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from sandgate.core.execution import ExecutionRequest, Surroundings
from sandgate.sandbox.command_channel import describe
from sandgate_agent import wire


def make_payload(request: ExecutionRequest, facts: Mapping[str, Any] | None = None) -> bytes:
    """The code of a request, with what it is to find; or what is to be done with files. ``facts`` are a session's."""
    if request.files is not None:
        asked = {"operation": request.files.operation, "arguments": dict(request.files.arguments)}
        return wire.pack_role(asked, pack_modules(request.files.modules))
    if request.command is not None:
        return wire.pack_process(describe(request.command.command))
    code, data, around = request.code.encode(), request.data, request.around
    options: dict[str, Any] = dict(facts or {})
    if data is None and around is None and request.language is None:
        return wire.pack_code(code, options)
    if request.language is not None:
        options["program"] = {"commands": request.language.commands, "extension": request.language.extension}
    if data is not None:
        # As a text, so that the child writes it to a file as it is.
        inputs = json.dumps(dict(data.inputs))
        options |= {"inputs": inputs, "env": dict(data.env), "folder": data.folder, "is_last": request.is_last}
    if around is None:
        return wire.pack_code(code, options)
    stdin = around.stdin.encode()
    options["around"] = _measure(around, len(code), len(stdin))
    return wire.pack_code(b"".join([code, stdin, *(file.content for file in around.files)]), options)


@cache
def pack_modules(names: tuple[str, ...]) -> bytes:
    """The texts of modules of ``sandgate_agent``, as a child loads them; nothing of none."""
    if not names:
        return b""
    folder = files("sandgate_agent")
    return json.dumps({name: folder.joinpath(f"{name}.py").read_text(encoding="utf-8") for name in names}).encode()


def _measure(around: Surroundings, code_bytes: int, stdin_bytes: int) -> dict[str, Any]:
    """What the child needs to find its way in what comes behind the code."""
    return {
        "env": dict(around.env),
        "cwd": around.cwd,
        "args": list(around.args),
        "code_bytes": code_bytes,
        "stdin_bytes": stdin_bytes,
        "files": [(file.path, len(file.content)) for file in around.files],
    }
