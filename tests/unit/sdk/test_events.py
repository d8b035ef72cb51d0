"""Server-sent events, however they arrive."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandgate.sdk import events
from sandgate.sdk.errors import UnexpectedAnswer
from sandgate.sdk.events import EventParser, ServerEvent

STREAM = (
    "\ufeff: a comment\r\n"
    "retry: 10\n"
    "id: 1\revent: step\rdata: {\"a\":\rdata: 1}\r\r"
    "data:no space\nunknown: x\n\n"
    "id\ndata: the id is gone\r\n\r\n"
    "id: 7\n\n"
    "data: é 🎉\n\n"
    "id: a\0b\ndata\n\n"
    "data: never ended"
).encode()  # fmt: skip
EVENTS = [
    ServerEvent("step", '{"a":\n1}', "1"),
    ServerEvent("message", "no space", "1"),
    ServerEvent("message", "the id is gone", ""),
    ServerEvent("message", "é 🎉", "7"),
    ServerEvent("message", "", "7"),
]


def parse(*pieces: bytes) -> list[ServerEvent]:
    """All events of a stream in these pieces."""
    parser = EventParser()
    return [event for piece in pieces for event in parser.feed(piece)]


def test_a_stream_is_read_as_the_standard_says() -> None:
    """Comments, three kinds of line ends, several lines of data, ids that stay; what is not whole is no event."""
    assert parse(STREAM) == EVENTS


@given(st.lists(st.integers(0, len(STREAM)), max_size=40))
def test_pieces_make_no_difference(cuts: list[int]) -> None:
    """Between any two bytes, those of one character and of one line end too."""
    places = [0, *sorted(cuts), len(STREAM)]
    assert parse(*(STREAM[start:end] for start, end in pairwise(places))) == EVENTS


def test_each_byte_alone_makes_no_difference() -> None:
    """The smallest pieces that there are."""
    assert parse(*(bytes([byte]) for byte in STREAM)) == EVENTS


def test_an_event_goes_on_from_the_id_that_was_given() -> None:
    """A stream that is resumed keeps the id until the server says another."""
    parser = EventParser("41")
    assert [event.event_id for event in parser.feed(b"data: a\n\nid: 42\ndata: b\n\n")] == ["41", "42"]
    assert parser.last_event_id == "42"


@pytest.mark.parametrize("piece", [b"x" * 100, b"data: x\n" * 20, b"data: " + b"x" * 100])
def test_no_event_grows_without_end(monkeypatch: pytest.MonkeyPatch, piece: bytes) -> None:
    """A line that never ends and an event that never ends are given up."""
    monkeypatch.setattr(events, "LARGEST_EVENT", 1000)
    with pytest.raises(UnexpectedAnswer, match="more than 1000"):
        parse(*[piece] * 20)


def test_many_events_are_no_large_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound is one event's."""
    monkeypatch.setattr(events, "LARGEST_EVENT", 100)
    assert len(parse(b"data: twenty characters\n\n" * 1000)) == 1000


def test_bytes_that_are_no_text_are_replaced() -> None:
    """Nothing raises."""
    assert parse(b"data: \xff\xfe\n\n") == [ServerEvent("message", "��")]
