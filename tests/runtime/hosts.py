"""A launcher of the tests' own, and runtimes connected to it."""

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sandgate.core.execution import ExecutionRequest, Termination
from sandgate.core.ids import EnvironmentId, make_environment_id
from sandgate.core.limits import Limits
from sandgate.core.states import Isolation
from sandgate.sandbox.base import Sandbox, SandboxSpec
from sandgate.sandbox.launcher import starter
from sandgate.sandbox.launcher.config import LauncherConfig, TemplateConfig
from sandgate.sandbox.zygote_runtime import ZygoteRuntime
from tests.abilities import find_interpreter

VERSIONS = ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13")
# Far from the default of the settings, so that a server on the same machine shares no id with the tests.
_HOST_ID_BASE = 1_700_000_000
_PLAIN_USER_ID = 1_699_999_999


def available_versions() -> list[str]:
    """The versions of Python that this machine has."""
    return [version for version in VERSIONS if find_interpreter(version)]


def find_templates() -> tuple[TemplateConfig, ...]:
    """A template for each version of Python that this machine has."""
    found = []
    for version in available_versions():
        interpreter = os.path.realpath(find_interpreter(version) or "")
        prefix = str(Path(interpreter).parent.parent)
        found.append(TemplateConfig(f"python-{version}", interpreter, prefix))
    return tuple(found)


@dataclass
class LauncherHost:
    """A launcher process and where it is found."""

    config: LauncherConfig
    isolation: Isolation
    process: subprocess.Popen[str]

    def runtime(self) -> ZygoteRuntime:
        """A runtime that will connect to it."""
        return ZygoteRuntime(self.isolation, self.config.socket_path)

    def log(self) -> str:
        """What it has written."""
        return (self.config.run_folder / "launcher.log").read_text()


def start_launcher(config: LauncherConfig) -> subprocess.Popen[str]:
    """Start (again) the launcher of a configuration."""
    user = None if config.standard or os.geteuid() != 0 else _PLAIN_USER_ID
    return starter.start(config, config.run_folder / "launcher.log", user)


@contextmanager
def launcher_host(isolation: Isolation, templates: tuple[TemplateConfig, ...] | None = None) -> Iterator[LauncherHost]:
    """A launcher that ends with the block, and everything that it has made."""
    with tempfile.TemporaryDirectory(prefix="sgl-") as folder:
        run_folder = Path(folder)
        run_folder.chmod(0o755)
        standard = isolation is Isolation.STANDARD
        if not standard and os.geteuid() == 0:
            os.chown(run_folder, _PLAIN_USER_ID, _PLAIN_USER_ID)
        config = LauncherConfig(
            run_folder=run_folder,
            tree_name=f"sandgate-test-{run_folder.name[-8:]}",
            gateway_uid=os.geteuid(),
            host_id_base=_HOST_ID_BASE,
            most_sandboxes=2000,
            standard=standard,
            templates=find_templates() if templates is None else templates,
        )
        host = LauncherHost(config, isolation, start_launcher(config))
        try:
            yield host
        finally:
            host.process.send_signal(signal.SIGTERM)
            host.process.wait(15)


class Bench:
    """Makes sandboxes of one runtime and runs code in them, in as few words as a test deserves."""

    def __init__(self, host: LauncherHost, runtime: ZygoteRuntime) -> None:
        self.host = host
        self.runtime = runtime
        self.ended: list[tuple[EnvironmentId, str]] = []
        self.made: list[EnvironmentId] = []

    def on_end(self, environment_id: EnvironmentId, reason: str) -> None:
        """Note what ended unasked."""
        self.ended.append((environment_id, reason))

    async def make(
        self, version: str | None = None, limits: Limits | None = None, lifetime_s: float = 120.0
    ) -> Sandbox:
        """A sandbox; of the newest Python unless told otherwise."""
        template = f"python-{version or available_versions()[-1]}"
        environment_id = make_environment_id()
        self.made.append(environment_id)
        return await self.runtime.create(SandboxSpec(environment_id, template, limits or Limits(), lifetime_s))

    async def run(self, sandbox: Sandbox, code: str, timeout_s: float = 20.0) -> Termination:
        """Run code to its end."""
        return await sandbox.execute(ExecutionRequest(code, timeout_s)).wait()
