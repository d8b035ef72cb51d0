"""What a hostile session sends is counted before it is read, and ends nothing but the session."""

import asyncio
import json
import socket
import struct

import pytest

from sandgate.sandbox.session_channel import FrameLimits, SessionChannel, parse_done, parse_result
from sandgate_agent import session_wire, wire

DONE = {"exit_code": 0, "error": None, "cpu_us": 1, "peak_memory_bytes": 2, "dropped": 0}


class Ends:
    """A channel and its other side; what it told of."""

    def __init__(self) -> None:
        near, self.far = socket.socketpair()
        self.frames: list[tuple[bytes, bytes]] = []
        self.broken: list[str] = []
        self.channel = SessionChannel(near, lambda kind, body: self.frames.append((kind, body)), self.broken.append)

    async def say(self, *parts: bytes) -> None:
        """Send, and let it be read."""
        for part in parts:
            self.far.sendall(part)
            await asyncio.sleep(0.001)

    def close(self) -> None:
        """Both."""
        self.channel.close()
        self.far.close()


async def test_frames_come_whole_however_they_are_cut() -> None:
    """And in their order."""
    ends = Ends()
    ends.channel.limits = FrameLimits(2, 100)
    text = b"".join(session_wire.pack_frame(session_wire.RESULT, body) for body in (b"one", b"two"))
    await ends.say(*(text[place : place + 3] for place in range(0, len(text), 3)))
    assert ends.frames == [(session_wire.RESULT, b"one"), (session_wire.RESULT, b"two")]
    assert ends.broken == []
    ends.close()


@pytest.mark.parametrize(
    "forged",
    [
        session_wire.pack_frame(b"?", b""),
        struct.pack("!cI", session_wire.MISSED, 1),
        struct.pack("!cI", session_wire.RESULT, 101),
        struct.pack("!cI", session_wire.DONE, session_wire.DONE_LIMIT + 1),
        struct.pack("!cI", session_wire.READY, session_wire.MARK_LIMIT + 1),
        session_wire.pack_frame(session_wire.RESULT, bytes(90)) + struct.pack("!cI", session_wire.RESULT, 11),
        session_wire.pack_frame(session_wire.RESULT, b"") * 3,
    ],
)
async def test_what_was_not_agreed_breaks_it_once(forged: bytes) -> None:
    """Before anything of it is kept, and whatever follows."""
    ends = Ends()
    ends.channel.limits = FrameLimits(2, 100)
    await ends.say(forged, bytes(1000), bytes(1000))
    assert len(ends.broken) == 1
    assert len(ends.frames) <= 2
    ends.close()


async def test_what_was_said_to_another_is_skipped() -> None:
    """Up to the mark that was asked for, wherever in a frame the other one had stopped."""
    ends = Ends()
    mark = bytes(range(16))
    ends.channel.skip_to(mark)
    length = wire.unpack_code_header(ends.far.recv(wire.CODE_HEADER_BYTES))[0]
    assert json.loads(ends.far.recv(length)) == {"mark": mark.hex()}
    await ends.say(b"half of a frame" * 1000, b"...M\0", session_wire.pack_mark(mark, 7)[:7])
    assert ends.frames == []
    await ends.say(session_wire.pack_mark(mark, 7)[7:])
    ((kind, body),) = ends.frames
    assert (kind, session_wire.parse_mark(body)) == (session_wire.MARK, 7)
    ends.close()


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [(b"application/json", b"{")],
        [(b"application/json", b"NaN")],
        [(b"application/json", b"[" * 300 + b"]" * 300)],
        [(b"application/json", b'"' + b"x" * session_wire.JSON_LIMIT + b'"')],
        [(b"application/vnd.x+json", b'"\\ud800"')],
        [(b"text/plain", b"\xff")],
        [(b"\xff/plain", b"x")],
        [(b"", b"x")],
        [(b"x" * 128, b"x")],
        [(b"t/%d" % number, b"") for number in range(33)],
    ],
)
def test_bundles_that_cannot_be_shown_are_refused(parts: list[tuple[bytes, bytes]]) -> None:
    """Whatever is wrong with them, it is said in one way."""
    with pytest.raises(wire.WireError):
        parse_result(session_wire.pack_bundle(parts), session_wire.JSON_LIMIT)


def test_json_is_counted() -> None:
    """Because it has to be looked at; other texts are not."""
    parts = [(b"application/json", b"[1, 2]"), (b"a/b+json", b"{}"), (b"text/html", b"<b>")]
    assert parse_result(session_wire.pack_bundle(parts), 8)[1] == 8
    with pytest.raises(wire.WireError, match="too much JSON"):
        parse_result(session_wire.pack_bundle(parts), 7)


def test_a_bundle_that_is_cut_off_is_refused() -> None:
    """At any place but between its parts."""
    whole = session_wire.pack_bundle([(b"text/plain", b"abc")])
    assert parse_result(whole, 0) == ({"text/plain": "abc"}, 0)
    for length in range(1, len(whole)):
        with pytest.raises(wire.WireError):
            parse_result(whole[:length], 0)


@pytest.mark.parametrize(
    "change",
    [
        {"exit_code": 256},
        {"exit_code": -1},
        {"cpu_us": 2**60},
        {"dropped": True},
        {"peak_memory_bytes": 1.5},
        {"cpu_us": "1"},
    ],
)
def test_an_end_with_strange_numbers_is_refused(change: dict[str, object]) -> None:
    """They are counted with elsewhere."""
    with pytest.raises(wire.WireError):
        parse_done(json.dumps(DONE | change).encode())


@pytest.mark.parametrize("text", [b"", b"[]", b"null", b"[" * 100_000, b"{}", b"\xff"])
def test_an_end_that_is_none_is_refused(text: bytes) -> None:
    """As anything else that was not agreed."""
    with pytest.raises(wire.WireError):
        parse_done(text)


def test_an_error_that_cannot_be_read_is_left_out() -> None:
    """The rest of the end counts all the same."""
    done = parse_done(json.dumps(DONE | {"error": {"name": 1, "value": "", "traceback": ""}}).encode())
    assert (done.error, done.cpu_us) == (None, 1)
