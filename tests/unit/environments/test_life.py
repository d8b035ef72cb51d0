"""From the wish for an environment to its end."""

import asyncio

import pytest

from sandgate.core.environment import Environment, EnvironmentChange
from sandgate.core.errors import (
    EnvironmentNotFound,
    EnvironmentNotRunning,
    Forbidden,
    IsolationUnavailable,
    LimitTooHigh,
    MemoryQuotaExceeded,
    SandboxFailed,
    StoreUnavailable,
    TemplateUnavailable,
    TooManyEnvironments,
    UnknownTemplate,
)
from sandgate.core.ids import UserId, make_environment_id
from sandgate.core.limits import AskedLimits
from sandgate.core.page import PageRequest
from sandgate.core.principal import Role
from sandgate.core.quota import EnvironmentsHeld, UserQuota
from sandgate.core.states import EnvironmentStatus, Isolation
from sandgate.environments.base import NewEnvironment
from sandgate.store.sql_store import SqlStore
from sandgate.testing.fake_runtime import FakeRuntime
from tests.unit.environments.conftest import World, make_principal


async def test_an_environment_is_answered_before_its_sandbox_exists(world: World) -> None:
    """The row is durable and says creating while the runtime is still at work."""
    world.runtime.gate = asyncio.Event()
    row = await world.create(timeout_s=60)
    found = await world.store.environments.find(row.environment_id)
    assert found == row
    assert (row.status, row.timeout_s) == (EnvironmentStatus.CREATING, 60)
    assert (row.expires_at - row.created_at).total_seconds() == 60
    world.runtime.gate.set()
    await world.until_status(row.environment_id, EnvironmentStatus.RUNNING)
    assert (await world.service.get(world.user, row.environment_id)).status is EnvironmentStatus.RUNNING


async def test_the_sandbox_is_made_from_the_template_for_the_lifetime(world: World) -> None:
    """What the runtime is asked for is what the caller asked for."""
    environment_id = await world.create_running(timeout_s=77)
    (spec,) = world.runtime.made
    assert (spec.environment_id, spec.template, spec.lifetime_s) == (environment_id, "python-3.9", 77)
    assert spec.limits == world.settings.limits()


async def test_the_default_lifetime_is_a_setting(world: World) -> None:
    """Who asks for no lifetime gets the default."""
    assert (await world.create()).timeout_s == world.settings.default_environment_timeout_s


@pytest.mark.parametrize(
    ("wanted", "refusal"),
    [
        (NewEnvironment("e", "ruby"), UnknownTemplate),
        (NewEnvironment("e", "python-3.8"), TemplateUnavailable),
        (NewEnvironment("e", "python", isolation=Isolation.GVISOR), IsolationUnavailable),
        (NewEnvironment("e", "python", limits=AskedLimits(processes=10_000)), LimitTooHigh),
    ],
)
async def test_what_cannot_be_made_is_refused(world: World, wanted: NewEnvironment, refusal: type[Exception]) -> None:
    """A refusal leaves no row and no place taken."""
    with pytest.raises(refusal):
        await world.service.create(world.user, wanted)
    assert world.service.live_count == 0
    assert not await world.store.environments.list_live()


async def test_viewers_make_nothing(world: World) -> None:
    """The role viewer only reads."""
    with pytest.raises(Forbidden):
        await world.create(make_principal(Role.VIEWER))


async def test_a_sandbox_that_cannot_be_made_fails_the_environment(world: World) -> None:
    """The reason is kept, and the place is free again."""
    world.runtime.create_failure = SandboxFailed("no memory left")
    row = await world.create()
    failed = await world.until_status(row.environment_id, EnvironmentStatus.FAILED)
    assert failed.status_reason is not None
    assert "no memory left" in failed.status_reason
    await world.until(lambda: world.service.live_count == 0)
    with pytest.raises(EnvironmentNotRunning) as caught:
        await world.service.execute(world.user, row.environment_id, "pass", None)
    assert caught.value.details["status"] == "failed"


async def test_executing_early_waits_for_the_sandbox(world: World) -> None:
    """An execution that comes while the sandbox is made runs in it as soon as it is there."""
    world.runtime.gate = asyncio.Event()
    row = await world.create()
    early = asyncio.ensure_future(world.service.execute(world.user, row.environment_id, "print('early')", None))
    await world.until(lambda: world.runtime.making == 1)
    assert not early.done()
    world.runtime.gate.set()
    assert (await early).stdout == "early\n"


async def test_executing_early_is_refused_when_the_sandbox_fails(world: World) -> None:
    """Who waits for a sandbox that never comes is told why."""
    world.runtime.gate = asyncio.Event()
    world.runtime.create_failure = SandboxFailed("no memory left")
    row = await world.create()
    early = asyncio.ensure_future(world.service.execute(world.user, row.environment_id, "pass", None))
    await world.until(lambda: world.runtime.making == 1)
    world.runtime.gate.set()
    with pytest.raises(EnvironmentNotRunning, match="no memory left"):
        await early


async def test_sandboxes_are_made_a_few_at_a_time(world: World) -> None:
    """A crowd of wishes does not reach the runtime all at once, and all come true."""
    world.runtime.gate = asyncio.Event()
    rows = await asyncio.gather(*(world.create() for _ in range(20)))
    await world.until(lambda: world.runtime.making == 8)
    world.runtime.gate.set()
    await asyncio.gather(*(world.until_status(row.environment_id, EnvironmentStatus.RUNNING) for row in rows))
    assert world.runtime.most_making == 8


async def test_a_crowd_of_one_class_keeps_none_of_another_waiting(store: SqlStore) -> None:
    """Those that take long to make are in the way of their own kind only."""
    world = World(store, runtime=FakeRuntime(others=[Isolation.GVISOR]))
    await world.service.start()
    world.runtime.gate = asyncio.Event()
    wishes = [NewEnvironment("e", "python-3.9", isolation=Isolation.GVISOR)] * 12 + [NewEnvironment("e", "python-3.9")]
    rows = [await world.service.create(world.user, wish) for wish in wishes]
    await world.until(lambda: world.runtime.making == 9)
    world.runtime.gate.set()
    await asyncio.gather(*(world.until_status(row.environment_id, EnvironmentStatus.RUNNING) for row in rows))
    await world.service.stop()


async def test_a_crowd_of_one_user_keeps_no_other_waiting(world: World) -> None:
    """However many one asks for, and however long they hang: another one's is made."""
    world.runtime.gate = asyncio.Event()
    crowd = [await world.create() for _each in range(50)]
    await world.until(lambda: world.runtime.making == 8)
    other = make_principal()
    row = await world.create(other)
    await world.until(lambda: world.runtime.making == 9)
    assert world.runtime.gate.is_set() is False
    world.runtime.gate.set()
    for each in (row, *crowd):
        await world.until_status(each.environment_id, EnvironmentStatus.RUNNING)
    made = [spec.environment_id for spec in world.runtime.made]
    assert made.index(row.environment_id) == 8


async def test_users_whose_wishes_wait_take_turns(world: World) -> None:
    """Who asks for two waits for two of each other user's at most."""
    world.runtime.gate = asyncio.Event()
    crowds = [[await world.create(user) for _each in range(20)] for user in (make_principal(), make_principal())]
    few = make_principal()
    rows = [await world.create(few) for _each in range(2)]
    await world.until(lambda: world.runtime.making == 10)
    world.runtime.gate.set()
    for each in (*rows, *crowds[0], *crowds[1]):
        await world.until_status(each.environment_id, EnvironmentStatus.RUNNING)
    made = [spec.environment_id for spec in world.runtime.made]
    # Ten were asked for already.
    assert max(made.index(row.environment_id) for row in rows) <= 10 + 6


async def test_an_environment_ends_when_its_lifetime_is_over(world: World) -> None:
    """The service ends it by its own clock, and its sandbox with it."""
    environment_id = await world.create_running(timeout_s=60)
    world.clock.advance(59)
    world.service.end_expired()
    assert environment_id in world.runtime.sandboxes
    world.clock.advance(1)
    world.service.end_expired()
    row = await world.until_status(environment_id, EnvironmentStatus.EXPIRED)
    assert environment_id not in world.runtime.sandboxes
    assert row.status_reason == "its lifetime of 60 s is over"


async def test_the_runtime_may_notice_the_end_of_a_lifetime_first(world: World) -> None:
    """Whoever is first, the environment is expired."""
    environment_id = await world.create_running()
    world.runtime.kill(environment_id, "expired")
    assert (await world.until_status(environment_id, EnvironmentStatus.EXPIRED)).ended_at == world.clock.now()


async def test_a_new_timeout_counts_from_now(world: World) -> None:
    """PATCH prolongs the sandbox, the row and the service's own deadline."""
    environment_id = await world.create_running(timeout_s=60)
    world.clock.advance(50)
    row = await world.service.update(
        world.user, environment_id, EnvironmentChange(timeout_s=100, name="renamed", metadata={"a": "b"})
    )
    assert (row.expires_at - world.clock.now()).total_seconds() == 100
    world.clock.advance(99)
    world.service.end_expired()
    assert await world.until_status(environment_id, EnvironmentStatus.RUNNING) == row
    assert (row.name, row.metadata, row.status) == ("renamed", {"a": "b"}, EnvironmentStatus.RUNNING)
    world.clock.advance(1)
    world.service.end_expired()
    await world.until_status(environment_id, EnvironmentStatus.EXPIRED)


async def test_changes_at_the_same_time_lose_nothing(world: World) -> None:
    """Each change starts from what the one before has written."""
    environment_id = await world.create_running()
    await asyncio.gather(
        world.service.update(world.user, environment_id, EnvironmentChange(name="new")),
        world.service.update(world.user, environment_id, EnvironmentChange(metadata={"k": "v"})),
        world.service.update(world.user, environment_id, EnvironmentChange(timeout_s=5)),
    )
    row = await world.store.environments.find(environment_id)
    assert row is not None
    assert (row.name, row.metadata, row.timeout_s) == ("new", {"k": "v"}, 5)


async def test_what_has_ended_cannot_be_changed(world: World) -> None:
    """PATCH of an ended environment is a conflict."""
    environment_id = await world.create_running()
    world.runtime.kill(environment_id, "it broke")
    await world.until_status(environment_id, EnvironmentStatus.FAILED)
    with pytest.raises(EnvironmentNotRunning, match="it broke"):
        await world.service.update(world.user, environment_id, EnvironmentChange(name="new"))


async def test_quotas_hold_for_each_user_and_for_the_server(store: SqlStore) -> None:
    """Live environments are counted, and what has ended makes room."""
    world = World(store)
    world.settings = world.settings.model_copy(update={"max_environments": 3, "max_environments_per_user": 2})
    world.service = world.make_service()
    await world.service.start()
    first = await world.create_running()
    await world.create_running()
    with pytest.raises(TooManyEnvironments) as caught:
        await world.create()
    assert caught.value.details == {"limit": 2, "used": 2, "scope": "user"}
    await world.create_running(make_principal())
    with pytest.raises(TooManyEnvironments) as caught:
        await world.create(make_principal())
    assert caught.value.details == {"limit": 3, "used": 3, "scope": "server"}
    await world.service.delete(world.user, first)
    await world.create()
    assert world.service.live_count == 3
    await world.service.stop()


async def test_lists_hold_the_callers_live_environments(world: World) -> None:
    """Others' are not in it, ended ones only when they are asked for."""
    mine = await world.create_running()
    await world.create_running(make_principal())
    broken = await world.create_running()
    world.runtime.kill(broken, "it broke")
    await world.until_status(broken, EnvironmentStatus.FAILED)
    live = await world.service.list(world.user, PageRequest())
    assert [row.environment_id for row in live.items] == [mine]
    failed = await world.service.list(world.user, PageRequest(), statuses=frozenset({EnvironmentStatus.FAILED}))
    assert [row.environment_id for row in failed.items] == [broken]
    assert len((await world.service.list(make_principal(Role.ADMIN), PageRequest())).items) == 2


async def test_unknown_ids_are_not_found(world: World) -> None:
    """Every use case of one environment says so."""
    unknown = make_environment_id()
    for attempt in (
        world.service.get(world.user, unknown),
        world.service.update(world.user, unknown, EnvironmentChange(name="n")),
        world.service.delete(world.user, unknown),
        world.service.execute(world.user, unknown, "pass", None),
    ):
        with pytest.raises(EnvironmentNotFound):
            await attempt


@pytest.mark.parametrize(
    ("held", "refusal"),
    [
        (EnvironmentsHeld(3, 0), TooManyEnvironments),
        (EnvironmentsHeld(0, 2**40), MemoryQuotaExceeded),
    ],
)
async def test_what_other_servers_have_made_meanwhile_is_found_when_the_row_is_written(
    world: World, monkeypatch: pytest.MonkeyPatch, held: EnvironmentsHeld, refusal: type[Exception]
) -> None:
    """Nothing of it stays, and there never was such an environment."""

    async def find_more(_row: Environment, _answer: object, _allowed: object) -> EnvironmentsHeld:
        return held

    async def allow(_user_id: UserId) -> UserQuota:
        return UserQuota(environments=3, memory_bytes=2**40)

    monkeypatch.setattr(world.service.quotas, "allowed", allow)
    monkeypatch.setattr(world.store.environments, "insert", find_more)
    with pytest.raises(refusal):
        await world.create()
    await world.until(lambda: world.service.live_count == 0)
    assert not world.runtime.sandboxes
    monkeypatch.undo()
    assert await world.create_running()


async def test_a_row_that_cannot_be_written_leaves_no_sandbox(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sandbox is made while the row is written; whoever asked is told, and nothing of it stays."""

    async def refuse(row: Environment, answer: object, allowed: object) -> None:
        raise StoreUnavailable(f"{row.environment_id} cannot be written")

    monkeypatch.setattr(world.store.environments, "insert", refuse)
    with pytest.raises(StoreUnavailable):
        await world.create()
    await world.until(lambda: world.service.live_count == 0)
    assert not world.runtime.sandboxes
    monkeypatch.undo()
    assert await world.create_running()
