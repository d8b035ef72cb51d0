"""The same tests on every runtime: the fake one of the unit tests, and the real one in each of its classes."""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

import pytest

from sandgate.core.execution import ExecutionRequest, StepData, Termination
from sandgate.core.ids import EnvironmentId, make_environment_id
from sandgate.core.limits import Limits
from sandgate.core.states import Isolation
from sandgate.sandbox.base import Runtime, Sandbox, SandboxSpec
from sandgate.sandbox.zygote_runtime import ZygoteRuntime
from sandgate.testing.fake_runtime import FakeRuntime
from tests.runtime.conftest import gvisor_host, process_host, standard_host
from tests.runtime.hosts import LauncherHost, available_versions

__all__ = ["gvisor_host", "process_host", "standard_host"]
KINDS = [
    "fake",
    pytest.param("standard", marks=pytest.mark.needs_root_namespaces),
    pytest.param("gvisor", marks=pytest.mark.needs_gvisor),
    "process",
]


@dataclass
class Subject:
    """A runtime under test, and how another gateway would reach what it made.

    ``short_s`` is a lifetime that is soon over; it has begun when a sandbox is asked for, so that a machine that is
    busy needs a longer one for whatever is to happen before its end: ``lifetimes`` are tried in turn.
    """

    make_runtime: Callable[[], Runtime]
    template: str
    short_s: float = 1.5
    ended: list[tuple[EnvironmentId, str]] = field(default_factory=list)
    made: list[EnvironmentId] = field(default_factory=list)

    @property
    def lifetimes(self) -> Sequence[float]:
        """Short ones, the shortest first."""
        return self.short_s, self.short_s + 5, self.short_s + 25

    async def connect(self) -> None:
        """Begin with a new runtime, as a gateway that starts does."""
        self.runtime = self.make_runtime()
        await self.runtime.start(lambda name, reason: self.ended.append((name, reason)))

    def spec(self, lifetime_s: float = 60.0, limits: Limits | None = None) -> SandboxSpec:
        """What to make."""
        environment_id = make_environment_id()
        self.made.append(environment_id)
        return self.spec_of(environment_id, lifetime_s, limits)

    def spec_of(
        self, environment_id: EnvironmentId, lifetime_s: float = 60.0, limits: Limits | None = None
    ) -> SandboxSpec:
        """The same for an id that there was before."""
        return SandboxSpec(environment_id, self.template, limits or Limits(), lifetime_s)

    async def create(self, lifetime_s: float = 60.0, limits: Limits | None = None) -> Sandbox:
        """A sandbox."""
        return await self.runtime.create(self.spec(lifetime_s, limits))

    async def run(
        self, sandbox: Sandbox, code: str, timeout_s: float = 20.0, data: StepData | None = None
    ) -> Termination:
        """Run code to its end."""
        return await sandbox.execute(ExecutionRequest(code, timeout_s, data)).wait()


@pytest.fixture(params=KINDS)
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    """Each runtime in turn, connected, with nothing made."""
    if request.param == "fake":
        machine: dict[EnvironmentId, object] = {}
        made = Subject(lambda: FakeRuntime(machine), "python")  # type: ignore[arg-type]
    else:
        host: LauncherHost = request.getfixturevalue(f"{Isolation(request.param)}_host")
        spool = host.config.run_folder / "spool"
        made = Subject(
            lambda: ZygoteRuntime(host.isolation, host.config.socket_path, spool),
            f"python-{available_versions()[-1]}",
            2.0 if host.isolation is Isolation.GVISOR else 0.7,
        )
    await made.connect()
    yield made
    for environment_id in made.made:
        await made.runtime.destroy(environment_id)
    await made.runtime.stop(keep_sandboxes=True)
