"""What packages of a user bring into the place where environments are made."""

import errno
import json
import time
from typing import Any

import pytest

from bench.client import Connection
from bench.sandgate_server import Server, create, delete, execute

pytestmark = [pytest.mark.needs_root_namespaces, pytest.mark.needs_python39]
TEMPLATES = "/api/v1/sandbox/templates"
_LIMIT_S = 60.0
_ODD = "import json\njson.dumps = lambda *a, **k: '[\"\\\\ud800\\\\u0000\"]'\n"
_PROBE = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def tried(number, *arguments):
    return 0 if libc.syscall(number, *arguments) >= 0 else ctypes.get_errno()
room = ctypes.create_string_buffer(256)
FOUND = [
    tried(425, 4, room), tried(250, 0, -3, 1), tried(248, b"user", b"k", b"x", 1, -2), tried(323, 1),
    tried(321, 0, room, 64), tried(298, room, 0, -1, -1, 0), tried(304, -1, room, 0),
    tried(246, 0, 0, 0, 0), tried(101, 0, 0, 0, 0),
]
"""


def _build(client: Connection, name: str, module: str) -> dict[str, Any]:
    """A template that imports a module beforehand, once its build is over."""
    files = [{"path": f"lib/python3.9/site-packages/{name}.py", "content": module}]
    client.expect(201, "POST", TEMPLATES, {"name": name, "base": "python-3.9", "files": files, "preload": [name]})
    deadline = time.monotonic() + _LIMIT_S
    while (built := client.expect(200, "GET", f"{TEMPLATES}/{name}"))["status"] == "building":
        assert time.monotonic() < deadline, built
        time.sleep(0.02)  # waits: for a build in other processes
    found: dict[str, Any] = built
    return found


def test_what_a_package_says_of_itself_is_only_text(server: Server) -> None:
    """Also where it is none that a log or a database could keep; the server goes on."""
    with server.connect() as client:
        others = create(client, "python-3.9")
        odd = _build(client, "odd", _ODD)
        assert odd["status"] == "failed"
        assert "could not be imported" in odd["status_reason"]
        assert execute(client, others, {"code": "print('there')"})["stdout"] == "there\n"
        delete(client, others)
        client.expect(200, "DELETE", f"{TEMPLATES}/odd")


def test_packages_that_are_imported_beforehand_have_a_filter(server: Server) -> None:
    """What they bring runs where environments are made, and reaches no more of the kernel than making walls needs."""
    with server.connect() as client:
        built = _build(client, "probe", _PROBE)
        assert built["status"] == "ready", built
        made = create(client, "probe")
        found = json.loads(execute(client, made, {"code": "import probe; print(probe.FOUND)"})["stdout"])
        assert found == [errno.EPERM] * 9
        delete(client, made)
        client.expect(200, "DELETE", f"{TEMPLATES}/probe")
