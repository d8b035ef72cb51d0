"""Processes in the background of environments outlive the gateway, and end with the launcher."""

from typing import Any

import pytest

from bench.sandgate_server import ENVIRONMENTS, create, execute
from tests.crash.server_process import GATEWAY, LAUNCHER, CrashServer, until

pytestmark = pytest.mark.needs_root_namespaces
SHELL = {"command": "echo begun; while read -r x; do echo got-$x; done", "stdin": True, "name": "kept", "timeout": 600}


def _start(server: CrashServer) -> tuple[str, dict[str, Any]]:
    """Where a process is, and how it was answered; it has written something."""
    with server.connect() as connection:
        path = f"{ENVIRONMENTS}/{create(connection, 'python')}/processes"
        process = connection.expect(201, "POST", path, SHELL)
        path = f"{path}/{process['process_id']}"
        until(lambda: "begun" in connection.expect(200, "GET", f"{path}/output")["stdout"], "it has begun")
        return path, process


def test_a_process_goes_on_when_the_gateway_is_killed(server: CrashServer) -> None:
    """With its record, its input and what it writes from then on; what was held of its output is said to be gone."""
    path, process = _start(server)
    with server.connect() as connection:
        position = connection.expect(200, "GET", f"{path}/output")["position"]
    server.kill(GATEWAY)
    with server.until_ready() as connection:
        assert connection.expect(200, "GET", path) == process
        assert connection.expect(200, "POST", f"{path}/wait", {"timeout": 0})["status"] == "running"
        execute(connection, path.split("/")[5], {"code": "pass"})
        connection.expect(200, "POST", f"{path}/signal", {"signal": "SIGCONT"})
        kept = connection.expect(200, "GET", f"{path}/output?after={position}")
        assert (kept["stdout"], kept["skipped"]) == ("", {"stdout": None, "stderr": None})
    server.kill(GATEWAY)
    with server.until_ready() as connection:
        # A second time, too.
        ended = connection.expect(200, "DELETE", path)
        assert (ended["status"], ended["process_id"]) == ("killed", process["process_id"])
        assert connection.expect(200, "GET", path.rpartition("/")[0])["processes"] == [ended]


def test_a_process_ends_with_the_launcher(server: CrashServer) -> None:
    """And its environment fails; nobody is told that it runs."""
    path, _process = _start(server)
    server.kill(LAUNCHER)
    environment = path.split("/processes")[0]
    with server.until_ready() as connection:
        until(lambda: connection.expect(200, "GET", environment)["status"] == "failed", "the environment has failed")
        assert connection.request("GET", path).status == 409
