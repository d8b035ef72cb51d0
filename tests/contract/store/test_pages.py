"""Pages of lists."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandgate.core.ids import EnvironmentId, UserId, make_user_id
from sandgate.core.page import Page, PageRequest
from sandgate.core.states import LIVE_ENVIRONMENT_STATUSES
from sandgate.store.base import EnvironmentFilter
from sandgate.store.sql_store import SqlStore
from tests.contract.store.records import a_running_execution, a_user, an_api_key, an_environment, ended

# A list to look at, and how a row is added to it; adding answers the row.
ListPages = Callable[[PageRequest], Awaitable[Page[Any]]]
Add = Callable[[], Awaitable[Any]]


async def _environments(store: SqlStore) -> tuple[ListPages, Add]:
    owner = make_user_id()

    async def add() -> Any:
        environment = an_environment(owner_id=owner)
        await store.environments.insert(environment)
        return environment

    return lambda page: store.environments.list(EnvironmentFilter(owner_id=owner), page), add


async def _live_environments(store: SqlStore) -> tuple[ListPages, Add]:
    owner = make_user_id()
    statuses = sorted(LIVE_ENVIRONMENT_STATUSES)
    wanted = EnvironmentFilter(owner_id=owner, statuses=LIVE_ENVIRONMENT_STATUSES)
    added = 0

    async def add() -> Any:
        nonlocal added
        added += 1
        environment = an_environment(owner_id=owner, status=statuses[added % len(statuses)])
        await store.environments.insert(environment)
        return environment

    return lambda page: store.environments.list(wanted, page), add


async def _executions(store: SqlStore) -> tuple[ListPages, Add]:
    environment_id = EnvironmentId(make_user_id())

    async def add() -> Any:
        execution = ended(a_running_execution(environment_id=environment_id))
        await store.executions.finish(execution)
        return execution

    return lambda page: store.executions.list(environment_id, page), add


async def _api_keys(store: SqlStore) -> tuple[ListPages, Add]:
    user = a_user()
    await store.users.insert(user)

    async def add() -> Any:
        key = an_api_key(user)
        await store.credentials.insert_api_key(key)
        return key

    return lambda page: store.credentials.list_api_keys(UserId(user.user_id), page), add


async def _users(store: SqlStore) -> tuple[ListPages, Add]:
    # Everybody is in this list: what earlier examples added has to go.
    for user in (await store.users.list(PageRequest(limit=200))).items:
        await store.users.delete(user.user_id)

    async def add() -> Any:
        user = a_user()
        await store.users.insert(user)
        return user

    return store.users.list, add


@pytest.mark.parametrize("make_list", [_environments, _live_environments, _executions, _api_keys, _users])
@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(rows=st.integers(0, 9), limit=st.integers(1, 5), added_between=st.lists(st.integers(0, 2), max_size=4))
async def test_pages_are_stable_while_rows_are_added(
    store: SqlStore,
    make_list: Callable[[SqlStore], Awaitable[tuple[ListPages, Add]]],
    rows: int,
    limit: int,
    added_between: list[int],
) -> None:
    """Going through the pages shows every row of the beginning once, newest first, and none that came later."""
    list_page, add = await make_list(store)
    at_first = [await add() for _ in range(rows)]
    seen: list[Any] = []
    request = PageRequest(limit)
    while True:
        page = await list_page(request)
        assert len(page.items) <= limit
        seen += page.items
        if page.next_before_id is None:
            break
        assert len(page.items) == limit
        request = PageRequest(limit, page.next_before_id)
        for _ in range(added_between.pop() if added_between else 0):
            await add()
    assert seen == at_first[::-1]


async def test_a_cursor_of_nonsense_is_a_place_like_any_other(store: SqlStore) -> None:
    """It neither fails nor shows what it should not."""
    environment = an_environment()
    await store.environments.insert(environment)
    for before, items in (("", ()), ("\0", ()), ("\ud800", ()), ("zzz", (environment,)), ("env-", ())):
        page = await store.environments.list(EnvironmentFilter(), PageRequest(before_id=before))
        assert page.items == items, before
