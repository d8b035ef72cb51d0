"""Sessions outlive the gateway that opened them."""

from dataclasses import replace

import pytest

from sandgate.core.execution import ExecutionRequest, Termination
from sandgate.core.ids import EnvironmentId, make_environment_id
from sandgate.core.limits import Limits
from sandgate.core.session import SessionBounds, SessionRequest, SessionStatus
from sandgate.environments.journal import OutputJournal
from sandgate.sandbox.base import RunningSession, Sandbox, SandboxSpec
from sandgate.sandbox.zygote_runtime import ZygoteRuntime
from tests.runtime.hosts import LauncherHost, until
from tests.runtime.test_commands_kept import CLASSES, TEMPLATE

BOUNDS = SessionBounds(grace_s=3.0)


async def _connect(host: LauncherHost) -> ZygoteRuntime:
    runtime = ZygoteRuntime(host.isolation, host.config.socket_path, host.config.run_folder / "notes", tagged_s=0.05)
    await runtime.start(lambda _environment_id, _reason: None)
    return runtime


async def _run(session: RunningSession, code: str) -> Termination:
    return await session.execute(ExecutionRequest(code, 60)).wait()


async def _open(sandbox: Sandbox, name: str) -> RunningSession:
    session = sandbox.open_session(SessionRequest(bounds=BOUNDS, tag=f"session|{name}", note=name.encode()))
    await session.wait_until_ready()
    await _run(session, f"import time\nname = {name!r}")
    return session


async def _take_up(
    host: LauncherHost, environment_id: EnvironmentId
) -> tuple[ZygoteRuntime, dict[str, RunningSession]]:
    runtime = await _connect(host)
    await runtime.adopt({environment_id: Limits()})
    taken: dict[str, RunningSession] = {}
    for tag in sorted(runtime.kept()):
        assert runtime.read_note(environment_id, tag) == tag.rpartition("|")[2].encode()
        session = runtime.resume_session(SessionRequest(bounds=BOUNDS, tag=tag))
        assert session is not None
        taken[tag.rpartition("|")[2]] = session
    return runtime, taken


@pytest.mark.parametrize("isolation", CLASSES)
async def test_a_later_gateway_takes_sessions_up(
    isolation: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all that they know, whatever they were at; what ran is interrupted, and what does not stop ends."""
    host: LauncherHost = request.getfixturevalue(f"{isolation}_host")
    first = await _connect(host)
    environment_id = make_environment_id()
    sandbox = await first.create(SandboxSpec(environment_id, TEMPLATE, Limits(), 120.0))
    names = ("gone", "idle", "shows", "sleeps", "stays")
    sessions = {name: await _open(sandbox, name) for name in names}
    shows = "for n in range(100):\n    print('x' * 3000)\n    display('y' * 3000)\n    time.sleep(0.001)"
    stays = "while True:\n  try:\n    open('stays', 'w').close(); time.sleep(9)\n  except KeyboardInterrupt: pass"
    running = {"shows": shows, "sleeps": "time.sleep(60)", "stays": stays}
    for name, code in running.items():
        sessions[name].execute(ExecutionRequest(code, 60))
    look = "import os, time\nwhile not os.path.exists('stays'): time.sleep(0.01)"
    await sandbox.execute(ExecutionRequest(look, 60)).wait()
    await first.stop(keep_sandboxes=True)
    second, taken = await _take_up(host, environment_id)
    assert tuple(taken) == names
    for name in ("gone", "idle", "shows", "sleeps"):
        assert (await _run(taken[name], "name")).results == ({"text/plain": f"'{name}'"},)
    assert (await _run(taken["idle"], "1 / 0")).stderr.startswith(b"Traceback")
    assert taken["idle"].executions == 3
    assert "did not come to its end" in await taken["stays"].wait()
    # However long it takes until the slot tells of the end.
    monkeypatch.setattr("sandgate.sandbox.session._LAST_WORD_S", 20.0)
    await _run(taken["gone"], "import os; os._exit(0)")
    assert await taken["gone"].wait() == "its process ended with exit code 0"
    await second.stop(keep_sandboxes=True)
    third, taken = await _take_up(host, environment_id)
    assert tuple(taken) == ("idle", "shows", "sleeps")
    assert (await _run(taken["sleeps"], "name")).results == ({"text/plain": "'sleeps'"},)
    taken["idle"].end("it was deleted")
    assert await taken["idle"].wait() == "it was deleted"
    await third.destroy(environment_id)
    assert taken["shows"].status is SessionStatus.ENDED
    await third.stop(keep_sandboxes=True)
    assert [path for path in (host.config.run_folder / "notes").iterdir() if path.name.startswith(environment_id)] == []


@pytest.mark.needs_root_namespaces
async def test_a_stream_that_was_cut_off_is_gone_on_with(standard_host: LauncherHost) -> None:
    """A cell that waits until what it has shown was taken does not wait for a gateway that is gone."""
    first = await _connect(standard_host)
    environment_id = make_environment_id()
    sandbox = await first.create(SandboxSpec(environment_id, TEMPLATE, Limits(), 120.0))
    session = await _open(sandbox, "streams")
    code = "for n in range(99):\n    display(n)\n    time.sleep(0.002)"
    journal = OutputJournal(10**6, 10**6, 10**6)
    watched = replace(ExecutionRequest(code, 60), watch=journal)
    session.execute(watched)
    await until(lambda: len(list(journal.items_from(0, 0))) > 4)
    await first.stop(keep_sandboxes=True)
    second, taken = await _take_up(standard_host, environment_id)
    ran = await _run(taken["streams"], "[name, n > 1]")
    assert ran.results == ({"text/plain": "['streams', True]"},)
    await second.destroy(environment_id)
    await second.stop(keep_sandboxes=True)
