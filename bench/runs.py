"""Runs of workflows, timed from the request that starts them to the answer that they have succeeded."""

import time
from typing import Any

from bench.client import Connection, UnexpectedAnswer

WORKFLOWS = "/api/v1/orchestrator/workflows"
TEMPLATE = "python-3.9"
FIBO = "def fibo(n):\n    return n if n <= 1 else fibo(n - 1) + fibo(n - 2)\n"
LONGEST_S = 60


def step(name: str, n: int, **more: Any) -> dict[str, Any]:
    """A step that computes a number of Fibonacci the slow way, and hands it on."""
    config = {"code": f"{FIBO}outputs['y'] = fibo({n})", "template": TEMPLATE}
    return {"name": name, "type": "code_execution", "config": config, **more}


def sequence(count: int, n: int) -> list[dict[str, Any]]:
    """So many of them, one after another."""
    return [step(f"step{number}", n) for number in range(count)]


def make(connection: Connection, steps: list[dict[str, Any]]) -> str:
    """A workflow of these steps; answers the path that starts it."""
    made = connection.expect(201, "POST", WORKFLOWS, {"name": "bench", "steps": steps})
    return f"{WORKFLOWS}/{made['workflow_id']}/start?wait={LONGEST_S}"


def seconds(connection: Connection, path: str) -> float:
    """Start a run and wait for its end. Raises ``UnexpectedAnswer`` unless it succeeded."""
    started = time.perf_counter()
    run = connection.expect(200, "POST", path)
    taken_s = time.perf_counter() - started
    if run["status"] != "succeeded":
        raise UnexpectedAnswer(f"The run did not succeed: {run}")
    return taken_s
