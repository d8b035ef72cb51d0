"""Sessions of environments: made, counted, used, restarted and ended."""

import asyncio
from collections.abc import Collection
from functools import partial

import pytest

from sandgate.config.settings import Settings
from sandgate.core.errors import (
    EnvironmentNotFound,
    EnvironmentNotRunning,
    Forbidden,
    ServiceDraining,
    SessionEnded,
    SessionNotFound,
    TooManySessions,
    UnknownLanguage,
)
from sandgate.core.execution import Execution
from sandgate.core.ids import EnvironmentId, SessionId, UserId, make_session_id
from sandgate.core.page import PageRequest
from sandgate.core.principal import Role
from sandgate.core.session import SessionLanguage, SessionRequest, SessionStatus
from sandgate.core.states import ExecutionStatus
from sandgate.core.variables import Variables
from sandgate.environments.base import NewEnvironment
from sandgate.environments.following import RESULT
from sandgate.environments.service import EnvironmentService
from sandgate.environments.session_port import NewSession
from sandgate.store.sql_store import SqlStore
from sandgate.testing.fake_runtime import FakeSandbox
from sandgate.testing.fake_session import FakeSession
from sandgate.testing.fake_templates import FakeTemplates
from tests.unit.environments.conftest import World, make_principal


async def _execute(world: World, environment_id: EnvironmentId, session_id: SessionId, code: str) -> Execution:
    return await world.service.execute(world.user, environment_id, code, None, session_id=session_id)


async def test_its_executions_are_recorded_with_what_they_showed(world: World) -> None:
    """In the answer, in the record, in lists, and in the events of those who follow later."""
    environment_id = await world.create_running()
    made = await world.service.sessions.create(world.user, environment_id, NewSession())
    assert (made.status, made.executions) == (SessionStatus.IDLE, 0)
    await _execute(world, environment_id, made.session_id, "x = 1")
    ran = await _execute(world, environment_id, made.session_id, "display('a')\nx + 1")
    assert (ran.session_id, ran.results) == (made.session_id, ({"text/plain": "'a'"}, {"text/plain": "2"}))
    assert await world.service.get_execution(world.user, environment_id, ran.execution_id) == ran
    page = await world.service.list_executions(world.user, environment_id, PageRequest())
    assert [row.results for row in page.items] == [ran.results, ()]
    events = await world.service.follow_execution(world.user, environment_id, ran.execution_id, None)
    told = [event async for batch in events for event in batch]
    assert [(event.position, event.bundle) for event in told if event.kind == RESULT] == [
        ("0.0.1", {"text/plain": "'a'"}),
        ("0.0.2", {"text/plain": "2"}),
    ]
    assert (await world.service.sessions.get(world.user, environment_id, made.session_id)).executions == 2


async def test_results_come_between_the_output(world: World) -> None:
    """In a stream, where they were shown."""
    environment_id = await world.create_running()
    made = await world.service.sessions.create(world.user, environment_id, NewSession())
    events = await world.service.stream_execution(
        world.user,
        environment_id,
        "for n in range(3):\n    print('before', n)\n    display(n)\n5",
        None,
        None,
        None,
        made.session_id,
        detach=False,
    )
    told = [event async for batch in events for event in batch]
    shown = "".join(event.text or f"[{(event.bundle or {}).get('text/plain')}]" for event in told[1:-1])
    assert shown == "before 0\n[0]before 1\n[1]before 2\n[2][5]"
    assert told[-1].execution is not None
    assert len(told[-1].execution.results or ()) == 4


async def test_who_may_do_what(world: World) -> None:
    """What is another user's is not found; a viewer changes nothing; an unknown id is no session."""
    environment_id = await world.create_running()
    sessions = world.service.sessions
    made = await sessions.create(world.user, environment_id, NewSession())
    with pytest.raises(EnvironmentNotFound):
        await sessions.get(make_principal(), environment_id, made.session_id)
    viewer = make_principal(Role.VIEWER)
    theirs = await world.create(make_principal())
    with pytest.raises(EnvironmentNotFound):
        await sessions.create(viewer, environment_id, NewSession())
    with pytest.raises(SessionNotFound):
        await sessions.get(world.user, environment_id, make_session_id())
    with pytest.raises(SessionNotFound):
        await _execute(world, environment_id, make_session_id(), "1")
    with pytest.raises(SessionNotFound):
        await sessions.get(make_principal(Role.ADMIN), theirs.environment_id, made.session_id)
    world.user = type(world.user)(world.user.user_id, "somebody", Role.VIEWER)
    with pytest.raises(Forbidden):
        await sessions.delete(world.user, environment_id, made.session_id)
    assert len(await sessions.list(world.user, environment_id)) == 1


async def test_they_are_counted(store: SqlStore) -> None:
    """For an environment and for a user; one that has ended leaves room."""
    world = World(store, Settings(drain_grace_s=0.02, max_sessions=2, max_sessions_per_user=3))
    await world.service.start()
    sessions = world.service.sessions
    first, second = [await world.create_running() for _ in range(2)]
    made = [await sessions.create(world.user, first, NewSession()) for _ in range(2)]
    with pytest.raises(TooManySessions, match="The environment has 2"):
        await sessions.create(world.user, first, NewSession())
    await sessions.create(world.user, second, NewSession())
    with pytest.raises(TooManySessions, match="of this user have 3"):
        await sessions.create(world.user, second, NewSession())
    await sessions.delete(world.user, first, made[0].session_id)
    await sessions.create(world.user, second, NewSession())
    await sessions.restart(world.user, first, made[1].session_id)
    await world.service.stop()


async def test_a_restart_clears_it(world: World) -> None:
    """Also of one that has ended, of which is said why; its id stays."""
    environment_id = await world.create_running()
    sessions = world.service.sessions
    session_id = (await sessions.create(world.user, environment_id, NewSession())).session_id
    await _execute(world, environment_id, session_id, "x = 1")
    restarted = await sessions.restart(world.user, environment_id, session_id)
    assert (restarted.session_id, restarted.status, restarted.executions) == (session_id, SessionStatus.IDLE, 0)
    ran = await _execute(world, environment_id, session_id, "x")
    assert ran.error is not None
    assert ran.error.name == "NameError"
    await _execute(world, environment_id, session_id, "import os; os._exit(3)")
    ended = await sessions.get(world.user, environment_id, session_id)
    assert (ended.status, ended.status_reason) == (SessionStatus.ENDED, "its process ended with exit code 3")
    with pytest.raises(SessionEnded):
        await _execute(world, environment_id, session_id, "1")
    await sessions.restart(world.user, environment_id, session_id)
    assert (await _execute(world, environment_id, session_id, "1")).status is ExecutionStatus.COMPLETED


async def test_deleting_cancels_what_runs(world: World) -> None:
    """And what waits; then it is not there any more."""
    environment_id = await world.create_running()
    session_id = (await world.service.sessions.create(world.user, environment_id, NewSession())).session_id
    running = [
        asyncio.ensure_future(_execute(world, environment_id, session_id, "import time; time.sleep(30)"))
        for _ in range(2)
    ]
    await world.until(lambda: world.service.running_count == 2)
    deleted = await world.service.sessions.delete(world.user, environment_id, session_id)
    assert (deleted.status, deleted.status_reason) == (SessionStatus.ENDED, "it was deleted")
    assert [row.status for row in await asyncio.gather(*running)] == [ExecutionStatus.CANCELLED] * 2
    assert list(await world.service.sessions.list(world.user, environment_id)) == []


def _is_ending(session: FakeSession) -> bool:
    return session._reason is not None


async def test_one_that_is_deleted_while_it_is_restarted_is_gone(world: World) -> None:
    """Whichever of them came first, no interpreter is left of it."""
    environment_id = await world.create_running()
    live = world.service._lifecycle.find(environment_id)
    assert live is not None
    sandbox, sessions = live.get_sandbox(), world.service.sessions
    assert isinstance(sandbox, FakeSandbox)
    for first, second in ((sessions.restart, sessions.delete), (sessions.delete, sessions.restart)):
        session_id = (await sessions.create(world.user, environment_id, NewSession())).session_id
        running = live.sessions.get(session_id).running
        assert isinstance(running, FakeSession)
        begun = asyncio.ensure_future(first(world.user, environment_id, session_id))
        # Both wait for the end of the same interpreter.
        await world.until(partial(_is_ending, running))
        ends = await asyncio.gather(begun, second(world.user, environment_id, session_id), return_exceptions=True)
        assert sum(isinstance(end, SessionNotFound | SessionEnded) for end in ends) == 1
        assert (list(live.sessions), sandbox.sessions) == ([], set())


async def test_one_that_is_forgotten_while_it_is_restarted_is_gone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one of too many that have ended."""
    environment_id = await world.create_running()
    sessions = world.service.sessions
    session_id = (await sessions.create(world.user, environment_id, NewSession())).session_id
    live = world.service._lifecycle.find(environment_id)
    assert live is not None
    sandbox, session = live.get_sandbox(), live.sessions.get(session_id)
    assert isinstance(sandbox, FakeSandbox)
    begin = sandbox.open_session

    def forget(request: SessionRequest) -> FakeSession:
        live.sessions.remove(session)
        return begin(request)

    monkeypatch.setattr(sandbox, "open_session", forget)
    with pytest.raises(SessionNotFound):
        await sessions.restart(world.user, environment_id, session_id)
    await world.until(lambda: not sandbox.sessions)


async def test_one_that_is_idle_for_too_long_is_ended(world: World) -> None:
    """Counted from the end of what ran last."""
    environment_id = await world.create_running()
    wanted = NewSession(idle_timeout_s=10)
    sessions = world.service.sessions
    session_id = (await sessions.create(world.user, environment_id, wanted)).session_id
    world.clock.advance(9)
    await _execute(world, environment_id, session_id, "1")
    world.clock.advance(9)
    sessions.end_idle()
    assert (await sessions.get(world.user, environment_id, session_id)).status is SessionStatus.IDLE
    world.clock.advance(2)
    sessions.end_idle()
    ended = await sessions.get(world.user, environment_id, session_id)
    while ended.status is not SessionStatus.ENDED:
        await asyncio.sleep(0.002)
        ended = await sessions.get(world.user, environment_id, session_id)
    assert ended.status_reason == "it was idle for 10 s"


async def test_it_ends_with_its_environment(world: World) -> None:
    """And none is made in one that has ended, or while the service stops."""
    environment_id = await world.create_running()
    await world.service.sessions.create(world.user, environment_id, NewSession())
    world.runtime.kill(environment_id, "it broke")
    with pytest.raises(EnvironmentNotRunning):
        await world.service.sessions.create(world.user, environment_id, NewSession())
    other = await world.create_running()
    await world.service.stop()
    with pytest.raises((ServiceDraining, EnvironmentNotRunning)):
        await world.service.sessions.create(world.user, other, NewSession())


async def test_what_it_cannot_begin_with_is_said(world: World) -> None:
    """A language that the template does not have, a folder that is not there; nothing of it is left."""
    environment_id = await world.create_running()
    with pytest.raises(UnknownLanguage):
        await world.service.sessions.create(world.user, environment_id, NewSession(SessionLanguage.BASH))
    with pytest.raises(SessionEnded, match="No such file or directory: 'nowhere'"):
        await world.service.sessions.create(world.user, environment_id, NewSession(cwd="nowhere"))
    assert list(await world.service.sessions.list(world.user, environment_id)) == []


async def test_it_has_what_its_environment_gives(store: SqlStore) -> None:
    """Variables, and the secrets of its owner, whose session no admin runs code in; restarted by one it has none."""
    world = World(store)

    async def open_secrets(owner_id: UserId, names: Collection[str]) -> dict[str, str]:
        return dict.fromkeys(names, "hush")

    world.service = EnvironmentService(
        store, world.runtime, FakeTemplates(), world.clock, world.settings, world.faults.append,
        open_secrets=open_secrets, snapshot_files=world.snapshot_files,
    )  # fmt: skip
    await world.service.start()
    variables = Variables({"MODE": "test", "OWN": "no"}, ("TOKEN",))
    row = await world.service.create(world.user, NewEnvironment("e", "python-3.9", variables=variables))
    sessions, admin = world.service.sessions, make_principal(Role.ADMIN)
    made = await sessions.create(world.user, row.environment_id, NewSession(env={"OWN": "yes"}))
    code = "import os\ne = os.environ\nlast, e['MODE'] = e['MODE'], 'mine'\n[last, e['OWN'], e['TOKEN']]"
    ran = await _execute(world, row.environment_id, made.session_id, code)
    assert ran.results == ({"text/plain": "['test', 'yes', 'hush']"},)
    again = await _execute(world, row.environment_id, made.session_id, "os.environ['MODE']")
    assert again.results == ({"text/plain": "'mine'"},)
    world.user, owner = admin, world.user
    with pytest.raises(Forbidden):
        await _execute(world, row.environment_id, made.session_id, "1")
    await sessions.restart(admin, row.environment_id, made.session_id)
    ran = await _execute(world, row.environment_id, made.session_id, "import os; os.environ.get('TOKEN', 'none')")
    assert ran.results == ({"text/plain": "'none'"},)
    world.user = owner
    assert (await _execute(world, row.environment_id, made.session_id, "1")).results == ({"text/plain": "1"},)
    await world.service.stop()
