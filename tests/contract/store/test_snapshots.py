"""Rows of snapshots."""

import asyncio
from datetime import timedelta

from sandgate.core.ids import UserId, make_snapshot_id, make_user_id
from sandgate.core.page import PageRequest
from sandgate.core.snapshot import SnapshotUse
from sandgate.store.sql_store import SqlStore
from tests.contract.store.records import NOW, STRANGE_TEXT, a_snapshot, a_user, an_environment

ROOM = SnapshotUse(100, 2**50)


async def _an_owner(store: SqlStore, name: str = "owner") -> UserId:
    user = a_user(name=name)
    await store.users.insert(user)
    return user.user_id


async def test_a_snapshot_is_found_as_it_was_kept(store: SqlStore) -> None:
    """Every field, whatever a name holds; deleted it is not found, once."""
    row = a_snapshot(owner_id=await _an_owner(store), metadata={"k": STRANGE_TEXT})
    assert await store.snapshots.insert(row, ROOM)
    assert await store.snapshots.find(row.snapshot_id) == row
    assert await store.snapshots.delete(row.snapshot_id)
    assert not await store.snapshots.delete(row.snapshot_id)
    assert await store.snapshots.find(row.snapshot_id) is None


async def test_those_of_a_template_are_counted(store: SqlStore) -> None:
    """On one server, of one owner or of all."""
    owner, other = await _an_owner(store), await _an_owner(store, "other")
    for owner_id, template, server_id in (
        (owner, "t@1", "a"), (owner, "t@1", "b"), (owner, "t@2", "a"), (other, "t@1", "a"),
    ):  # fmt: skip
        row = a_snapshot(owner_id=owner_id, template=template, server_id=server_id)
        assert await store.snapshots.insert(row, ROOM)
    assert await store.snapshots.count_of("t@1", "a", owner) == 1
    assert await store.snapshots.count_of("t@1", "a", None) == 2
    assert await store.snapshots.count_of("t@3", "a", None) == 0


async def test_lists_hold_what_is_asked_for(store: SqlStore) -> None:
    """Newest first, page by page, of one owner or of all, by name and template."""
    owner, other = await _an_owner(store), await _an_owner(store, "other")
    rows = [a_snapshot(owner_id=owner, name=f"n{number}", template=f"t{number % 2}") for number in range(3)]
    foreign = a_snapshot(owner_id=other, name="n1")
    for row in (*rows, foreign):
        assert await store.snapshots.insert(row, ROOM)
    first = await store.snapshots.list(owner, PageRequest(limit=2))
    assert first.items == (rows[2], rows[1])
    rest = await store.snapshots.list(owner, PageRequest(limit=2, before_id=first.next_before_id))
    assert (rest.items, rest.next_before_id) == ((rows[0],), None)
    assert (await store.snapshots.list(None, PageRequest(limit=1))).items == (foreign,)
    assert (await store.snapshots.list(None, PageRequest(), name="n1")).items == (foreign, rows[1])
    assert (await store.snapshots.list(owner, PageRequest(), name="n1", template="t0")).items == ()
    assert (await store.snapshots.list(owner, PageRequest(), template="t0")).items == (rows[2], rows[0])


async def test_nobody_has_more_than_is_allowed(store: SqlStore) -> None:
    """Neither in number nor in bytes, also when all come at once; and nobody who is gone has any."""
    owner, other = await _an_owner(store), await _an_owner(store, "other")
    rows = [a_snapshot(owner_id=owner, size_bytes=10) for _number in range(6)]
    inserted = await asyncio.gather(*(store.snapshots.insert(row, SnapshotUse(4, 100)) for row in rows))
    assert sum(inserted) == 4
    assert await store.snapshots.measure(owner) == SnapshotUse(4, 40)
    assert not await store.snapshots.insert(a_snapshot(owner_id=owner, size_bytes=11), SnapshotUse(9, 50))
    assert await store.snapshots.insert(a_snapshot(owner_id=owner, size_bytes=10), SnapshotUse(9, 50))
    assert await store.snapshots.measure(other) == SnapshotUse(0, 0)
    assert not await store.snapshots.insert(a_snapshot(owner_id=make_user_id()), ROOM)


async def test_what_is_old_is_removed_in_batches(store: SqlStore) -> None:
    """The oldest first; what is younger stays."""
    owner = await _an_owner(store)
    rows = [a_snapshot(owner_id=owner, created_at=NOW + timedelta(seconds=number)) for number in (2, 0, 1, 9)]
    for row in rows:
        await store.snapshots.insert(row, ROOM)
    before = NOW + timedelta(seconds=5)
    assert await store.snapshots.prune(before, 2) == 2
    assert {row.snapshot_id for row in (await store.snapshots.list(owner, PageRequest())).items} == {
        rows[0].snapshot_id,
        rows[3].snapshot_id,
    }
    assert [await store.snapshots.prune(before, 2) for _again in range(2)] == [1, 0]


async def test_orphans_are_those_without_a_row(store: SqlStore) -> None:
    """In the order in which they were asked for; a row goes with its owner."""
    owner = await _an_owner(store)
    row = a_snapshot(owner_id=owner)
    await store.snapshots.insert(row, ROOM)
    unknown = [make_snapshot_id() for _number in range(2)]
    asked = [unknown[1], row.snapshot_id, unknown[0]]
    assert list(await store.snapshots.find_orphans(asked)) == [unknown[1], unknown[0]]
    assert list(await store.snapshots.find_orphans([])) == []
    await store.users.delete(owner)
    assert list(await store.snapshots.find_orphans([row.snapshot_id])) == [row.snapshot_id]


async def test_environments_tell_what_they_began_with(store: SqlStore) -> None:
    """A snapshot, or another environment."""
    other = an_environment()
    for row in (
        other,
        an_environment(snapshot_id=make_snapshot_id()),
        an_environment(forked_from=other.environment_id),
    ):
        await store.environments.insert(row)
        assert await store.environments.find(row.environment_id) == row
