"""The client has a call for everything that the API offers about environments."""

import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress

import httpx

from sandgate.sdk.client import Client
from sandgate.sdk.errors import ClientError
from tests.unit.http.site import ENVIRONMENTS, Site

_CALLS: Mapping[str, Callable[[Client], object]] = {
    "POST": lambda to: to.create_environment("e", "python"),
    "GET": lambda to: to.list_environments(),
    "GET /{}": lambda to: to.get_environment("env-1"),
    "PATCH /{}": lambda to: to.update_environment("env-1", name="x"),
    "DELETE /{}": lambda to: to.delete_environment("env-1"),
    "GET /{}/metrics": lambda to: to.get_metrics("env-1"),
    "POST /{}/snapshots": lambda to: to.create_snapshot("env-1"),
    "POST /{}/fork": lambda to: to.fork_environment("env-1"),
    "POST /{}/pause": lambda to: to.pause_environment("env-1"),
    "POST /{}/resume": lambda to: to.resume_environment("env-1"),
    "GET /{}/network": lambda to: to.get_network("env-1"),
    "POST /{}/execute": lambda to: to.execute("env-1", "1"),
    "GET /{}/executions": lambda to: to.list_executions("env-1"),
    "GET /{}/executions/{}": lambda to: to.get_execution("env-1", "exec-1"),
    "POST /{}/executions/{}/cancel": lambda to: to.cancel_execution("env-1", "exec-1"),
    "GET /{}/executions/{}/events": lambda to: to.follow_execution("env-1", "exec-1"),
    "POST /{}/sessions": lambda to: to.create_session("env-1"),
    "GET /{}/sessions": lambda to: to.list_sessions("env-1"),
    "GET /{}/sessions/{}": lambda to: to.get_session("env-1", "s-1"),
    "DELETE /{}/sessions/{}": lambda to: to.delete_session("env-1", "s-1"),
    "POST /{}/sessions/{}/interrupt": lambda to: to.interrupt_session("env-1", "s-1"),
    "POST /{}/sessions/{}/restart": lambda to: to.restart_session("env-1", "s-1"),
    "GET /{}/files": lambda to: to.list_files("env-1"),
    "GET /{}/files/{}": lambda to: to.read_file("env-1", "f"),
    "PUT /{}/files/{}": lambda to: to.write_file("env-1", "f", b""),
    "DELETE /{}/files/{}": lambda to: to.delete_file("env-1", "f"),
    "GET /{}/stat": lambda to: to.look_at_file("env-1", "f"),
    "GET /{}/search": lambda to: to.search_files("env-1", name="f"),
    "POST /{}/folders": lambda to: to.make_folder("env-1", "f"),
    "POST /{}/move": lambda to: to.move_file("env-1", "f", "g"),
    "POST /{}/copy": lambda to: to.copy_file("env-1", "f", "g"),
    "GET /{}/archive": lambda to: to.open_archive("env-1"),
    "PUT /{}/archive": lambda to: to.write_archive("env-1", ".", b""),
    "GET /{}/watch": lambda to: to.watch_files("env-1"),
    "POST /{}/links": lambda to: to.create_link("env-1", "f"),
    "POST /{}/processes": lambda to: to.start_process("env-1", "ls"),
    "GET /{}/processes": lambda to: to.list_processes("env-1"),
    "GET /{}/processes/{}": lambda to: to.get_process("env-1", "p-1"),
    "DELETE /{}/processes/{}": lambda to: to.kill_process("env-1", "p-1"),
    "GET /{}/processes/{}/output": lambda to: to.read_output("env-1", "p-1"),
    "POST /{}/processes/{}/wait": lambda to: to.wait_for_process("env-1", "p-1"),
    "GET /{}/processes/{}/events": lambda to: to.follow_process("env-1", "p-1"),
    "POST /{}/processes/{}/stdin": lambda to: to.write_input("env-1", "p-1", b""),
    "POST /{}/processes/{}/resize": lambda to: to.resize_process("env-1", "p-1", 1, 1),
    "POST /{}/processes/{}/signal": lambda to: to.signal_process("env-1", "p-1", "SIGINT"),
    "POST /{}/terminal": lambda to: to.ask_for_terminal("env-1"),
    "POST /{}/port-links/{}": lambda to: to.create_port_link("env-1", 80),
    "GET /{}/ports/{}/{}": lambda to: to.ask_port("env-1", 80, "x"),
    "POST /{}/ports/{}/{}": lambda to: to.ask_port("env-1", 80, "x", method="POST"),
    "PUT /{}/ports/{}/{}": lambda to: to.ask_port("env-1", 80, "x", method="PUT"),
    "PATCH /{}/ports/{}/{}": lambda to: to.ask_port("env-1", 80, "x", method="PATCH"),
    "DELETE /{}/ports/{}/{}": lambda to: to.ask_port("env-1", 80, "x", method="DELETE"),
    "OPTIONS /{}/ports/{}/{}": lambda to: to.ask_port("env-1", 80, "x", method="OPTIONS"),
}
# A web socket: `open_terminal`, which is tested with a terminal.
_NO_CALL = {"GET /{}/terminal"}


def _asked_by(call: Callable[[Client], object]) -> list[str]:
    """What a call asks a server for that answers nothing."""
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix(ENVIRONMENTS)
        seen.append(f"{request.method} {path}".strip())
        return httpx.Response(400)

    with Client("http://sandgate.example", connections=httpx.MockTransport(answer)) as client, suppress(ClientError):
        made = call(client)
        if isinstance(made, AbstractContextManager) and not hasattr(made, "__next__"):
            with made:
                pass
        elif hasattr(made, "__next__"):
            next(made)
    return seen


async def test_every_operation_has_a_call(site: Site) -> None:
    """And each call of the list asks for the operation that it is listed for."""
    paths = (await site.get("/openapi.json", None)).json()["paths"]
    offered = {
        f"{method.upper()} {re.sub('{.*?}', '{}', path.removeprefix(ENVIRONMENTS))}".strip()
        for path, operations in paths.items()
        if path.startswith(ENVIRONMENTS)
        for method in operations
    }
    assert offered - set(_CALLS) == _NO_CALL, "operations that sandgate.sdk has no call for"
    assert not set(_CALLS) - offered, "calls without an operation"


def test_each_call_asks_for_what_it_is_listed_for() -> None:
    """Once."""
    for operation, call in _CALLS.items():
        pattern = re.escape(operation).replace(r"\{\}", "[^/?]+")
        (asked,) = _asked_by(call)
        assert re.fullmatch(pattern, asked), (operation, asked)
