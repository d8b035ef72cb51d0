"""Files as answers: which part, and what is said of it."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from sandgate.core.errors import RangeNotSatisfiable
from sandgate.http.connection import ClientGone
from sandgate.http.exchange import Exchange
from sandgate.http.file_answer import PIECE_BYTES, FileAnswer, answer_file

DATA = b"0123456789"


class Held:
    """Content in memory that notes when it is let go of."""

    def __init__(self, data: bytes = DATA) -> None:
        self.data = data
        self.closed = False

    async def read(self, offset: int, length: int) -> bytes:
        """A part."""
        return self.data[offset : offset + length]

    def close(self) -> None:
        """Let go."""
        self.closed = True


def _answer(headers: Mapping[str, str], content: Held | None = None, name: str = "x") -> FileAnswer:
    exchange = Exchange([(key.encode(), value.encode()) for key, value in headers.items()])
    return answer_file(exchange, content or Held(), len(DATA), name, "tag")


async def _sent(answer: FileAnswer) -> tuple[dict[str, str], bytes]:
    messages: list[Any] = []

    async def send(message: Any) -> None:
        messages.append(message)

    await answer.send(send)
    assert messages[-1] == {"type": "http.response.body", "body": b""}
    headers = {key.decode(): value.decode() for key, value in messages[0]["headers"]}
    return headers, b"".join(message["body"] for message in messages[1:])


@pytest.mark.parametrize(
    ("wanted", "status", "body"),
    [
        ("bytes=0-0", 206, b"0"),
        ("bytes=2-", 206, b"23456789"),
        ("bytes=-3", 206, b"789"),
        ("bytes=-100", 206, DATA),
        ("bytes=9-100", 206, b"9"),
        ("bytes=0-1,3-4", 200, DATA),
        ("bytes=3-2", 200, DATA),
        ("bytes=-", 200, DATA),
        ("lines=1-2", 200, DATA),
        ("bytes=" + "9" * 30 + "-", 200, DATA),
        ("", 200, DATA),
    ],
)
async def test_a_part_is_what_was_asked_for(wanted: str, status: int, body: bytes) -> None:
    """What is no single range within the rules is answered with the whole."""
    answer = _answer({"range": wanted})
    headers, sent = await _sent(answer)
    assert (answer.status, sent, headers["content-length"]) == (status, body, str(len(body)))
    assert ("content-range" in headers) is (status == 206)


@pytest.mark.parametrize("wanted", ["bytes=10-", "bytes=10-20", "bytes=-0"])
def test_a_part_beyond_the_end(wanted: str) -> None:
    """It is refused, with where the end is."""
    with pytest.raises(RangeNotSatisfiable) as refused:
        _answer({"range": wanted})
    assert refused.value.details == {"size_bytes": 10}


async def test_conditions() -> None:
    """Of a file that the client has, nothing; a part only of the file that it began with."""
    for tag in ('"tag"', 'W/"tag"', '"a", "tag"', "*"):
        answer = _answer({"if-none-match": tag})
        headers, sent = await _sent(answer)
        assert (answer.status, sent, headers["etag"]) == (304, b"", '"tag"')
        assert "content-length" not in headers
    assert _answer({"if-none-match": '"other"'}).status == 200
    assert _answer({"range": "bytes=1-2", "if-range": '"tag"'}).status == 206
    assert _answer({"range": "bytes=1-2", "if-range": '"other"'}).status == 200


@pytest.mark.parametrize(
    ("name", "plain"), [("a.txt", "a.txt"), ('q"\\%é\n\U0001f40d', "q______"), ("x; filename=y", "x; filename=y")]
)
async def test_a_name_cannot_break_out_of_its_header(name: str, plain: str) -> None:
    """Quotes, line ends and what is no ASCII are replaced; the whole name follows, encoded."""
    headers, _ = await _sent(_answer({}, name=name))
    first, _, second = headers["content-disposition"].partition("; filename*=UTF-8''")
    assert first == f'attachment; filename="{plain}"'
    assert second.isascii()
    assert not set(second) & set('"\\\n; ')


async def test_a_long_file_leaves_in_pieces_and_is_let_go_of() -> None:
    """Also when the client goes away, or the file turns out to be too short."""
    content = Held(b"x" * (PIECE_BYTES + 1))
    exchange = Exchange([])
    _, sent = await _sent(answer_file(exchange, content, PIECE_BYTES + 1, "x", "tag"))
    assert (len(sent), content.closed) == (PIECE_BYTES + 1, True)

    async def gone(_message: Any) -> None:
        raise ConnectionResetError

    for content, send, error in ((Held(), gone, ConnectionResetError),):
        with pytest.raises(error):
            await _answer({}, content).send(send)
        assert content.closed
    short = Held(b"")
    with pytest.raises(OSError, match="too soon"):
        await _sent(_answer({}, short))
    assert short.closed


async def test_nothing_is_read_for_who_wants_no_body() -> None:
    """HEAD is answered with the length, and without a look into the file."""
    exchange = Exchange([])
    exchange.wants_head_only = True
    headers, sent = await _sent(answer_file(exchange, Held(b""), 10, "x", "tag"))
    assert (headers["content-length"], sent) == ("10", b"")


class Stuck(Held):
    """Content that does not come."""

    async def read(self, offset: int, length: int) -> bytes:
        """Never."""
        await asyncio.get_running_loop().create_future()
        return b""


async def test_a_file_is_let_go_of_when_its_client_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long its content would have been waited for."""
    monkeypatch.setattr("sandgate.http.connection._WATCHED_AFTER_S", 0.0)
    messages = iter([{"type": "http.request"}, {"type": "http.disconnect"}])

    async def receive() -> Any:
        return next(messages)

    async def send(_message: Any) -> None:
        return

    content = Stuck()
    with pytest.raises(ClientGone):
        await asyncio.wait_for(_answer({}, content).serve(receive, send), 30)
    assert content.closed
