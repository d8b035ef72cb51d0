"""What a child is sent when it gets its work."""

import json
from typing import Any

from sandgate.core.execution import ExecutionRequest, Surroundings
from sandgate_agent import wire


def make_payload(request: ExecutionRequest) -> bytes:
    """The code of a request, with what it is to find; or what is to be done with files."""
    if request.files is not None:
        return wire.pack_role({"operation": request.files.operation, "arguments": dict(request.files.arguments)})
    code, data, around = request.code.encode(), request.data, request.around
    if data is None and around is None:
        return wire.pack_code(code)
    options: dict[str, Any] = {}
    if data is not None:
        # As a text, so that the child writes it to a file as it is.
        inputs = json.dumps(dict(data.inputs))
        options = {"inputs": inputs, "env": dict(data.env), "folder": data.folder, "is_last": request.is_last}
    if around is None:
        return wire.pack_code(code, options)
    stdin = around.stdin.encode()
    options["around"] = _measure(around, len(code), len(stdin))
    return wire.pack_code(b"".join([code, stdin, *(file.content for file in around.files)]), options)


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
