"""Steps that are written in other languages than Python, against a real server; see test_gvisor.py for that class."""

import json
import platform
from collections.abc import Iterator
from typing import Any

import pytest

from bench.sandgate_server import ENVIRONMENTS, Server
from tests.e2e.test_workflow_steps import step_of
from tests.e2e.test_workflows import RUNS, code, start

pytestmark = [pytest.mark.needs_root_namespaces]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server as it comes."""
    with Server() as running:
        yield running


COUNTS = """
read -r inputs < "$SANDGATE_INPUTS"
echo "$inputs" "$SANDGATE_STEP" "$SANDGATE_ATTEMPT"
printf '{"n": %d}' "${#inputs}" > "$SANDGATE_OUTPUTS"
echo left > "$SANDGATE_ARTIFACTS/file"
"""


PLACES = ("own", "shared", "named")


@pytest.mark.parametrize("place", PLACES)
def test_steps_are_written_in_other_languages(server: Server, place: str) -> None:
    """Inputs and outputs are files, wherever the code runs; what is wrong with them is the step's error."""
    assert platform.release() in write_in_other_languages(server, place, "python")


def write_in_other_languages(server: Server, place: str, template: str) -> str:
    """Run and look at such steps in environments of a template; the kernel that they see."""
    more: dict[str, Any] = {"workspace": "run"} if place == "shared" else {}
    with server.connect() as connection:
        made = connection.expect(201, "POST", ENVIRONMENTS, {"name": "e", "template": template, "env": {"E": "e"}})
        config: dict[str, Any] = {"environment_id": made["environment_id"]} if place == "named" else {}
        bash = {**config, "language": "bash"}
        run = start(
            connection,
            code("count", COUNTS, config={**bash, "inputs": {"text": "${{ run.id }}"}}),
            code("see", "print(inputs['n'])", "count", config={"inputs": {"n": "${{ steps.count.outputs.n }}"}}),
            code("none", "exit 3", config=bash),
            code("wrong", 'echo "[1]" > $SANDGATE_OUTPUTS', config=bash),
            code("unknown", "x", config={**config, "language": "cobol"}),
            code("kernel", "cat /proc/version", config=bash),
            defaults={"template": template},
            wait=55,
            **more,
        )
        artifacts = connection.expect(200, "GET", f"{RUNS}/{run['run_id']}/artifacts")["artifacts"]
        connection.expect(200, "DELETE", f"{ENVIRONMENTS}/{made['environment_id']}")
    text = json.dumps({"text": run["run_id"]})
    count, none, wrong, unknown = (step_of(run, name) for name in ("count", "none", "wrong", "unknown"))
    assert (count["stdout"], count["outputs"]) == (f"{text} count 1\n", {"n": len(text)})
    assert step_of(run, "see")["stdout"] == f"{len(text)}\n"
    assert [(row["step"], row["path"]) for row in artifacts] == [("count", "file")]
    assert (none["status"], none["exit_code"]) == ("failed", 3)
    assert "has to hold an object, not list" in wrong["error"]["value"]
    assert "knows no language 'cobol'" in unknown["error"]["value"]
    return str(step_of(run, "kernel")["stdout"])
