"""Rows of users, and the last admin."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from sandgate.core.errors import LastAdmin, UserNameTaken
from sandgate.core.ids import UserId
from sandgate.core.page import PageRequest
from sandgate.core.principal import Role, User
from sandgate.store.connections import Location
from sandgate.store.sql_store import SqlStore
from tests.contract.store.records import NOW, STRANGE_TEXT, a_user, an_admin, an_api_key

UNKNOWN = UserId("user-unknown")


async def _insert(store: SqlStore, *users: User) -> None:
    for user in users:
        await store.users.insert(user)


async def _all(store: SqlStore) -> Sequence[User]:
    return (await store.users.list(PageRequest(limit=200))).items


async def test_a_row_comes_back_as_it_went_in(store: SqlStore) -> None:
    """By id, by name and in a list."""
    user = a_user(name=STRANGE_TEXT, role=Role.VIEWER, disabled=True, tokens_valid_from=NOW + timedelta(microseconds=1))
    await _insert(store, user)
    assert await store.users.find(user.user_id) == user
    assert await store.users.find_by_name(user.name) == user
    assert await _all(store) == (user,)


async def test_unknown_ids_and_names_find_nothing(store: SqlStore) -> None:
    """Also when no such name could be."""
    await _insert(store, a_user(name="ada"))
    for text in ("unknown", "", "Ada", "ada\0", "\0", "\ud800", "ada "):
        assert await store.users.find(UserId(text)) is None
        assert await store.users.find_by_name(text) is None


async def test_a_name_is_taken_once(store: SqlStore) -> None:
    """The second user of a name is refused and not kept, also when both come at once."""
    users = [a_user(name="ada") for _ in range(5)]
    results = await asyncio.gather(*(store.users.insert(user) for user in users), return_exceptions=True)
    assert [type(result) for result in results].count(UserNameTaken) == 4
    winner = users[results.index(None)]
    assert await _all(store) == (winner,)
    await _insert(store, a_user(name="Ada"))


async def test_users_are_counted(store: SqlStore) -> None:
    """Disabled ones too."""
    assert await store.users.count() == 0
    await _insert(store, a_user(), a_user(disabled=True), an_admin())
    assert await store.users.count() == 3


async def test_an_update_changes_what_is_given(store: SqlStore) -> None:
    """And answers the new row."""
    user, other = a_user(), a_user()
    await _insert(store, user, other)
    later = NOW + timedelta(hours=1)
    assert await store.users.update(user.user_id) == user
    assert await store.users.update(user.user_id, password_hash="new") == replace(user, password_hash="new")
    changed = await store.users.update(user.user_id, role=Role.ADMIN, disabled=True, tokens_valid_from=later)
    assert changed == replace(user, password_hash="new", role=Role.ADMIN, disabled=True, tokens_valid_from=later)
    assert await store.users.find(user.user_id) == changed
    assert await store.users.update(user.user_id, disabled=False) == replace(changed, disabled=False)
    assert await store.users.find(other.user_id) == other


async def test_an_unknown_user_is_neither_updated_nor_deleted(store: SqlStore) -> None:
    """The callers are told."""
    await _insert(store, an_admin())
    assert await store.users.update(UNKNOWN, disabled=True) is None
    assert await store.users.update(UNKNOWN) is None
    assert not await store.users.delete(UNKNOWN)


async def test_deleting_a_user_deletes_its_keys(store: SqlStore) -> None:
    """And nobody else's."""
    user, other = a_user(), a_user()
    await _insert(store, user, other)
    key, other_key = an_api_key(user), an_api_key(other)
    await store.credentials.insert_api_key(key)
    await store.credentials.insert_api_key(other_key)
    assert await store.users.delete(user.user_id)
    assert await store.users.find(user.user_id) is None
    assert await store.credentials.find_api_key(key.api_key_id) is None
    assert await store.credentials.find_api_key(other_key.api_key_id) == other_key


async def test_the_last_enabled_admin_stays(store: SqlStore) -> None:
    """It is neither demoted nor disabled nor deleted; disabled admins and other roles do not count."""
    admin = an_admin()
    await _insert(store, admin, an_admin(disabled=True), a_user())
    with pytest.raises(LastAdmin):
        await store.users.update(admin.user_id, role=Role.USER, password_hash="new")
    with pytest.raises(LastAdmin):
        await store.users.update(admin.user_id, disabled=True)
    with pytest.raises(LastAdmin):
        await store.users.delete(admin.user_id)
    assert await store.users.find(admin.user_id) == admin


async def test_the_last_admin_may_change_otherwise(store: SqlStore) -> None:
    """A new password is no loss."""
    admin = an_admin()
    await _insert(store, admin)
    changed = await store.users.update(admin.user_id, password_hash="new", role=Role.ADMIN, disabled=False)
    assert changed == replace(admin, password_hash="new")


async def test_other_users_can_go_when_there_is_no_admin(store: SqlStore) -> None:
    """Only taking away the last one is refused."""
    user, disabled = a_user(), an_admin(disabled=True)
    await _insert(store, user, disabled)
    assert await store.users.update(user.user_id, disabled=True) == replace(user, disabled=True)
    assert await store.users.delete(user.user_id)
    assert await store.users.delete(disabled.user_id)


async def test_two_admins_cannot_take_each_other_away(store: SqlStore, location: Location) -> None:
    """Also when they try at the same time, in two processes."""
    other_store = SqlStore(location, checkpoint=False)
    await other_store.open()
    left: User | None = None
    for _ in range(10):
        first, second = an_admin(), an_admin()
        await _insert(store, first, second)
        if left is not None:
            await store.users.delete(left.user_id)
        results = await asyncio.gather(
            store.users.update(first.user_id, role=Role.USER),
            other_store.users.delete(second.user_id),
            return_exceptions=True,
        )
        assert [type(result) for result in results].count(LastAdmin) == 1
        (left,) = [user for user in await _all(store) if user.role is Role.ADMIN]
    await other_store.close()
