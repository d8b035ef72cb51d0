"""Packages that setup commands and code install with pip, in a template that was built and beside it."""

from collections.abc import Iterator
from typing import Any

import pytest

from bench.client import Connection
from bench.p07_preload import build
from bench.sandgate_server import Server, create, delete, execute
from tests.e2e.small_wheels import HOST, PackageIndex, serve_index

pytestmark = [pytest.mark.needs_root_namespaces, pytest.mark.needs_own_python]

BASE = "python-3.9"
ENVIRONMENTS = "/api/v1/sandbox/environments"
CLASSES = ["standard", pytest.param("gvisor", marks=pytest.mark.needs_gvisor)]


@pytest.fixture(scope="module")
def index() -> Iterator[PackageIndex]:
    """Packages of which each needs the one before."""
    with serve_index() as serving:
        serving.add("sandgate_first", "1.0", {"sandgate_first.py": "WORDS = ['first']\n"})
        points = "[console_scripts]\nsandgate-tool = sandgate_tool:main\n"
        tool = {"sandgate_tool.py": "def main():\n    print('a tool')\n"}
        serving.add("sandgate_tool", "1.0", {**tool, "sandgate_tool-1.0.dist-info/entry_points.txt": points})
        serving.add("sandgate_first", "2.0", {"sandgate_first.py": "WORDS = ['newer']\n"})
        for name, before in (("second", "first"), ("third", "second"), ("fourth", "third")):
            code = f"import sandgate_{before}\nWORDS = [*sandgate_{before}.WORDS, '{name}']\n"
            serving.add(f"sandgate_{name}", "1.0", {f"sandgate_{name}.py": code}, (f"sandgate_{before}",))
        yield serving


@pytest.fixture(scope="module")
def server(index: PackageIndex) -> Iterator[Server]:
    """One whose builds may reach the index."""
    settings = {"SANDGATE_NETWORK_ALLOW_SPECIAL": HOST, "SANDGATE_PACKAGE_INDEX": index.url}
    spares = {"SANDGATE_SPARE_SANDBOXES": "1", "SANDGATE_GVISOR_SPARE_SANDBOXES": "0"}
    with Server({**settings, **spares, "SANDGATE_PACKAGE_HOSTS": ""}) as running:
        yield running


@pytest.fixture(scope="module")
def options(index: PackageIndex) -> str:
    """Of pip."""
    return f"--quiet --no-compile --disable-pip-version-check --index-url {index.url} --trusted-host {HOST}"


@pytest.fixture(scope="module")
def template(server: Server, options: str) -> str:
    """One with two packages: one of the recipe, and one that a setup command has installed."""
    packages, setup = ["sandgate_first<2"], [f"pip install {options} sandgate_second"]
    with server.connect() as connection:
        recipe = {
            "name": "with-pip",
            "base": BASE,
            "packages": packages,
            "setup": setup,
            # Installing for the user would leave nothing in the template.
            "env": {"PIP_USER": "1"},
            "preload": ["sandgate_second"],
        }
        name: str = build(connection, recipe)["name"]
    return name


@pytest.fixture
def client(server: Server) -> Iterator[Connection]:
    """A connection of the admin's."""
    with server.connect() as connection:
        yield connection


def _run(client: Connection, environment_id: str, code: str, **more: Any) -> dict[str, Any]:
    ran: dict[str, Any] = execute(client, environment_id, {"code": code, **more})
    return ran


@pytest.mark.parametrize("isolation", CLASSES)
def test_more_can_be_installed_beside_it(
    template: str, options: str, client: Connection, index: PackageIndex, isolation: str
) -> None:
    """By pip of every kind, which takes what the template has for installed, and does not replace it."""
    network = {"allow": [f"{HOST}:{index.port}"]}
    made = create(client, template, isolation=isolation, network=network)
    session_id = client.expect(201, "POST", f"{ENVIRONMENTS}/{made}/sessions", {})["session_id"]
    asked = len(index.asked)
    cell = f"%pip install {options} sandgate_third\nimport sandgate_third\nsandgate_third.WORDS"
    shown = _run(client, made, cell, session_id=session_id)
    assert (shown["stderr"], shown["results"]) == ("", [{"text/plain": "['first', 'second', 'third']"}])

    by_program = _run(client, made, f"pip install {options} sandgate_fourth", language="bash")
    assert (by_program["exit_code"], by_program["stderr"]) == (0, "")
    code = "import sandgate_fourth as fourth\nprint(fourth.WORDS, fourth.__file__)"
    words = "['first', 'second', 'third', 'fourth']"
    assert _run(client, made, code)["stdout"].startswith(f"{words} /home/user/.local/lib/")
    assert not [path for path in index.asked[asked:] if "second" in path]

    # Programs that come with it are found.
    tool = _run(client, made, f"pip install {options} sandgate_tool && sandgate-tool", language="bash")
    assert (tool["stdout"], tool["stderr"]) == ("a tool\n", "")
    cell = "import os\nos.environ['PATH'] = '/usr/bin:/bin'\n!sandgate-tool"
    assert _run(client, made, cell, session_id=session_id)["stdout"] == "a tool\n"

    newer = _run(client, made, f"pip install {options} --upgrade sandgate_first; echo $?", language="bash")
    assert (newer["stdout"], "Will not install to the user site" in newer["stderr"]) == ("1\n", True), newer
    assert _run(client, made, code)["stdout"].startswith(words)
    delete(client, made)
