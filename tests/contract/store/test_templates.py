"""Rows of templates that users have had built."""

import asyncio
from dataclasses import replace

import pytest

from sandgate.core.built import BuiltTemplate, LayerSize, Root
from sandgate.core.errors import UserNotFound
from sandgate.core.ids import UserId, make_template_id, make_user_id
from sandgate.core.language import Language
from sandgate.core.limits import AskedLimits
from sandgate.core.network import NetworkRules
from sandgate.core.recipe import Recipe, RecipeFile
from sandgate.core.run import RunStatus
from sandgate.core.states import TemplateStatus
from sandgate.store.base import RunChange, TemplateRefusal
from sandgate.store.database import Database
from sandgate.store.sql_store import SqlStore
from sandgate.store.templates import SqlTemplateStore
from tests.contract.store.records import NOW, a_run, a_user, a_workflow

RECIPE = Recipe(
    "python-3.9", ("six",), (RecipeFile("a/b", b"\0\xff", True),), {"A": "\u00e9"}, ("true",), ("six",),
    AskedLimits(memory_bytes=5), NetworkRules.parse(["a.example:1"]), "https://index.example/simple",
    (Language("perl", (("perl", "{file}"),), ".pl"),), "true",
)  # fmt: skip


def _row(owner_id: UserId, name: str = "data", server_id: str = "here") -> BuiltTemplate:
    status = TemplateStatus.BUILDING
    return BuiltTemplate(
        make_template_id(), owner_id, name, 0, status, "d" * 64, "/usr/bin/python3", False, server_id, NOW, RECIPE
    )


async def _owner(store: SqlStore) -> UserId:
    user = a_user()
    await store.users.insert(user)
    return user.user_id


async def _insert(store: SqlStore, row: BuiltTemplate, most: int = 9) -> BuiltTemplate:
    kept = await store.templates.insert(row, most)
    assert isinstance(kept, BuiltTemplate)
    return kept


async def test_versions_are_numbered_for_each_name_and_never_twice(store: SqlStore) -> None:
    """Also when several come at once, and when the last one was deleted."""
    owner = await _owner(store)
    rows = await asyncio.gather(*(_insert(store, _row(owner)) for _ in range(3)))
    assert sorted(row.version for row in rows) == [1, 2, 3]
    other = await _insert(store, _row(owner, "other"))
    assert other.version == 1
    newest = max(rows, key=lambda row: row.version)
    assert await store.templates.delete(newest.template_id)
    assert not await store.templates.delete(newest.template_id)
    again = await _insert(store, _row(owner))
    assert again.version == 4
    listed = await store.templates.list("here")
    left = [row for row in rows if row is not newest]
    assert list(listed) == sorted([*left, other, again], key=lambda row: row.template_id)
    assert await store.templates.list("there") == []


async def test_ids_are_those_of_a_server_or_of_all(store: SqlStore) -> None:
    """Whoever they belong to; who has gone has none."""
    owner, other = await _owner(store), a_user(name="other")
    await store.users.insert(other)
    here, there = _row(owner), _row(other.user_id, server_id="there")
    for row in (here, there):
        await _insert(store, row)
    assert await store.templates.list_ids("here") == {here.template_id}
    assert await store.templates.list_ids("nowhere") == set()
    assert await store.templates.list_ids(None) == {here.template_id, there.template_id}
    assert await store.users.delete(owner)
    assert await store.templates.list_ids(None) == {there.template_id}


async def test_there_are_so_many_of_a_user_and_none_of_nobody(store: SqlStore) -> None:
    """Whatever their names are; others have their own."""
    owner = await _owner(store)
    await _insert(store, _row(owner), 2)
    await _insert(store, _row(owner, "other"), 2)
    assert await store.templates.insert(_row(owner, "third"), 2) is TemplateRefusal.TOO_MANY
    assert len(await store.templates.list("here")) == 2
    with pytest.raises(UserNotFound):
        await store.templates.insert(_row(make_user_id()), 2)


async def test_so_many_of_a_user_are_built_at_once_on_all_servers(store: SqlStore, database: Database) -> None:
    """Whichever is asked, however many at the same time; those of a server that is gone count no more."""
    owner, other = await _owner(store), a_user(name="other")
    await store.users.insert(other)
    for name in ("here", "there"):
        await store.servers.join(name, NOW, 60)
    servers = {"here": store.templates, "there": SqlTemplateStore(database)}
    asked = [
        templates.insert(_row(owner, f"{name}-{number}", name), 99, 3)
        for number in range(4)
        for name, templates in servers.items()
    ]
    kept = await asyncio.gather(*asked)
    rows = [row for row in kept if isinstance(row, BuiltTemplate)]
    assert len(rows) == 3
    assert kept.count(TemplateRefusal.TOO_MANY_BUILDS) == 5
    assert isinstance(await store.templates.insert(_row(other.user_id), 99, 3), BuiltTemplate)
    # One that has ended has a place for another.
    building = [TemplateStatus.BUILDING]
    assert await store.templates.finish(rows[0].template_id, TemplateStatus.FAILED, expected=building, at=NOW)
    assert isinstance(await store.templates.insert(_row(owner, server_id="there"), 99, 3), BuiltTemplate)
    assert await store.templates.insert(_row(owner), 99, 3) is TemplateRefusal.TOO_MANY_BUILDS
    await store.servers.leave("there")
    assert isinstance(await store.templates.insert(_row(owner), 99, 3), BuiltTemplate)


async def test_a_build_ends_once(store: SqlStore) -> None:
    """Who comes second changes nothing."""
    row = await _insert(store, _row(await _owner(store)))
    building, ready, failed = TemplateStatus.BUILDING, TemplateStatus.READY, TemplateStatus.FAILED
    finish, size = store.templates.finish, LayerSize(7, 2**40)
    root = Root("root-1", "tar sha256:00", "/usr/bin/python3", {"PATH": "/\u00e9"}, size, "3.9.1", "/app", ("bash",))
    root = replace(root, apt_lock=("git:amd64=1:2-3",))
    assert await finish(row.template_id, ready, expected=[building], at=NOW, size=size, lock="six==1\n", root=root)
    assert not await finish(row.template_id, failed, expected=[building], at=NOW, reason="late")
    done = replace(row, status=ready, finished_at=NOW, files=7, size_bytes=2**40, lock="six==1\n", root=root)
    assert await store.templates.list("here") == [done]
    assert await finish(row.template_id, failed, expected=[building, ready], at=NOW, reason="gone")
    (found,) = await store.templates.list("here")
    assert (found.status, found.status_reason, found.size_bytes, found.lock) == (failed, "gone", None, None)
    assert found.root is None
    recipe = replace(RECIPE, tar="00", apt=("git",))
    upon = await _insert(store, replace(_row(row.owner_id), root=root, recipe=recipe))
    assert upon in await store.templates.list("here")


async def test_what_a_user_had_built_goes_with_the_user(store: SqlStore) -> None:
    """Nothing refers to nobody."""
    owner = await _owner(store)
    await _insert(store, _row(owner))
    assert await store.users.delete(owner)
    assert await store.templates.list("here") == []


async def test_live_runs_of_a_version_are_counted(store: SqlStore) -> None:
    """Whoever works on them, until they are over; versions and names of which it is a part are others."""
    owner, other = a_user(), a_user(name="other")
    workflow = a_workflow(owner_id=owner.user_id)
    theirs = a_workflow(owner_id=other.user_id)
    for user in (owner, other):
        await store.users.insert(user)
    for each in (workflow, theirs):
        await store.workflows.insert(each)
    first = a_run(workflow.workflow_id, owner_id=owner.user_id, templates={"data": "data@1", "x": "x@1"})
    all_runs = (
        first,
        a_run(workflow.workflow_id, owner_id=owner.user_id, templates={"data": "data@11"}),
        a_run(workflow.workflow_id, owner_id=owner.user_id, templates={"Data": "Data@1"}),
        a_run(workflow.workflow_id, owner_id=owner.user_id),
        a_run(theirs.workflow_id, owner_id=other.user_id, templates={"data": "data@1"}, lease_owner="two"),
    )
    for run in all_runs:
        assert await store.runs.insert(RunChange(run))
    count = store.templates.count_runs
    assert [await count("data@1", each) for each in (owner.user_id, other.user_id, None)] == [1, 1, 2]
    assert [await count(each, owner.user_id) for each in ("x@1", "data@11", "data", "data@2")] == [1, 1, 0, 0]
    ended = replace(first, status=RunStatus.SUCCEEDED, finished_at=NOW)
    assert await store.runs.apply(RunChange(ended))
    assert [await count("data@1", each) for each in (owner.user_id, None)] == [0, 1]
