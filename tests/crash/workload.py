"""A client that does a bit of everything, does not mind a server that dies, and remembers what it was told."""

import json
import time
from collections.abc import Mapping
from typing import Any

from bench.client import Answer, Connection
from bench.sandgate_server import ENVIRONMENTS
from tests.crash.invariants import Acknowledged
from tests.crash.server_process import CrashServer

WORKFLOWS = "/api/v1/orchestrator/workflows"
RUNS = "/api/v1/orchestrator/runs"
SCHEDULES = "/api/v1/orchestrator/schedules"
WEBHOOKS = "/api/v1/orchestrator/webhooks"
LIMIT_S = 60.0
LIVE = ("pending", "running", "waiting")
STUBBORN = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: time.sleep(1)"
FAILS_ONCE = "import os\nif os.environ['SANDGATE_ATTEMPT'] == '1': raise ValueError('once')"


def step(name: str, code: str = "pass", **more: Any) -> dict[str, Any]:
    """A step with code."""
    config = {"code": code, **more.pop("config", {})}
    return {"name": name, "type": "code_execution", "config": config, **more}


DEFINITIONS: Mapping[str, dict[str, Any]] = {
    "sequence": {"steps": [step("a", "outputs['n'] = 1"), step("b"), step("c", **{"if": "false"}), step("d")]},
    "fan-out": {
        "steps": [
            step("each", "outputs['y'] = inputs['x']", foreach=[1, 2, 3, 4], strategy={"max_parallel": 2},
                 config={"inputs": {"x": "${{ item }}"}}),
            step("sum", "outputs['sum'] = sum(inputs['ys'])", config={"inputs": {"ys": "${{ steps.each.outputs.y }}"}}),
        ]
    },
    "retry": {
        "steps": [
            step("again", FAILS_ONCE, retry={"max_attempts": 2, "delay": 0.05}),
            step("slow", STUBBORN, timeout=0.2, needs=["again"]),
            step("bad", "1 / 0", needs=["again"]),
            step("never"),
        ],
        "on_error": [step("tell")],
        "finally": [step("tidy")],
    },
    "approval": {"steps": [{"name": "ask", "type": "approval"}, step("after")]},
    # One after the other, whoever starts them.
    "nap": {
        "concurrency": {"group": "naps", "limit": 1},
        "steps": [step("before"), {"name": "nap", "type": "sleep", "config": {"seconds": 0.3}}, step("after")],
    },
    "cancel": {"steps": [step("stubborn", STUBBORN), step("never")], "finally": [step("tidy")]},
    "late": {"steps": [step("stubborn", STUBBORN)], "timeout": 0.4, "on_error": [step("tell")]},
}  # fmt: skip
EXPECTED = {
    "sequence": "succeeded", "fan-out": "succeeded", "retry": "failed", "approval": "succeeded",
    "nap": "succeeded", "cancel": "cancelled", "late": "timed_out",
}  # fmt: skip

# What takes a while, so that kills hit it while it runs: in the workspace of a run, and with files left behind.
_SOON = "import os, time\ntime.sleep(0.4)\n"
_LEAVE = "for n in range(5): open(os.environ['SANDGATE_ARTIFACTS'] + f'/{n}', 'w').write('x' * 100_000)\n"
SLOW_DEFINITIONS: Mapping[str, dict[str, Any]] = {
    "workspace": {
        "workspace": "run",
        "steps": [
            step("write", "open('f', 'w').write('x')"),
            step(
                "each", f"{_SOON}outputs['y'] = inputs['x']", foreach=[1, 2, 3], config={"inputs": {"x": "${{ item }}"}}
            ),
            step("beside", f"{_SOON}{_LEAVE}", needs=["write"]),
            step("read", "import os\nprint(os.path.exists('f'))", needs=["each", "beside"]),
        ],
    },
    "artifacts": {"steps": [step("leave", f"{_SOON}{_LEAVE}"), step("after")]},
}
EXPECTED_SLOW = {"workspace": "succeeded", "artifacts": "succeeded"}

# What is started by others.
_HOOKED = {"inputs": {"event": {"type": "object", "default": {}}}, "steps": [step("look")]}


def definition_of(kind: str) -> dict[str, Any]:
    """A definition as it is sent."""
    known = {"hooked": _HOOKED, **DEFINITIONS, **SLOW_DEFINITIONS}
    return {"name": kind, **known[kind]}


class KeyedConnection(Connection):
    """A connection whose requests have an idempotency key."""

    def __init__(self, connection: Connection, key: str) -> None:
        self._socket, self._buffer = connection._socket, connection._buffer
        self._head = connection._head + f"Idempotency-Key: {key}\r\n".encode()


class Client:
    """Asks until it is answered, one server after another; what was answered is in ``said``."""

    def __init__(self, *servers: CrashServer) -> None:
        self._servers = list(servers)
        self._connection: Connection | None = None
        self.said = Acknowledged()

    def ask(self, method: str, path: str, body: Any = None, key: str = "") -> Answer:
        """The first answer that is none of a server in trouble; what was asked may have been done several times."""
        deadline = time.monotonic() + LIMIT_S
        while time.monotonic() < deadline:
            try:
                if self._connection is None:
                    self._connection = self._servers[0].connect()
                used = KeyedConnection(self._connection, key) if key else self._connection
                answer = used.request(method, path, body)
            except OSError:
                self.close()
                time.sleep(0.02)  # waits: the server is being started again
                continue
            if answer.status < 500 and answer.status != 429:
                return answer
            time.sleep(0.05)  # waits: the server asks for it
        raise AssertionError(f"not answered within {LIMIT_S} s: {method} {path}")

    def close(self) -> None:
        """Give the connection up; the next one is to another server, if there is one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._servers.append(self._servers.pop(0))

    # Workflows

    def make(self, kind: str) -> str:
        """Make a workflow."""
        answer = self.ask("POST", WORKFLOWS, definition_of(kind))
        assert answer.status == 201, answer
        workflow_id: str = answer.json()["workflow_id"]
        self.said.workflows.add(workflow_id)
        return workflow_id

    def start(self, workflow_id: str, key: str = "") -> str:
        """Start a run."""
        answer = self.ask("POST", f"{WORKFLOWS}/{workflow_id}/start", key=key)
        assert answer.status == 200, answer
        run_id: str = answer.json()["run_id"]
        self.said.runs.add(run_id)
        return run_id

    def look(self, run_id: str) -> dict[str, Any]:
        """The run as it is; its end is remembered."""
        answer = self.ask("GET", f"{RUNS}/{run_id}")
        assert answer.status == 200, answer
        run: dict[str, Any] = answer.json()
        if run["status"] not in LIVE:
            known = self.said.ends.setdefault(run_id, run["status"])
            assert known == run["status"], f"{run_id} had ended as {known} and is {run['status']}"
        return run

    def until_over(self, run_id: str) -> dict[str, Any]:
        """Wait for its end."""
        deadline = time.monotonic() + LIMIT_S
        while (run := self.look(run_id))["status"] in LIVE:
            assert time.monotonic() < deadline, f"{run_id} does not end: {json.dumps(run)[:2000]}"
            time.sleep(0.02)  # waits: for code that runs
        return run

    def until_step(self, run_id: str, name: str, *statuses: str) -> None:
        """Wait until a step is in one of these."""
        deadline = time.monotonic() + LIMIT_S
        while not any(row["name"] == name and row["status"] in statuses for row in self.look(run_id)["steps"]):
            assert time.monotonic() < deadline, f"{name} of {run_id} is none of {statuses}"
            time.sleep(0.02)  # waits: for code that runs

    def approve(self, run_id: str, name: str = "ask") -> None:
        """Approve a step; that somebody has done so is no error, because it may have been this client."""
        self.until_step(run_id, name, "waiting", "succeeded")
        deadline = time.monotonic() + LIMIT_S
        while self.ask("POST", f"{RUNS}/{run_id}/steps/{name}/approve", {}).status != 200:
            if any(row["name"] == name and row["status"] == "succeeded" for row in self.look(run_id)["steps"]):
                break
            assert time.monotonic() < deadline, f"{name} of {run_id} cannot be approved"
            self.close()
            time.sleep(0.05)  # waits: another server may have the run
        self.said.decided.add((run_id, name))

    def cancel(self, run_id: str) -> None:
        """Cancel a run, and wait for its end."""
        deadline = time.monotonic() + LIMIT_S
        while self.ask("POST", f"{RUNS}/{run_id}/cancel").status != 200 and self.look(run_id)["status"] in LIVE:
            assert time.monotonic() < deadline, f"{run_id} cannot be cancelled"
            self.close()
            time.sleep(0.05)  # waits: another server may have the run
        self.said.cancelled.add(run_id)

    def check_turns(self) -> None:
        """No more naps are under way than may be; read at one moment."""
        naps = self.ask("GET", f"{RUNS}?name=nap&limit=200").json()["runs"]
        under_way = [row["run_id"] for row in naps if row["status"] in ("running", "waiting")]
        assert len(under_way) <= 1, f"these are under way at once, and one is the limit: {under_way}"

    def live_runs(self) -> list[str]:
        """Runs that have not ended."""
        found = [self.ask("GET", f"{RUNS}?status={status}&limit=200").json()["runs"] for status in LIVE]
        return [row["run_id"] for rows in found for row in rows]

    # Environments

    def create(self, timeout: float = 600) -> str:
        """Make an environment."""
        answer = self.ask("POST", ENVIRONMENTS, {"name": "e", "template": "python", "timeout": timeout})
        assert answer.status == 201, answer
        environment_id: str = answer.json()["environment_id"]
        self.said.environments.add(environment_id)
        return environment_id

    def execute(self, environment_id: str, code: str = "print('done')") -> dict[str, Any]:
        """Run code."""
        answer = self.ask("POST", f"{ENVIRONMENTS}/{environment_id}/execute", {"code": code})
        assert answer.status == 200, answer
        found: dict[str, Any] = answer.json()
        self.said.executions[found["execution_id"]] = found["stdout"]
        return found
