"""What every database promises about secrets and artifacts."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from sandgate.core.artifact import Artifact, make_artifact_id
from sandgate.core.errors import UserNotFound
from sandgate.core.ids import UserId, make_run_id
from sandgate.core.page import PageRequest
from sandgate.core.run import Run
from sandgate.core.secret import Secret
from sandgate.store.base import Kept, Pack, RunChange
from sandgate.store.sql_store import SqlStore
from tests.contract.store.records import NOW, STRANGE_TEXT, a_run, a_user, a_workflow


async def _owner(store: SqlStore) -> UserId:
    user = a_user()
    await store.users.insert(user)
    return user.user_id


def a_secret(owner_id: UserId, name: str, **changes: Any) -> Secret:
    """A sealed secret."""
    return replace(Secret(owner_id, name, NOW, NOW, "sealing-1", bytes(range(256))), **changes)


async def test_a_secret_is_put_found_listed_and_deleted(store: SqlStore) -> None:
    """Another value keeps when it was made; a list has no values; others have their own."""
    owner, other = await _owner(store), await _owner(store)
    first = a_secret(owner, "B")
    assert await store.secrets.put(first, 10) == first
    later = NOW + timedelta(hours=1)
    again = a_secret(owner, "B", created_at=later, updated_at=later, key_id="sealing-2", sealed=b"other")
    assert await store.secrets.put(again, 1) == replace(again, created_at=NOW)
    await store.secrets.put(a_secret(owner, "A"), 10)
    await store.secrets.put(a_secret(other, "C"), 10)
    assert [(row.name, row.sealed) for row in await store.secrets.list(owner)] == [("A", b""), ("B", b"")]
    assert list(await store.secrets.find(owner, {"B", "C"})) == [replace(again, created_at=NOW)]
    assert await store.secrets.find(owner, []) == []
    assert await store.secrets.delete(owner, "C") is False
    assert await store.secrets.delete(owner, "B") is True
    assert [row.name for row in await store.secrets.list(owner)] == ["A"]


async def test_a_user_has_so_many_secrets(store: SqlStore) -> None:
    """Also when they are made at the same time."""
    owner = await _owner(store)
    kept = await asyncio.gather(*(store.secrets.put(a_secret(owner, f"A{number}"), 5) for number in range(20)))
    assert sum(row is not None for row in kept) == len(await store.secrets.list(owner)) == 5


async def test_secrets_go_with_their_user(store: SqlStore) -> None:
    """And cannot be made for one that is gone."""
    owner = await _owner(store)
    await store.secrets.put(a_secret(owner, "A"), 5)
    await store.users.delete(owner)
    assert await store.secrets.list(owner) == []
    with pytest.raises(UserNotFound):
        await store.secrets.put(a_secret(owner, "A"), 5)


def an_artifact(run: Run, **changes: Any) -> Artifact:
    """A file that a step left."""
    made = Artifact(
        make_artifact_id(), run.run_id, "a", None, 1, STRANGE_TEXT, 2**40, bytes(range(32)), NOW, "pack-1", 2**41
    )
    return replace(made, **changes)


async def _run(store: SqlStore) -> Run:
    workflow = a_workflow()
    await store.workflows.insert(workflow)
    run = a_run(workflow.workflow_id)
    assert await store.runs.insert(RunChange(run))
    return run


async def test_artifacts_come_with_the_result_of_their_step(store: SqlStore) -> None:
    """In one write, which only the process that holds the run can make."""
    run, other = await _run(store), await _run(store)
    first = an_artifact(run)
    rest = [an_artifact(run, step="b", item=3, attempt=2) for _ in range(3)]
    assert await store.runs.apply(RunChange(run, artifacts=[first, *rest]))
    assert not await store.runs.apply(RunChange(replace(run, fence=0), artifacts=[an_artifact(run)]))
    assert await store.artifacts.find(run.run_id, first.artifact_id) == first
    assert await store.artifacts.find(other.run_id, first.artifact_id) is None
    page = await store.artifacts.list(run.run_id, PageRequest(limit=3))
    assert list(page.items) == rest[::-1]
    page = await store.artifacts.list(run.run_id, PageRequest(limit=3, before_id=page.next_before_id))
    assert (list(page.items), page.next_before_id) == ([first], None)
    assert list((await store.artifacts.list(run.run_id, PageRequest(), step="a")).items) == [first]
    assert await store.artifacts.measure(run.run_id) == Kept(4, 4 * 2**40)
    assert await store.artifacts.measure(other.run_id) == Kept(0, 0)


async def test_artifacts_that_are_over_are_removed(store: SqlStore) -> None:
    """By packs, oldest or not, so many at a time; or with their runs."""
    run, other = await _run(store), await _run(store)
    old = NOW - timedelta(days=8)
    rows = [an_artifact(run, pack=f"pack-{number % 3}", created_at=old) for number in range(9)]
    kept = [an_artifact(run, pack="pack-new"), an_artifact(other)]
    await store.runs.apply(RunChange(run, artifacts=[*rows, *kept]))
    packs = [*await store.artifacts.prune(NOW, 2), *await store.artifacts.prune(NOW, 2)]
    assert sorted(packs, key=lambda pack: pack.name) == [Pack(run.run_id, f"pack-{number}") for number in range(3)]
    assert await store.artifacts.prune(NOW, 2) == []
    assert await store.artifacts.measure(run.run_id) == Kept(1, 2**40)
    await store.artifacts.delete_of_runs([run.run_id])
    assert await store.artifacts.measure(run.run_id) == Kept(0, 0)
    assert await store.artifacts.measure(other.run_id) == Kept(1, 2**40)


async def test_orphans_are_runs_that_nobody_knows(store: SqlStore) -> None:
    """In the order in which they were asked for."""
    run, gone = await _run(store), [make_run_id() for _ in range(3)]
    assert list(await store.artifacts.find_orphans([*gone, run.run_id])) == gone
    assert await store.artifacts.find_orphans([]) == []
