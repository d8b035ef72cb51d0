"""How much of what they have asked for users may leave unread."""

import asyncio
from contextlib import AbstractContextManager
from typing import Any

import pytest

from sandgate.core.errors import TooManyUnreadAnswers
from sandgate.core.ids import UserId, make_user_id
from sandgate.http.answer import PIECE_BYTES, Answer
from sandgate.http.unread import UnreadAnswers
from tests.unit.http.site import Site

WORKFLOWS = "/api/v1/orchestrator/workflows"


def _is_refused(unread: UnreadAnswers, user_id: UserId, size_bytes: int) -> str | None:
    try:
        unread.check(user_id, size_bytes)
    except TooManyUnreadAnswers as refused:
        scope: str = refused.details["scope"]
        return scope
    return None


def test_a_user_may_leave_so_much_unread() -> None:
    """One answer of any size, and then as much as the figure says; what was read makes room."""
    unread, ann = UnreadAnswers(100, 1000), make_user_id()
    assert _is_refused(unread, ann, 500) is None
    with unread.holding(ann, 60):
        assert _is_refused(unread, ann, 40) is None
        assert _is_refused(unread, ann, 41) == "user"
        with unread.holding(ann, 40):
            assert _is_refused(unread, ann, 0) == "user"
        assert _is_refused(unread, ann, 0) is None
    assert not unread._held
    assert unread._all == 0


def test_all_together_may_leave_so_much_unread() -> None:
    """Who has left something is refused then; who has left nothing is not."""
    unread, ann, bob = UnreadAnswers(100, 150), make_user_id(), make_user_id()
    with unread.holding(ann, 80):
        assert _is_refused(unread, bob, 100) is None
        with unread.holding(bob, 70):
            assert _is_refused(unread, bob, 0) == _is_refused(unread, ann, 1) == "server"
            assert _is_refused(unread, make_user_id(), 100) is None
        assert _is_refused(unread, ann, 20) is None


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES, 3 * PIECE_BYTES + 7])
async def test_an_answer_is_sent_in_pieces(size: int) -> None:
    """Of which only the last one says that it is."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    body = bytes(range(256)) * (size // 256 + 1)
    await Answer(200, body[:size]).send(send)
    assert b"".join(message["body"] for message in sent[1:]) == body[:size]
    assert [message.get("more_body", False) for message in sent[1:]] == [True] * (len(sent) - 2) + [False]
    assert all(len(message["body"]) <= PIECE_BYTES for message in sent[1:])
    assert len(sent) == 1 + max(1, -(-size // PIECE_BYTES))


class _Client:
    """Asks the application, and reads of the answer what it is told to."""

    def __init__(self, site: Site, path: str, who: str) -> None:
        self.begun, self.reads = asyncio.Event(), asyncio.Event()
        self.status, self.size = 0, 0
        headers = [(name.lower().encode(), value.encode()) for name, value in site.accounts[who].headers.items()]
        scope = {
            "type": "http", "method": "GET", "path": path, "query_string": b"", "headers": headers,
            "http_version": "1.1", "scheme": "http", "client": ("127.0.0.1", 1),
            "server": ("sandgate.test", 80), "root_path": "",
        }  # fmt: skip
        self.task = asyncio.ensure_future(site.app(scope, self._receive, self._send))

    async def _receive(self) -> Any:
        if self.begun.is_set():
            await asyncio.Event().wait()
        return {"type": "http.request", "body": b"", "more_body": False}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            return
        self.begun.set()
        await self.reads.wait()
        self.size += len(message["body"])


async def test_who_does_not_read_is_refused_more(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is done for it; others are served, and so is whoever has read."""
    limit, check, holding = UnreadAnswers(1_000_000, 10_000_000), UnreadAnswers.check, UnreadAnswers.holding

    def hold(_all: Any, user_id: UserId, size_bytes: int) -> AbstractContextManager[None]:
        return holding(limit, user_id, size_bytes)

    monkeypatch.setattr(UnreadAnswers, "check", lambda _all, user_id, size_bytes=0: check(limit, user_id, size_bytes))
    monkeypatch.setattr(UnreadAnswers, "holding", hold)
    step = {"name": "a", "type": "code_execution", "config": {"code": "#" * 200_000}}
    assert (await site.post(WORKFLOWS, {"name": "w", "steps": [step]})).status_code == 201
    slow = [_Client(site, WORKFLOWS, "user") for _ in range(3)]
    for client in slow:
        await client.begun.wait()
    # Two of them are larger than what may be held; the third was refused when it was made.
    refused = [client for client in slow if client.status == 429]
    held = [client for client in slow if client.status == 200]
    assert (len(held), len(refused)) == (2, 1)
    assert limit._all == limit._held[site.accounts["user"].principal.user_id] > 800_000
    assert (await site.get(WORKFLOWS, "admin")).status_code == 200
    assert (await site.get("/api/v1/me")).status_code == 200
    for client in slow:
        client.reads.set()
        await client.task
    assert all(client.size > 400_000 for client in held)
    assert (limit._all, len(limit._held)) == (0, 0)
    assert (await site.get(WORKFLOWS)).status_code == 200
