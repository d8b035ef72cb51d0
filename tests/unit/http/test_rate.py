"""How many requests a user may send, and have served at once."""

import asyncio
from typing import Any

import pytest

from sandgate.core.clock import ManualClock
from sandgate.core.errors import StoreUnavailable, TooManyRequests, TooManyRequestsAtOnce
from sandgate.core.ids import UserId, make_user_id
from sandgate.http import rate
from sandgate.http.rate import RequestRate, RequestsAtOnce
from tests.unit.http.site import ENVIRONMENTS, Site


def _take(limit: RequestRate, user_id: UserId, times: int) -> int:
    taken = 0
    for _ in range(times):
        try:
            limit.take(user_id)
        except TooManyRequests:
            continue
        taken += 1
    return taken


def test_a_second_holds_so_many() -> None:
    """At once, and again after a second; half a second brings half of them."""
    clock = ManualClock()
    limit, user_id = RequestRate(10, clock), make_user_id()
    assert _take(limit, user_id, 15) == 10
    clock.advance(0.5)
    assert _take(limit, user_id, 15) == 5
    clock.advance(100)
    assert _take(limit, user_id, 15) == 10


def test_the_refusal_says_when() -> None:
    """Whoever asks again then is served."""
    clock = ManualClock()
    limit, user_id = RequestRate(4, clock), make_user_id()
    _take(limit, user_id, 4)
    with pytest.raises(TooManyRequests) as refused:
        limit.take(user_id)
    clock.advance(refused.value.retry_after_s)
    limit.take(user_id)


def test_users_share_nothing() -> None:
    """One who sends without end costs the others nothing."""
    limit, first, second = RequestRate(3, ManualClock()), make_user_id(), make_user_id()
    assert _take(limit, first, 9) == 3
    assert _take(limit, second, 3) == 3


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who have been quiet are forgotten, those who have not are not."""
    monkeypatch.setattr(rate, "_MOST_REMEMBERED", 3)
    clock = ManualClock()
    limit, busy = RequestRate(2, clock), make_user_id()
    for _ in range(10):
        _take(limit, make_user_id(), 2)
        clock.advance(1)
    assert len(limit._buckets) <= 3
    assert _take(limit, busy, 3) == 2
    for _ in range(5):
        _take(limit, make_user_id(), 1)
    assert _take(limit, busy, 1) == 0


async def test_a_crowd_is_answered_429(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """With ``Retry-After``, before anything is read or done; other users are served."""
    take, limit = RequestRate.take, RequestRate(2, site.clock)
    monkeypatch.setattr(RequestRate, "take", lambda _all, user_id: take(limit, user_id))
    answers = [await site.get(f"{ENVIRONMENTS}?limit=odd") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [400, 400, 429]
    assert answers[-1].json()["error"]["code"] == "RATE_LIMITED"
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert (await site.get(ENVIRONMENTS, who="stranger")).status_code == 200


def test_so_many_requests_are_served_at_once() -> None:
    """Of each user; whoever got an answer may send the next one."""
    at_once, ann = RequestsAtOnce(2), make_user_id()
    for _ in range(2):
        at_once.take(ann)
    with pytest.raises(TooManyRequestsAtOnce) as caught:
        at_once.take(ann)
    assert caught.value.details == {"limit": 2}
    at_once.take(make_user_id())
    at_once.give_back(ann)
    at_once.take(ann)


async def test_a_crowd_at_once_is_answered_429_and_then_served(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """However a request ended, its place is given back."""
    limit, take, give_back = RequestsAtOnce(3), RequestsAtOnce.take, RequestsAtOnce.give_back
    monkeypatch.setattr(RequestsAtOnce, "take", lambda _all, user_id: take(limit, user_id))
    monkeypatch.setattr(RequestsAtOnce, "give_back", lambda _all, user_id: give_back(limit, user_id))
    slow, all_came, came = asyncio.Event(), asyncio.Event(), []

    async def wait(*_: Any, **__: Any) -> Any:
        came.append(1)
        if len(came) == 3:
            all_came.set()
        await slow.wait()
        raise StoreUnavailable("away")

    monkeypatch.setattr(site.users, "get", wait)
    path = f"/api/v1/users/{site.accounts['user'].principal.user_id}"
    held = [asyncio.ensure_future(site.get(path, "admin")) for _ in range(3)]
    await all_came.wait()
    refused = await site.get("/api/v1/auth/api-keys", "admin")
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "TOO_MANY_REQUESTS_AT_ONCE")
    assert refused.headers["retry-after"]
    assert (await site.get("/api/v1/auth/api-keys", "user")).status_code == 200
    slow.set()
    assert {answer.status_code for answer in await asyncio.gather(*held)} == {503}
    assert not limit._held
    assert (await site.get("/api/v1/auth/api-keys", "admin")).status_code == 200
