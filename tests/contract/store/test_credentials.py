"""Rows of API keys and revoked tokens."""

from dataclasses import replace
from datetime import timedelta

import pytest

from sandgate.core.errors import UserNotFound
from sandgate.core.ids import ApiKeyId
from sandgate.core.page import PageRequest
from sandgate.store.sql_store import SqlStore
from tests.contract.store.records import NOW, STRANGE_TEXT, a_user, an_api_key

SECOND = timedelta(seconds=1)


async def test_a_key_comes_back_as_it_went_in(store: SqlStore) -> None:
    """Every field is kept."""
    user = a_user()
    await store.users.insert(user)
    key = an_api_key(
        user, label=STRANGE_TEXT, secret_sha256=bytes(range(224, 256)), expires_at=NOW + SECOND, last_used_at=NOW
    )
    await store.credentials.insert_api_key(key)
    assert await store.credentials.find_api_key(key.api_key_id) == key


async def test_a_key_needs_its_user(store: SqlStore) -> None:
    """A user that was deleted meanwhile gets none."""
    with pytest.raises(UserNotFound):
        await store.credentials.insert_api_key(an_api_key(a_user()))


async def test_keys_of_a_user_are_listed_newest_first(store: SqlStore) -> None:
    """And nobody else's."""
    users = [a_user(), a_user()]
    keys = []
    for user in users:
        await store.users.insert(user)
        keys += [an_api_key(user) for _ in range(3)]
    for key in keys:
        await store.credentials.insert_api_key(key)
    page = await store.credentials.list_api_keys(users[0].user_id, PageRequest())
    assert page.items == (keys[2], keys[1], keys[0])


async def test_use_is_noted_and_never_goes_back(store: SqlStore) -> None:
    """Notes may arrive out of order."""
    user = a_user()
    await store.users.insert(user)
    key = an_api_key(user)
    await store.credentials.insert_api_key(key)
    for at in (NOW + SECOND, NOW):
        await store.credentials.touch_api_key(key.api_key_id, at)
        assert await store.credentials.find_api_key(key.api_key_id) == replace(key, last_used_at=NOW + SECOND)
    await store.credentials.touch_api_key(ApiKeyId("key-unknown"), NOW)


async def test_a_key_is_deleted_once(store: SqlStore) -> None:
    """The second caller is told that there was none."""
    user = a_user()
    await store.users.insert(user)
    key = an_api_key(user)
    await store.credentials.insert_api_key(key)
    assert [await store.credentials.delete_api_key(key.api_key_id) for _ in range(2)] == [True, False]
    assert await store.credentials.find_api_key(key.api_key_id) is None
    assert await store.credentials.find_api_key(ApiKeyId("\0\ud800")) is None


async def test_a_revoked_token_is_remembered_until_it_would_have_expired(store: SqlStore) -> None:
    """Revoking again, with whatever expiry, never shortens that."""
    expires_at = NOW + SECOND
    assert not await store.credentials.is_revoked("token")
    for at in (expires_at, expires_at, NOW):
        await store.credentials.revoke_token("token", at)
        assert await store.credentials.is_revoked("token")
    assert not await store.credentials.is_revoked("\0")
    assert await store.credentials.prune_revoked(expires_at) == 0
    assert await store.credentials.is_revoked("token")
    assert await store.credentials.prune_revoked(expires_at + timedelta(microseconds=1)) == 1
    assert not await store.credentials.is_revoked("token")
