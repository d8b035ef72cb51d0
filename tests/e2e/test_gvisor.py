"""The gvisor class over HTTP, on a real server: asked for, a template's own, and shown in every answer."""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from bench.client import Connection
from bench.sandgate_server import ENVIRONMENTS, Server, delete, execute
from tests.e2e.test_templates import until_built
from tests.e2e.test_workflow_languages import PLACES, step_in_a_built_template, write_in_other_languages
from tests.e2e.waiting import until
from tests.runtime.hosts import descendants, program_of

pytestmark = pytest.mark.needs_gvisor
TEMPLATES = "/api/v1/sandbox/templates"
KERNEL = {"code": "print(open('/proc/version').read())"}


@pytest.fixture(scope="module")
def contained() -> Iterator[Server]:
    """A server with one template whose environments are contained unasked."""
    with Server({"SANDGATE_GVISOR_TEMPLATES": "python-3.9"}) as running:
        yield running


def make(connection: Connection, template: str, **wanted: str) -> str:
    """An environment that says what it was asked for."""
    made = connection.expect(201, "POST", ENVIRONMENTS, {"name": "e", "template": template, **wanted})
    environment_id: str = made["environment_id"]
    assert connection.expect(200, "GET", f"{ENVIRONMENTS}/{environment_id}")["isolation"] == made["isolation"]
    return environment_id


def kernel(connection: Connection, environment_id: str) -> tuple[str, bool]:
    """The class that an execution shows, and whether the kernel that it saw is the host's."""
    ran = connection.expect(200, "POST", f"{ENVIRONMENTS}/{environment_id}/execute", KERNEL)
    return ran["isolation"], os.uname().release in ran["stdout"]


@pytest.mark.needs_python39
def test_classes_side_by_side(contained: Server) -> None:
    """Asked for by field, or by template; whoever asks otherwise gets the other; a kernel is what tells them apart."""
    with contained.connect() as connection:
        made = {
            ("gvisor", False): make(connection, "python", isolation="gvisor"),
            ("standard", True): make(connection, "python-3.9", isolation="standard"),
        }
        by_template, plain = make(connection, "python-3.9"), make(connection, "python")
        assert {shown: kernel(connection, each) for shown, each in made.items()} == {shown: shown for shown in made}
        assert kernel(connection, by_template) == ("gvisor", False)
        assert kernel(connection, plain) == ("standard", True)
        for each in (*made.values(), by_template, plain):
            assert execute(connection, each)["stdout"] == "Hello, World!\n"
            delete(connection, each)


@pytest.mark.needs_python39
@pytest.mark.parametrize("place", PLACES)
def test_steps_of_workflows_in_other_languages(contained: Server, place: str) -> None:
    """As in the standard class: what they are given and leave are files, on whatever kernel."""
    seen = write_in_other_languages(contained, place, "python-3.9")
    assert seen
    assert os.uname().release not in seen


@pytest.mark.needs_python39
@pytest.mark.needs_root_namespaces
def test_steps_of_workflows_in_built_templates(contained: Server) -> None:
    """As in the standard class; theirs is that of what the template rests on."""
    seen = step_in_a_built_template(contained)
    assert seen
    assert os.uname().release not in seen


def test_network_ports_and_metrics(contained: Server) -> None:
    """As in the standard class: hosts by name, changeable, told of; ports; and what its processes and files are."""
    with contained.connect() as connection:
        allow = {"allow": ["packages.example.com"]}
        wanted = {"name": "e", "template": "python", "isolation": "gvisor", "network": allow}
        path = f"{ENVIRONMENTS}/{connection.expect(201, 'POST', ENVIRONMENTS, wanted)['environment_id']}"
        code = (
            "import os, urllib.request, urllib.error\nopen('file', 'wb').write(bytes(1 << 20))\n"
            "try: urllib.request.urlopen('http://elsewhere.example.com/')\n"
            "except urllib.error.HTTPError as error: print(error.code, os.environ['http_proxy'])"
        )
        ran = connection.expect(200, "POST", f"{path}/execute", {"code": code})
        assert ran["stdout"] == "403 http://127.0.0.1:3128\n"
        told = connection.expect(200, "GET", f"{path}/network")
        assert (told["network"], told["totals"]["denied"]) == (allow, 1)
        assert connection.expect(409, "GET", f"{path}/ports/8000/")["error"]["code"] == "PORT_NOT_SERVED"
        assert connection.expect(200, "PATCH", path, {"network": None})["network"] is None
        # A container that does not say within a second what it holds has no figures this time.
        metrics = until(lambda: _told_metrics(connection, path), "the container tells what it holds")
        assert metrics["disk"]["current_bytes"] >= 1 << 20
        assert metrics["processes"]["current"] >= 0
        connection.expect(200, "DELETE", path)


def _told_metrics(connection: Connection, path: str) -> dict[str, Any] | None:
    metrics: dict[str, Any] = connection.expect(200, "GET", f"{path}/metrics")
    return None if metrics["disk"]["current_bytes"] is None else metrics


@pytest.mark.needs_python39
def test_templates_say_which_classes_there_are(contained: Server) -> None:
    """And which of them is taken unasked."""
    with contained.connect() as connection:
        listed = connection.expect(200, "GET", TEMPLATES)["templates"]
        classes = {each["name"]: (each["isolation"], each["isolations"]) for each in listed}
        assert classes["python"] == ("standard", ["standard", "gvisor"])
        assert classes["python-3.9"] == ("gvisor", ["gvisor", "standard"])


@pytest.mark.needs_python39
@pytest.mark.parametrize(("base", "is_hosts"), [("python-3.9", False), ("python", True)])
def test_a_template_is_tried_in_the_class_of_its_environments(contained: Server, base: str, is_hosts: bool) -> None:
    """What it imports and says of being ready is so where they run."""
    name = f"tried-{base}"
    ready = f"grep -cF {os.uname().release} /proc/version | grep -qx {int(is_hosts)}"
    with contained.connect() as connection:
        recipe = {"name": name, "base": base, "preload": ["json.tool"], "ready": ready}
        connection.expect(201, "POST", TEMPLATES, recipe)
        built = until_built(connection, name)
        assert built["status"] == "ready", built
        made = make(connection, name)
        assert kernel(connection, made)[1] is is_hosts
        delete(connection, made)
        connection.expect(200, "DELETE", f"{TEMPLATES}/{name}")


def test_what_the_server_does_not_hold_is_refused(contained: Server) -> None:
    """With the classes that it holds."""
    with contained.connect() as connection:
        wanted = {"name": "e", "template": "python", "isolation": "process"}
        error = connection.expect(400, "POST", ENVIRONMENTS, wanted)["error"]
        assert error["code"] == "ISOLATION_UNAVAILABLE"
        assert error["details"] == {"isolation": "process", "available": ["standard", "gvisor"]}
        assert "sandgate doctor" in error["message"]


@pytest.fixture(scope="module")
def unasked() -> Iterator[Server]:
    """A server whose own class it is."""
    with Server({"SANDGATE_ISOLATION": "gvisor", "SANDGATE_GVISOR_SPARE_SANDBOXES": "0"}) as running:
        yield running


def test_an_environment_outlives_its_gateway(unasked: Server) -> None:
    """The next one, which is not root either, finds it with its files, and it runs code as before."""
    with unasked.connect() as connection:
        made = make(connection, "python")
        path = f"{ENVIRONMENTS}/{made}/execute"
        connection.expect(200, "POST", path, {"code": "open('kept', 'w').write('kept')"})
    # Who connects now waits for the next one: the server keeps the port.
    for pid in unasked.listeners():
        if pid != unasked.pid:
            # One that the gateway has just forked has the port, too, for a moment.
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    with unasked.connect() as connection:
        assert connection.expect(200, "POST", path, {"code": "print(open('kept').read())"})["stdout"] == "kept\n"
        assert kernel(connection, made) == ("gvisor", False)
        delete(connection, made)


def _kernels(server: Server) -> list[int]:
    """The processes that are gVisor's kernels."""
    return [pid for pid in descendants(server.pid) if program_of(pid) == b"runsc-sandbox"]


def test_an_environment_ends_with_its_container(unasked: Server) -> None:
    """Its row says so, and what ran in it is lost."""
    with unasked.connect() as connection:
        made = make(connection, "python")
        assert kernel(connection, made) == ("gvisor", False)
        # Those of the tests before may still be ending.
        until(lambda: len(_kernels(unasked)) == 1, "there is one")
        os.kill(_kernels(unasked)[0], signal.SIGKILL)
        path = f"{ENVIRONMENTS}/{made}"
        until(lambda: connection.expect(200, "GET", path)["status"] != "running", "it has ended")
        row = connection.expect(200, "GET", path)
        assert row["status"] == "failed"
        assert "container ended" in row["status_reason"]
