"""Steps in other languages and in built templates, against a real server; see test_gvisor.py for that class."""

import json
import platform
from collections.abc import Iterator
from typing import Any

import pytest

from bench.client import Connection
from bench.sandgate_server import ENVIRONMENTS, Server
from tests.e2e.test_templates import TEMPLATES, until_built
from tests.e2e.test_workflow_steps import ASK, begin, look, make, step_of
from tests.e2e.test_workflows import RUNS, code, start
from tests.e2e.waiting import until

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


SEES = """
import json, os, sys
words = open("/opt/template/share/words.txt").read()
print(words, os.environ["MODE"], os.environ["OWN"], "json.tool" in sys.modules, open("/proc/version").read())
"""


@pytest.mark.needs_python39
def test_steps_run_in_templates_that_were_built(server: Server) -> None:
    """With all that environments of it have, and in the version that was there when the run began."""
    assert platform.release() in step_in_a_built_template(server)


def step_in_a_built_template(server: Server) -> str:
    """Run and look at such steps, in a template upon Python 3.9; the kernel that they see."""
    with server.connect() as connection:
        _build(connection, "first")
        defaults = {"template": "stepped", "env": {"OWN": "asked"}}
        steps = (
            code("sees", SEES),
            {**ASK, "needs": ["sees"]},
            code("again", SEES, "ask", env={"MODE": "loud"}),
            code("other", "words", config={"language": "loud", "template": "stepped"}),
        )
        workflow_id = make(connection, *steps, defaults=defaults)
        run = begin(connection, workflow_id)
        assert run["templates"] == {"stepped": "stepped@1"}
        until(lambda: look(connection, run)["status"] == "waiting", "the step before the question")
        _build(connection, "second")
        refused = connection.expect(409, "DELETE", f"{TEMPLATES}/stepped@1")["error"]
        assert (refused["code"], refused["details"]["runs"]) == ("TEMPLATE_IN_USE", 1)
        connection.expect(200, "POST", f"{RUNS}/{run['run_id']}/steps/ask/approve", {})
        until(lambda: look(connection, run)["finished_at"], "the end of the run")
        ended = look(connection, run)
        assert ended["status"] == "succeeded", ended
        said = {name: step_of(ended, name)["stdout"].split(" ", 4) for name in ("sees", "again")}
        assert {name: words[:4] for name, words in said.items()} == {
            "sees": ["first", "quick", "asked", "True"], "again": ["first", "loud", "asked", "True"],
        }  # fmt: skip
        assert step_of(ended, "other")["stdout"] == "WORDS"
        newer = start(connection, code("sees", SEES), defaults={"template": "stepped"}, env={"OWN": "x"})
        assert (newer["status"], newer["templates"]) == ("succeeded", {"stepped": "stepped@2"})
        assert step_of(newer, "sees")["stdout"].startswith("second ")
        connection.expect(200, "DELETE", f"{TEMPLATES}/stepped")
    return str(said["sees"][4])


def _build(connection: Connection, words: str) -> None:
    """A version of a small template."""
    recipe = {
        "name": "stepped",
        "base": "python-3.9",
        "files": [
            {"path": "share/words.txt", "content": words},
            {"path": "bin/shout", "content": "#!/bin/sh\ntr a-z A-Z < $1\n", "executable": True},
        ],
        "env": {"MODE": "quick"},
        "preload": ["json.tool"],
        "languages": {"loud.txt": "shout {file}"},
        "limits": {"memory_mb": 300},
    }
    connection.expect(201, "POST", TEMPLATES, recipe)
    built = until_built(connection, "stepped")
    assert built["status"] == "ready", built
