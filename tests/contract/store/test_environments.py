"""Rows of environments."""

import asyncio
import itertools
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest

from sandgate.core.environment import Environment
from sandgate.core.errors import StoreUnavailable
from sandgate.core.ids import EnvironmentId, UserId
from sandgate.core.limits import Limits
from sandgate.core.page import PageRequest
from sandgate.core.quota import EnvironmentsHeld, UserQuota
from sandgate.core.states import (
    ENVIRONMENT_TRANSITIONS,
    LIVE_ENVIRONMENT_STATUSES,
    EnvironmentStatus,
    Isolation,
    OnTimeout,
)
from sandgate.store import schema
from sandgate.store.base import EnvironmentFilter, EnvironmentStore
from sandgate.store.database import Database
from sandgate.store.environments import SqlEnvironmentStore
from sandgate.store.environments_held import turn_of
from sandgate.store.sql_store import SqlStore
from sandgate.store.turns import key_of
from tests.contract.store.records import NOW, OTHER, OWNER, STRANGE_TEXT, an_environment

LATER = NOW + timedelta(seconds=7)
ALL = frozenset(EnvironmentStatus)


async def _insert(store: SqlStore, *environments: Environment) -> None:
    await asyncio.gather(*(store.environments.insert(environment) for environment in environments))


async def test_a_row_comes_back_as_it_went_in(store: SqlStore) -> None:
    """Every field is kept, whatever is in it."""
    environment = an_environment(
        name=STRANGE_TEXT,
        template=STRANGE_TEXT,
        isolation=Isolation.GVISOR,
        status=EnvironmentStatus.FAILED,
        status_reason=STRANGE_TEXT,
        timeout_s=86_400,
        limits=Limits(memory_bytes=2**40, cpu_millis=1),
        metadata={STRANGE_TEXT: STRANGE_TEXT, "": ""},
        ended_at=LATER,
        deleted_at=LATER + timedelta(microseconds=1),
    )
    await store.environments.insert(environment)
    assert await store.environments.find(environment.environment_id) == environment


async def test_nobody_gets_more_than_is_allowed(store: SqlStore) -> None:
    """Of environments or their memory, on whichever server; what has ended, or is of others, is not counted."""
    size = an_environment().limits.machine_bytes
    ended = an_environment(status=EnvironmentStatus.FAILED)
    paused = an_environment(status=EnvironmentStatus.PAUSED, server_id="two")
    await _insert(store, ended, paused, an_environment(owner_id=OTHER), an_environment(server_id="one"))
    held = EnvironmentsHeld(2, 2 * size)
    small = an_environment(limits=Limits(memory_bytes=1, disk_bytes=0))
    for environment, allowed, refused in (
        (an_environment(), UserQuota(environments=2), replace(held, memory_bytes=0)),
        (an_environment(), UserQuota(environments=3, memory_bytes=3 * size - 1), held),
        (small, UserQuota(environments=3, memory_bytes=3 * size - 1), None),
        (an_environment(), UserQuota(environments=4), None),
        (an_environment(), UserQuota(memory_bytes=4 * size + 1), None),
        (an_environment(), UserQuota(), None),
    ):
        assert await store.environments.insert(environment, allowed=allowed) == refused
        found = await store.environments.find(environment.environment_id)
        assert found == (environment if refused is None else None)
    assert await store.environments.held_elsewhere(OWNER, "two") == EnvironmentsHeld(1, size)
    assert await store.environments.held_elsewhere(OWNER, "one") == EnvironmentsHeld(1, size)
    assert await store.environments.held_elsewhere(OTHER, "one") == EnvironmentsHeld()


async def _insert_in_turn(
    environments: EnvironmentStore, row: Environment, allowed: UserQuota
) -> EnvironmentsHeld | None:
    """Again where another server did not come to an end with its turn in time, as whoever is told so does."""
    async with asyncio.timeout(60):
        while True:
            with suppress(StoreUnavailable):
                return await environments.insert(row, allowed=allowed)


async def test_servers_that_ask_at_once_share_what_is_allowed(store: SqlStore, database: Database) -> None:
    """However much of it each of them sees by itself, and in whatever order users come."""
    allowed, other = UserQuota(environments=5), SqlEnvironmentStore(database)
    servers: list[tuple[EnvironmentStore, Sequence[UserId]]] = [(store.environments, (OWNER, OTHER))]
    servers.append((other, (OTHER, OWNER)))
    asked = [
        _insert_in_turn(server, an_environment(owner_id=owner, server_id=str(number)), allowed)
        for _ in range(10)
        for number, (server, owners) in enumerate(servers)
        for owner in owners
    ]
    answers = await asyncio.gather(*asked)
    assert answers.count(None) == 10
    for owner in (OWNER, OTHER):
        assert await store.environments.count_live(owner) == 5


@pytest.mark.needs_postgresql
async def test_a_turn_that_never_comes_holds_up_nobody_for_long(clean_postgres_url: str) -> None:
    """A server that was stopped in the middle of its own: others' users are served, and its own when it is over."""
    store, allowed = SqlStore(clean_postgres_url), UserQuota(environments=5)
    await store.open()
    with psycopg.connect(clean_postgres_url, autocommit=True) as stopped:
        stopped.execute("SELECT pg_advisory_lock(%s)", (key_of(turn_of(OWNER)),))
        started = time.monotonic()
        wanted = [an_environment(), an_environment(owner_id=OTHER), an_environment()]
        asked = (store.environments.insert(each, allowed=allowed) for each in wanted)
        first, other, second = await asyncio.gather(*asked, return_exceptions=True)
        assert (type(first), other, type(second)) == (StoreUnavailable, None, StoreUnavailable)
        # Half a second; the usual patience with a lock, thrice, would be fifteen.
        assert time.monotonic() - started < 10
        # Its end comes a while after that of the connection.
        stopped.execute("SELECT pg_advisory_unlock_all()")
    assert await store.environments.insert(wanted[0], allowed=allowed) is None
    assert await store.environments.count_live(OWNER) == 1
    await store.close()


async def test_an_unknown_id_finds_nothing(store: SqlStore) -> None:
    """Also when no such id could be."""
    for environment_id in ("env-unknown", "", "\0", "\ud800", STRANGE_TEXT):
        assert await store.environments.find(EnvironmentId(environment_id)) is None


@pytest.mark.parametrize("target", EnvironmentStatus)
async def test_only_transitions_of_the_table_are_written(store: SqlStore, target: EnvironmentStatus) -> None:
    """A transition happens exactly when the table of states has it, even if any status is expected."""
    environments = [an_environment(status=source) for source in EnvironmentStatus]
    await _insert(store, *environments)
    for before in environments:
        allowed = target in ENVIRONMENT_TRANSITIONS[before.status]
        done = await store.environments.transition(
            before.environment_id, target, expected=ALL, at=LATER, reason="because"
        )
        ended_at = None if target in LIVE_ENVIRONMENT_STATUSES else LATER
        changed = replace(before, status=target, status_reason="because", ended_at=ended_at)
        assert done == allowed
        assert await store.environments.find(before.environment_id) == (changed if allowed else before)


async def test_a_transition_from_an_unexpected_status_writes_nothing(store: SqlStore) -> None:
    """Compare and set."""
    environment = an_environment(status=EnvironmentStatus.PAUSED)
    await store.environments.insert(environment)
    for expected in ([], [EnvironmentStatus.RUNNING], {EnvironmentStatus.CREATING, EnvironmentStatus.EXPIRED}):
        assert not await store.environments.transition(
            environment.environment_id, EnvironmentStatus.FAILED, expected=expected, at=LATER
        )
    assert await store.environments.find(environment.environment_id) == environment


async def test_a_transition_of_an_unknown_environment_is_false(store: SqlStore) -> None:
    """There is nothing to compare."""
    unknown = EnvironmentId("env-unknown")
    assert not await store.environments.transition(unknown, EnvironmentStatus.RUNNING, expected=ALL, at=LATER)


async def test_one_of_many_transitions_at_once_wins(store: SqlStore) -> None:
    """Concurrent compare-and-sets from one status: exactly one is told that it did it, and its values are kept."""
    environment = an_environment(status=EnvironmentStatus.RUNNING)
    await store.environments.insert(environment)
    results = await asyncio.gather(
        *(
            store.environments.transition(
                environment.environment_id,
                EnvironmentStatus.FAILED,
                expected=[EnvironmentStatus.RUNNING],
                at=LATER,
                reason=str(number),
            )
            for number in range(20)
        )
    )
    assert results.count(True) == 1
    found = await store.environments.find(environment.environment_id)
    assert found is not None
    assert found.status_reason == str(results.index(True))


async def test_deleting_what_has_ended_keeps_when_and_why_it_ended(store: SqlStore) -> None:
    """``ended_at`` is the first end, ``deleted_at`` the deletion."""
    for status in (EnvironmentStatus.EXPIRED, EnvironmentStatus.FAILED):
        environment = an_environment(status=status, status_reason="why", ended_at=NOW)
        await store.environments.insert(environment)
        assert await _delete(store, environment, LATER)
        found = await store.environments.find(environment.environment_id)
        assert found == replace(environment, status=EnvironmentStatus.TERMINATED, deleted_at=LATER)


async def test_one_of_many_deletions_wins(store: SqlStore) -> None:
    """What was deleted is deleted once, also what had been terminated before."""
    environment = an_environment(status=EnvironmentStatus.TERMINATED, ended_at=NOW)
    await store.environments.insert(environment)
    instants = [LATER + timedelta(seconds=number) for number in range(5)]
    results = await asyncio.gather(*(_delete(store, environment, at) for at in instants))
    assert results.count(True) == 1
    found = await store.environments.find(environment.environment_id)
    assert found == replace(environment, deleted_at=instants[results.index(True)])


async def _delete(store: SqlStore, environment: Environment, at: datetime) -> bool:
    return await store.environments.transition(
        environment.environment_id, EnvironmentStatus.TERMINATED, expected=ALL, at=at, deleted=True
    )


async def test_a_live_environment_cannot_be_deleted(store: SqlStore) -> None:
    """It would be in no list, and go on running."""
    with pytest.raises(ValueError, match="cannot be deleted"):
        await store.environments.transition(
            EnvironmentId("env-x"), EnvironmentStatus.RUNNING, expected=ALL, at=NOW, deleted=True
        )


@pytest.mark.parametrize("status", EnvironmentStatus)
async def test_details_change_while_it_lives(store: SqlStore, status: EnvironmentStatus) -> None:
    """A PATCH that comes too late changes nothing and is told so."""
    environment = an_environment(status=status)
    await store.environments.insert(environment)
    life: dict[str, Any] = {"timeout_s": 5, "expires_at": LATER, "on_timeout": OnTimeout.PAUSE, "idle_timeout_s": 7}
    changed = replace(environment, name="new", metadata={"a": "b"}, **life)
    done = await store.environments.update_details(changed)
    assert done == environment.is_live
    assert await store.environments.find(environment.environment_id) == (changed if done else environment)


async def test_live_environments_are_listed_and_counted(store: SqlStore) -> None:
    """All for adoption; counts for all and for one owner."""
    environments = [an_environment(status=status, owner_id=owner) for status in ALL for owner in (OWNER, OTHER)]
    await _insert(store, *environments)
    live = [environment for environment in environments if environment.is_live]
    assert list(await store.environments.list_live()) == sorted(live, key=lambda item: item.environment_id)
    assert await store.environments.count_live() == len(live) == 6
    assert await store.environments.count_live(OWNER) == 3


async def test_a_list_holds_what_every_part_of_its_filter_allows(store: SqlStore) -> None:
    """The filters work alone and together, newest first, without what was deleted."""
    kinds = itertools.product(EnvironmentStatus, (OWNER, OTHER), ("a", "b"), ("t1", "t2"), (None, NOW))
    environments = [
        an_environment(status=status, owner_id=owner, name=name, template=template, deleted_at=deleted)
        for status, owner, name, template, deleted in kinds
    ]
    await _insert(store, *environments)
    running = frozenset({EnvironmentStatus.RUNNING})
    some = [None, frozenset[EnvironmentStatus](), running, running | {EnvironmentStatus.CREATING}, ALL]
    for owner, statuses, template, name in itertools.product((None, OWNER), some, (None, "t1"), (None, "a")):
        wanted = EnvironmentFilter(owner, statuses, template, name)
        expected = [item.environment_id for item in reversed(environments) if _is_wanted(item, wanted)]
        page = await store.environments.list(wanted, PageRequest(limit=200))
        assert [item.environment_id for item in page.items] == expected, wanted


def _is_wanted(environment: Environment, wanted: EnvironmentFilter) -> bool:
    return (
        environment.deleted_at is None
        and (wanted.statuses is None or environment.status in wanted.statuses)
        and wanted.owner_id in (None, environment.owner_id)
        and wanted.name in (None, environment.name)
        and wanted.template in (None, environment.template)
    )


async def test_names_are_compared_exactly(store: SqlStore) -> None:
    """Neither case nor the way a letter is composed makes two names one."""
    names = ["Data", "data", "e\u0301", "\u00e9", "data ", "data\0", "data\\u0000"]
    await _insert(store, *(an_environment(name=name) for name in names))
    for name in names:
        page = await store.environments.list(EnvironmentFilter(name=name), PageRequest())
        assert [item.name for item in page.items] == [name]


async def test_a_limit_that_is_no_longer_known_is_left_out(store: SqlStore, database: Database) -> None:
    """A row of another version of the service can still be read."""
    environment = an_environment()
    await store.environments.insert(environment)
    limits = schema.environments.update().values(limits={"memory_bytes": 64, "retired": 1})
    await database.write(lambda connection: connection.execute(limits).rowcount)
    found = await store.environments.find(environment.environment_id)
    assert found is not None
    assert found.limits == Limits(memory_bytes=64)


async def test_what_runs_is_noted_unless_it_has_ended(store: SqlStore) -> None:
    """Of many at once, those that are being made run from then on."""
    environments = [an_environment(status=status) for status in EnvironmentStatus]
    await _insert(store, *environments)
    await store.environments.note_running([EnvironmentId("env-unknown"), *(row.environment_id for row in environments)])
    for before in environments:
        is_made = before.status is EnvironmentStatus.CREATING
        after = replace(before, status=EnvironmentStatus.RUNNING) if is_made else before
        assert await store.environments.find(before.environment_id) == after


async def test_lists_are_narrowed_by_labels(store: SqlStore) -> None:
    """By whole pairs only, case and all, also where one looks like a part of another."""
    labels = [
        {"team": "blue", "a.b/c": "x"}, {"team": "Blue"}, {"team": "blu"}, {"eam": "blue"}, {"x": 'y","team":"blue'},
        {"x": STRANGE_TEXT, "team": "blue"}, {},
    ]  # fmt: skip
    rows = [an_environment(metadata=each) for each in labels]
    await _insert(store, *rows)

    async def found(*pairs: tuple[str, str]) -> set[EnvironmentId]:
        page = await store.environments.list(EnvironmentFilter(metadata=pairs, statuses=ALL), PageRequest())
        return {row.environment_id for row in page.items}

    assert await found(("team", "blue")) == {rows[0].environment_id, rows[5].environment_id}
    assert await found(("team", "blue"), ("a.b/c", "x")) == {rows[0].environment_id}
    assert await found(("x", STRANGE_TEXT)) == {rows[5].environment_id}
    assert await found(("team", "%")) == set()
    assert len(await found()) == len(rows)
