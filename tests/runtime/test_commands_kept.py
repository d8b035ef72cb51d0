"""Commands outlive the gateway that started them."""

import pytest

from sandgate.core.execution import ExecutionRequest
from sandgate.core.ids import make_environment_id
from sandgate.core.limits import Limits
from sandgate.core.states import Isolation
from sandgate.sandbox.base import SandboxSpec
from sandgate.sandbox.zygote_runtime import ZygoteRuntime
from tests.runtime.commands import Started
from tests.runtime.hosts import LauncherHost, available_versions

TEMPLATE = f"python-{available_versions()[-1]}"
CLASSES = (
    pytest.param(Isolation.STANDARD, marks=pytest.mark.needs_root_namespaces),
    pytest.param(Isolation.GVISOR, marks=pytest.mark.needs_gvisor),
    Isolation.PROCESS,
)


@pytest.mark.parametrize("isolation", CLASSES)
async def test_a_later_gateway_takes_a_command_up(isolation: Isolation, request: pytest.FixtureRequest) -> None:
    """With its input, its terminal and what it was noted as, whoever holds nothing; and hears of one that has ended."""
    host: LauncherHost = request.getfixturevalue(f"{isolation}_host")
    folder = host.config.run_folder / "notes"
    first = ZygoteRuntime(host.isolation, host.config.socket_path, folder, tagged_s=0.05)
    await first.start(lambda _environment_id, _reason: None)
    environment_id = make_environment_id()
    sandbox = await first.create(SandboxSpec(environment_id, TEMPLATE, Limits(), 120.0))
    script = "echo begun; read x; echo got-$x; read x"
    commands = {
        f"process|{n}": Started(sandbox, "sh", "-c", script, takes_input=True, tag=f"process|{n}") for n in "ab"
    }
    for command in commands.values():
        await command.written.until(b"begun\n")
    await commands["process|b"].type(b"early\n")
    await commands["process|b"].written.until(b"got-early\n")
    await first.stop(keep_sandboxes=True)
    second = ZygoteRuntime(host.isolation, host.config.socket_path, folder, tagged_s=0.05)
    await second.start(lambda _environment_id, _reason: None)
    (sandbox,) = await second.adopt({environment_id: Limits()})
    assert set(second.kept()) == set(commands)
    for tag in commands:
        assert second.read_note(environment_id, tag) == b"a note"
        following = Started(None, "sh", takes_input=True, tag=tag)
        resumed = await second.resume(following.request, Limits())
        assert resumed is not None
        following.execution, commands[tag] = resumed.execution, following
    assert await second.resume(commands["process|a"].request, Limits()) is None
    await commands["process|a"].type(b"late\n")
    await commands["process|a"].written.until(b"got-late\n")
    assert commands["process|a"].written.text["stdout"] == b"got-late\n"
    for tag, command in commands.items():
        await command.type(b"\n")
        assert (await command.end()).exit_code == 0
        second.let_go(tag)
    assert (await sandbox.execute(ExecutionRequest("print(5)", 20)).wait()).stdout == b"5\n"
    await second.destroy(environment_id)
    await second.stop(keep_sandboxes=True)
    assert [path for path in folder.iterdir() if path.name.startswith(environment_id)] == []


@pytest.mark.parametrize("isolation", CLASSES)
async def test_nothing_is_kept_of_a_command_that_ends_with_its_sandbox(
    isolation: Isolation, request: pytest.FixtureRequest
) -> None:
    """Nobody will ask for what it was noted as."""
    host: LauncherHost = request.getfixturevalue(f"{isolation}_host")
    folder = host.config.run_folder / "notes"
    runtime = ZygoteRuntime(host.isolation, host.config.socket_path, folder)
    await runtime.start(lambda _environment_id, _reason: None)
    environment_id = make_environment_id()
    sandbox = await runtime.create(SandboxSpec(environment_id, TEMPLATE, Limits(), 120.0))
    command = Started(sandbox, "sh", "-c", "echo begun; read x", takes_input=True, tag="process|c")
    await command.written.until(b"begun\n")
    assert runtime.read_note(environment_id, "process|c") == b"a note"
    await runtime.destroy(environment_id)
    assert [path for path in folder.iterdir() if path.name.startswith(environment_id)] == []
    await runtime.stop(keep_sandboxes=True)
