"""A real server, as an operator starts it, for all tests of this folder."""

from collections.abc import Iterator

import pytest

from bench.sandgate_server import Server
from tests.e2e.command_shell import Shell

# Whose names lead to ports of environments. They are in no DNS: tests send them to the server themselves.
DOMAIN = "sandboxes.example.com"


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """``sandgate serve`` on a fresh state folder and a free port; stopped, and everything of it gone, at the end."""
    with Server({"SANDGATE_PORTS_DOMAIN": DOMAIN}) as running:
        yield running


@pytest.fixture
def line(
    server: Server,
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Shell:
    """A shell of the admin."""
    folder = tmp_path_factory.mktemp("shell")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder))
    monkeypatch.setenv("SANDGATE_URL", f"http://127.0.0.1:{server.port}")
    monkeypatch.setenv("SANDGATE_TOKEN", server.token)
    return Shell(capsys, monkeypatch, folder)


@pytest.fixture(scope="session")
def gvisor_server() -> Iterator[Server]:
    """One whose environments are of the gvisor class unasked."""
    with Server({"SANDGATE_ISOLATION": "gvisor", "SANDGATE_PORTS_DOMAIN": DOMAIN}) as running:
        yield running


@pytest.fixture(params=["server", pytest.param("gvisor_server", marks=pytest.mark.needs_gvisor)])
def either(request: pytest.FixtureRequest) -> Server:
    """A server of each class that has walls, for what works in both."""
    running: Server = request.getfixturevalue(request.param)
    return running
