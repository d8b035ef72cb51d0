"""What every request and every answer have in common."""

import asyncio
import re
from typing import Any

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from sandgate.http.answer import Answer
from sandgate.http.boundary import Boundary
from sandgate.http.connection import ClientGone, while_connected
from sandgate.http.metrics import HttpMetrics
from tests.unit.http.site import ENVIRONMENTS, Site


async def test_a_request_id_is_made_or_taken_over(site: Site) -> None:
    """A good one comes back; any other is replaced, never repeated."""
    assert re.fullmatch(r"req-[0-9a-z]{26}", (await site.get("/healthz")).headers["x-request-id"])
    taken = await site.get("/healthz", headers={"X-Request-Id": "my.id_1-2"})
    assert taken.headers["x-request-id"] == "my.id_1-2"
    for bad in ("", "a" * 129, "a b", "a;b", "é", "<script>"):
        answer = await site.get("/healthz", headers={"X-Request-Id": bad.encode()})
        assert answer.headers["x-request-id"].startswith("req-")


async def test_answers_are_not_kept_or_guessed_at(site: Site) -> None:
    """The safety headers are on answers of every kind; no page of another origin may read them."""
    for path, who in (("/healthz", None), ("/api/v1/me", "user"), ("/api/v1/me", None), ("/nowhere", None)):
        answer = await site.get(path, who, headers={"Origin": "https://elsewhere.test"})
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize("path", ["/", "/api", "/api/v1", f"{ENVIRONMENTS}/", "/healthz/", "//healthz", "/docs/../etc"])
async def test_unknown_paths_are_errors_of_the_usual_form(site: Site, path: str) -> None:
    """A slash too many is another path: nothing redirects."""
    answer = await site.get(path)
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "NOT_FOUND"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", ENVIRONMENTS, "POST, GET, HEAD"),
        ("POST", f"{ENVIRONMENTS}/env-000000000000", "GET, HEAD, PATCH, DELETE"),
        ("OPTIONS", "/healthz", "GET, HEAD"),
        ("TRACE", "/api/v1/auth/token", "POST"),
        ("BREW", "/api/v1/me", "GET, HEAD"),
    ],
)
async def test_wrong_methods_are_told_all_right_ones(site: Site, method: str, path: str, allowed: str) -> None:
    """405 names every method of the path, whoever asks."""
    answer = await site.send(method, path, who=None)
    assert answer.status_code == 405
    assert answer.headers["allow"] == allowed
    assert answer.json()["error"]["details"]["allowed"] == allowed.split(", ")


async def test_head_is_get_without_a_body(site: Site) -> None:
    """The server drops the body; status and length are those of GET."""
    get, head = await site.get(ENVIRONMENTS), await site.send("HEAD", ENVIRONMENTS)
    assert (head.status_code, head.headers["content-length"]) == (200, get.headers["content-length"])


async def test_headers_that_decide_something_are_given_once(site: Site) -> None:
    """Of two credentials neither is believed."""
    twice = [("Authorization", f"Bearer {site.accounts[name].token}") for name in ("user", "admin")]
    async with _client(site) as client:
        answer = await client.get("/api/v1/me", headers=twice)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "MALFORMED_REQUEST"
    assert "authorization" in answer.json()["error"]["message"]


def _client(site: Site) -> Any:
    return httpx.AsyncClient(transport=httpx.ASGITransport(site.app), base_url="http://sandgate.test")


@pytest.mark.parametrize(
    "value",
    ["", "Bearer", "Bearer ", "Basic dXNlcjpw", "bearer x y", "Bearer é", "Token x", "Bearer a.b.c", "x" * 9000],
)
async def test_what_is_no_credential_is_401(site: Site, value: str) -> None:
    """Whatever stands in the header, the answer is the same and says how to authenticate."""
    answer = await site.get("/api/v1/me", None, headers={"Authorization": value.encode()})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="sandgate"'


async def test_the_scheme_may_be_written_in_any_case(site: Site) -> None:
    """Schemes are compared without regard to case."""
    answer = await site.get("/api/v1/me", None, headers={"Authorization": f"bEARER {site.accounts['user'].token}"})
    assert answer.json()["username"] == "user"


async def _run(app: Any, scope: dict[str, Any] | None = None) -> list[Message]:
    """The messages that an application behind the boundary sends."""
    sent: list[Message] = []
    plain: Scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b""}

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    await Boundary(app, HttpMetrics())({**plain, **(scope or {})}, receive, send)
    return sent


async def test_a_bug_is_answered_without_a_word_of_it() -> None:
    """500 has the request id; what happened is for the log."""

    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise KeyError("a secret of the inside")

    start, body = await _run(broken)
    assert start["status"] == 500
    assert b"secret" not in body["body"]
    assert dict(start["headers"])[b"x-request-id"] in body["body"]


async def test_a_bug_after_the_answer_has_begun_is_left_to_the_server() -> None:
    """There is nothing that could be said any more; the connection is cut."""

    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise KeyError("late")

    with pytest.raises(KeyError):
        await _run(broken)


async def test_nobody_is_answered_when_nobody_is_there() -> None:
    """A client that went away gets no answer, and that is no error."""

    async def gone(scope: Scope, receive: Receive, send: Send) -> None:
        raise ClientGone

    assert not await _run(gone)


async def test_web_sockets_are_declined() -> None:
    """There are none."""

    async def never(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError

    assert await _run(never, {"type": "websocket"}) == [{"type": "websocket.close", "code": 1000}]


async def test_an_answer_keeps_its_own_cache_rule() -> None:
    """Files of the documentation page may be kept; nothing else may."""

    async def cached(scope: Scope, receive: Receive, send: Send) -> None:
        await Answer(200, b"", b"text/css", ((b"cache-control", b"public"),)).send(send)

    start, _ = await _run(cached)
    assert [value for name, value in start["headers"] if name == b"cache-control"] == [b"public"]


class _Client:
    """A client that is there until it goes."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()
        self.asked = asyncio.Event()

    async def receive(self) -> Message:
        self.asked.set()
        await self.gone.wait()
        return {"type": "http.disconnect"}


async def test_work_is_cancelled_when_the_client_goes() -> None:
    """The work learns of it as a cancellation, the caller as ClientGone."""
    client, cancelled = _Client(), asyncio.Event()

    async def work() -> None:
        client.gone.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    with pytest.raises(ClientGone):
        await while_connected(client.receive, work())
    assert cancelled.is_set()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_short_work_is_not_watched() -> None:
    """The client is not even looked at."""
    client = _Client()
    assert await while_connected(client.receive, asyncio.sleep(0, "done")) == "done"
    assert not client.asked.is_set()


async def test_long_work_ends_by_itself_while_the_client_stays() -> None:
    """Watching leaves nothing behind."""
    client = _Client()
    before = asyncio.all_tasks()

    async def work() -> str:
        await client.asked.wait()
        return "done"

    assert await while_connected(client.receive, work()) == "done"
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


async def test_a_cancellation_from_elsewhere_stays_one() -> None:
    """Stopping the server is not mistaken for a client that went away."""
    client = _Client()
    task = asyncio.ensure_future(while_connected(client.receive, asyncio.Event().wait()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
