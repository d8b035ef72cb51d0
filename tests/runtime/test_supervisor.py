"""The process that keeps the others running, with a launcher that an earlier server left."""

import subprocess
import sys

import pytest

from sandgate.core.states import Isolation
from sandgate.sandbox.launcher import starter
from tests.runtime.hosts import launcher_host

# The gateway ends at once with this code, which comes as the argument.
_SUPERVISE = """
import sys
from sandgate.cli.supervisor import Supervisor
from sandgate.sandbox.launcher.config import LauncherConfig

def start_launcher():
    raise AssertionError("there is one")

config = LauncherConfig.from_json(sys.stdin.read())
sys.exit(Supervisor(config, start_launcher, lambda: int(sys.argv[1])).run())
"""


@pytest.mark.parametrize(("gateway", "server", "stays"), [(1, 1, False), (78, 78, True)])
def test_a_launcher_of_an_earlier_server(gateway: int, server: int, stays: bool) -> None:
    """Ends with a server that gives up on its gateway; a server that may not start leaves it to one that may."""
    with launcher_host(Isolation.PROCESS) as host:
        command = [sys.executable, "-c", _SUPERVISE, str(gateway)]
        done = subprocess.run(command, input=host.config.to_json(), text=True, capture_output=True, timeout=60)
        assert done.returncode == server, done.stderr
        assert starter.is_running(host.config) is stays
