"""Rows of what users may use, and have used."""

import asyncio
from datetime import date, timedelta

from sandgate.core.ids import make_user_id
from sandgate.core.quota import UserQuota
from sandgate.store.sql_store import SqlStore
from tests.contract.store.records import a_user

DAY = date(2026, 3, 1)
QUOTA = UserQuota(1, 2**40, 3, 4, 5, 6, 7, 8, 9, 2**41)


async def test_a_quota_is_set_changed_and_taken_away(store: SqlStore) -> None:
    """As a whole: what is not in the new one is not set any more."""
    user = a_user()
    await store.users.insert(user)
    assert await store.quotas.find(user.user_id) is None
    for quota in (QUOTA, UserQuota(environments=0)):
        assert await store.quotas.put(user.user_id, quota)
        assert await store.quotas.find(user.user_id) == quota
    assert await store.quotas.delete(user.user_id)
    assert not await store.quotas.delete(user.user_id)
    assert await store.quotas.find(user.user_id) is None


async def test_nobody_has_no_quota(store: SqlStore) -> None:
    """And nothing is counted for nobody."""
    nobody = make_user_id()
    assert not await store.quotas.put(nobody, QUOTA)
    await store.quotas.add_executions(DAY, {nobody: 1})
    assert await store.quotas.count_executions(nobody, DAY) == 0


async def test_executions_of_a_day_add_up(store: SqlStore) -> None:
    """Whoever adds them, at whatever time; days before yesterday are forgotten."""
    user, other = a_user(), a_user(name="other")
    for each in (user, other):
        await store.users.insert(each)
    await asyncio.gather(*(store.quotas.add_executions(DAY, {user.user_id: 2, other.user_id: 1}) for _ in range(5)))
    assert await store.quotas.count_executions(user.user_id, DAY) == 10
    assert await store.quotas.count_executions(other.user_id, DAY) == 5
    assert await store.quotas.count_executions(user.user_id, DAY + timedelta(days=1)) == 0
    await store.quotas.add_executions(DAY + timedelta(days=1), {user.user_id: 1})
    assert await store.quotas.count_executions(user.user_id, DAY) == 10
    await store.quotas.add_executions(DAY + timedelta(days=2), {user.user_id: 1})
    assert await store.quotas.count_executions(user.user_id, DAY) == 0


async def test_what_a_user_had_goes_with_the_user(store: SqlStore) -> None:
    """Nothing refers to nobody."""
    user = a_user()
    await store.users.insert(user)
    await store.quotas.put(user.user_id, QUOTA)
    await store.quotas.add_executions(DAY, {user.user_id: 1})
    assert await store.users.delete(user.user_id)
    assert await store.quotas.find(user.user_id) is None
    assert await store.quotas.count_executions(user.user_id, DAY) == 0
