"""What ``scripts/run`` shows: starts a server in this checkout, uses it over HTTP, and goes on serving.

It talks to the server as any client would, and knows nothing of its inside.
"""

import argparse
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

HOST = "127.0.0.1"
FIRST_PORT = 8080
PORTS = 100
START_S = 60.0
POLL_S = 0.05
REQUEST_S = 60.0
REPEATS = 20
TIMELINE_COLUMNS = 32
ENVIRONMENTS = "/api/v1/sandbox/environments"
WORKFLOWS = "/api/v1/orchestrator/workflows"
TEMPLATE = "python-3.9"
WEAK = """
  THIS SERVER DOES NOT ISOLATE. This machine cannot hold the standard class, so that code runs as a plain process of
  this user: it can read your files and reach your network. It listens on loopback only. Run nothing in it that you
  would not run yourself. `.venv/bin/sandgate doctor` says what is missing and how to get it; most often it is root:
  sudo scripts/run
"""


class DemoFailedError(Exception):
    """The server did not do what was to be shown; the message says what it did instead."""


class Client:
    """One connection to the server that is kept open."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection(HOST, port, timeout=REQUEST_S)
        self._headers = {"Content-Type": "application/json"}

    def authenticate(self, token: str) -> None:
        """Send this token from now on."""
        self._headers["Authorization"] = f"Bearer {token}"

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The parsed answer. Raises ``DemoFailedError`` when it is no success, ``OSError`` when there is none."""
        payload = None if body is None else json.dumps(body)
        self._connection.request(method, path, payload, self._headers)
        with self._connection.getresponse() as response:
            answer: dict[str, Any] = json.loads(response.read() or b"{}")
        if response.status >= 400:
            raise DemoFailedError(f"{method} {path} was answered {response.status}: {answer}")
        return answer

    def close(self) -> None:
        """End the connection."""
        self._connection.close()


def command() -> str:
    """The installed command, beside the interpreter that runs this."""
    return str(Path(sys.executable).with_name("sandgate"))


def can_hold_standard() -> bool:
    """Whether this machine can hold the walls of the standard class."""
    asked = [command(), "doctor", "--json"]
    done = subprocess.run(asked, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, check=False)  # noqa: S603 - our own command
    try:
        return bool(json.loads(done.stdout)["can_hold"]["standard"])
    except (ValueError, KeyError) as error:
        raise DemoFailedError(f"sandgate doctor did not answer: {done.stdout[:500]!r}") from error


def find_port(first: int = FIRST_PORT) -> int:
    """The first port from ``first`` on that nobody listens on."""
    for port in range(first, first + PORTS):
        with socket.socket() as candidate:
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                candidate.bind((HOST, port))
            except OSError:
                continue
            return port
    raise DemoFailedError(f"Every port from {first} to {first + PORTS - 1} is taken; name another with --port")


def server_environ(environ: Mapping[str, str], state: Path, port: int, *, weak: bool) -> dict[str, str]:
    """Variables of the server; settings that the caller made are kept, but where and how it serves is decided here."""
    place = {"SANDGATE_HOST": HOST, "SANDGATE_PORT": str(port), "SANDGATE_STATE": str(state)}
    usual = {"SANDGATE_LOG_LEVEL": "warning"}
    chosen = {"SANDGATE_ALLOW_WEAK_ISOLATION": "1", "SANDGATE_ISOLATION": "process"} if weak else {}
    return usual | dict(environ) | place | chosen


def start_server(environ: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    """The server, in a process group of its own: a Ctrl-C reaches it once, through :func:`forward_signals`.

    What it says of itself is left out, because :func:`say_where` says it after the demonstration; its log is not.
    """
    serve, nothing = [command(), "serve"], subprocess.DEVNULL
    return subprocess.Popen(serve, env=environ, stdin=nothing, stdout=nothing, process_group=0)  # noqa: S603 - as above


def forward_signals(server: "subprocess.Popen[bytes]") -> None:
    """Whatever asks this program to end, asks the server to stop; this program ends when the server has."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: server.terminate())


def wait_until_ready(server: "subprocess.Popen[bytes]", port: int) -> None:
    """Raises ``DemoFailedError`` when the server has ended or is not ready in time."""
    deadline = time.monotonic() + START_S
    while not is_ready(port):
        if server.poll() is not None:
            raise DemoFailedError("The server ended; what it said stands above")
        if time.monotonic() > deadline:
            raise DemoFailedError(f"The server was not ready within {START_S:.0f} s; GET /readyz says what is missing")
        time.sleep(POLL_S)


def is_ready(port: int) -> bool:
    """Whether the server says that it can do its work."""
    client = Client(port)
    try:
        client.ask("GET", "/readyz")
    except (OSError, http.client.HTTPException, DemoFailedError, ValueError):
        return False
    finally:
        client.close()
    return True


def find_password(environ: Mapping[str, str], state: Path) -> str | None:
    """The admin's first password, when it is still where the server put it."""
    try:
        return environ.get("SANDGATE_ADMIN_PASSWORD") or (state / "initial-admin-password").read_text().strip()
    except OSError:
        return None


def show(client: Client, password: str) -> None:
    """An environment, executions in it, and their timing, on the terminal."""
    credentials = {"username": "admin", "password": password}
    client.authenticate(client.ask("POST", "/api/v1/auth/token", credentials)["access_token"])
    wanted = {"name": "first", "template": choose_template(client), "timeout": 600}
    started = time.perf_counter()
    environment = client.ask("POST", ENVIRONMENTS, wanted)["environment_id"]
    hello = execute(client, environment, "print('Hello, World!')")
    print(f"  made {environment} and ran its first code in {since(started):.1f} ms: {hello['stdout'].strip()}")
    times = [timed_hello(client, environment) for _ in range(REPEATS)]
    print(f"  ran it {REPEATS} more times, each in a fresh interpreter: {median(times):.1f} ms (median)")
    execute(client, environment, "open('note.txt', 'w').write('files stay')")
    note = execute(client, environment, "print(open('note.txt').read())")
    print(f"  a file from one execution, read by the next: {note['stdout'].strip()}")
    failed = execute(client, environment, "1 / 0")
    print(f"  code that fails is an answer: {failed['status']}, {failed['error']['name']}: {failed['error']['value']}")
    started = time.perf_counter()
    client.ask("DELETE", f"{ENVIRONMENTS}/{environment}")
    print(f"  deleted it, with all that was in it, in {since(started):.1f} ms")
    show_workflow(client)


def show_workflow(client: Client) -> None:
    """Three steps, the middle one for each item of the first one's output; each in an environment of its own."""
    template = choose_template(client)
    workflow = client.ask("POST", WORKFLOWS, workflow_definition(template))["workflow_id"]
    started = time.perf_counter()
    client.ask("POST", f"{WORKFLOWS}/{workflow}/start?wait=60")
    taken = since(started)
    status = client.ask("GET", f"{WORKFLOWS}/{workflow}/status")
    total = next(step["outputs"] for step in status["steps"] if step["name"] == "sum")
    print(f"  ran a workflow, 5 isolated steps on disk as they ended, in {taken:.1f} ms: {status['status']}, {total}")
    for line in timeline(status):
        print(f"    {line}")


def timeline(status: Mapping[str, Any]) -> list[str]:
    """When each step and item of a run ran, as bars below each other: what is side by side, is so here."""
    rows = [(f"{step['name']}{label}", row) for step in status["steps"] for label, row in _attempts(step)]
    rows = [(name, row) for name, row in rows if row["started_at"] and row["finished_at"]]
    spans = [(_moment_ms(row["started_at"]), _moment_ms(row["finished_at"])) for _, row in rows]
    if not spans:
        return []
    first, last = min(begin for begin, _ in spans), max(end for _, end in spans)
    column_ms = max(last - first, 1) / TIMELINE_COLUMNS
    lines = []
    for (name, _), (begin, end) in zip(rows, spans, strict=True):
        left = round((begin - first) / column_ms)
        bar = " " * left + "█" * max(1, round((end - begin) / column_ms))
        lines.append(f"{name:<12} {begin - first:6.1f} ms {bar:<{TIMELINE_COLUMNS + 1}} {end - begin:6.1f} ms")
    return lines


def _attempts(step: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """A step, or its items."""
    return [("", step)] if step["items"] is None else [(f"[{item['index']}]", item) for item in step["items"]]


def _moment_ms(text: str) -> float:
    return datetime.fromisoformat(text).timestamp() * 1000


def workflow_definition(template: str) -> dict[str, Any]:
    """Numbers, their squares side by side, and the sum."""
    return {
        "name": "squares",
        "defaults": {"template": template},
        "steps": [
            {"name": "numbers", "type": "code_execution", "config": {"code": "outputs['all'] = [1, 2, 3]"}},
            {
                "name": "square",
                "type": "code_execution",
                "foreach": "${{ steps.numbers.outputs.all }}",
                "config": {"code": "outputs['y'] = inputs['x'] ** 2", "inputs": {"x": "${{ item }}"}},
            },
            {
                "name": "sum",
                "type": "code_execution",
                "config": {
                    "code": "outputs['total'] = sum(inputs['ys'])",
                    "inputs": {"ys": "${{ steps.square.outputs.y }}"},
                },
            },
        ],
    }


def choose_template(client: Client) -> str:
    """The template of the examples where this machine has it, otherwise the newest Python that there is."""
    wanted = client.ask("GET", f"/api/v1/sandbox/templates/{TEMPLATE}")
    return TEMPLATE if wanted["available"] else "python"


def execute(client: Client, environment: str, code: str) -> dict[str, Any]:
    """Run code to its end."""
    return client.ask("POST", f"{ENVIRONMENTS}/{environment}/execute", {"code": code})


def timed_hello(client: Client, environment: str) -> float:
    """Milliseconds of one execution, as the client sees them."""
    started = time.perf_counter()
    execute(client, environment, "print('Hello, World!')")
    return since(started)


def since(started: float) -> float:
    """Milliseconds since then."""
    return (time.perf_counter() - started) * 1000


def say_where(port: int, state: Path, *, weak: bool) -> None:
    """Where everything is, for whoever sits at the terminal."""
    print(f"\nServing on      http://{HOST}:{port}")
    print(f"Documentation   http://{HOST}:{port}/docs")
    print("Admin           admin")
    print(f"Password        in {state / 'initial-admin-password'}, unless you have set or changed it")
    print("Stop            Ctrl-C")
    if weak:
        print(WEAK)
    sys.stdout.flush()


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """Where to serve."""
    parser = argparse.ArgumentParser(prog="scripts/run", description="Start a server here and show what it does.")
    parser.add_argument("--port", type=int, help=f"port to listen on; by default the first free one from {FIRST_PORT}")
    parser.add_argument("--state", type=Path, default=Path(".state"), help="state folder; by default .state")
    return parser.parse_args(arguments)


def run(port: int, state: Path) -> int:
    """Start, show, serve until the server ends; answers its exit code."""
    weak = not can_hold_standard()
    environ = server_environ(os.environ, state, port, weak=weak)
    server = start_server(environ)
    forward_signals(server)
    try:
        wait_until_ready(server, port)
        demonstrate(environ, state, port)
        say_where(port, state, weak=weak)
        return server.wait()
    finally:
        server.terminate()
        server.wait()


def demonstrate(environ: Mapping[str, str], state: Path, port: int) -> None:
    """Show what the server does, if somebody who may is known; a server that goes on serving matters more."""
    password = find_password(environ, state)
    if password is None:
        print("\nThe first password is no longer in the state folder, so that nothing can be shown.")
        return
    print("\nOver HTTP, as any client:")
    client = Client(port)
    try:
        show(client, password)
    except (DemoFailedError, http.client.HTTPException, OSError) as error:
        print(f"  {error}", file=sys.stderr)
    finally:
        client.close()


def main() -> int:
    """The program behind ``scripts/run``."""
    chosen = parse_arguments(sys.argv[1:])
    try:
        return run(chosen.port or find_port(), chosen.state.absolute())
    except DemoFailedError as error:
        print(f"scripts/run: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
