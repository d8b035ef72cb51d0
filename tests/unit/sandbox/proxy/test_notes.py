"""The log is told of every connection, as far as it can bear that, and otherwise of how many it was not told."""

from typing import Any

from sandgate.core.clock import ManualClock
from sandgate.core.network import Connection, NetworkLimits, NetworkTotals, Verdict
from sandgate.sandbox.proxy.notes import Note, Notes
from tests.unit.sandbox.proxy.conftest import Inside, Make

_CONNECTION = Connection(ManualClock().now(), "host.test", 443, Verdict.DENIED, "host_not_allowed", 0, 0, 0)


def _row(note: Note) -> dict[str, Any]:
    row: dict[str, Any] = note["connection"]
    return row


async def _deny(inside: Inside, number: int) -> None:
    for each in range(number):
        await inside.ask(f"CONNECT a{each}.test:443 HTTP/1.1\r\nHost: a{each}.test:443\r\n\r\n")


async def test_one_for_each_that_ends(make: Make) -> None:
    """Whose it was, where it led, what became of it, and what went through; then the sums of all."""
    inside = await make()
    get = "GET http://host.test:PORT/ HTTP/1.1\r\nHost: host.test:PORT\r\nConnection: close\r\n\r\n"
    assert b"hello" in await inside.ask(get)
    await _deny(inside, 1)
    await inside.server.close("env-1")
    ended, denied, closed = inside.said
    assert {(note["environment_id"], note["user_id"], note["left_out"]) for note in inside.said} == {
        ("env-1", "user-1", 0)
    }
    row = _row(ended)
    assert row.pop("sent_bytes") > 0 < row.pop("received_bytes")
    assert row.pop("duration_ms") >= 0
    assert row == {"host": "host.test", "port": inside.host_port, "verdict": "allowed", "reason": "closed"}
    assert (_row(denied)["host"], _row(denied)["verdict"], _row(denied)["reason"]) == (
        "a0.test", "denied", "host_not_allowed",
    )  # fmt: skip
    totals = closed["totals"]
    assert (totals["allowed"], totals["denied"], totals["failed"]) == (1, 1, 0)
    assert totals["received_bytes"] > 0 < totals["sent_bytes"]


async def test_a_flood_is_counted_instead(make: Make) -> None:
    """So many in a minute; the next one, and the last, say how many there were between."""
    inside = await make(limits=NetworkLimits(logged_per_minute=3))
    await _deny(inside, 10)
    assert [(_row(note)["host"], note["left_out"]) for note in inside.said] == [
        ("a0.test", 0), ("a1.test", 0), ("a2.test", 0),
    ]  # fmt: skip
    inside.clock.advance(20)
    await _deny(inside, 2)
    assert [(_row(note)["host"], note["left_out"]) for note in inside.said[3:]] == [("a0.test", 7)]
    inside.clock.advance(3600)
    await _deny(inside, 5)
    assert [note["left_out"] for note in inside.said[4:]] == [1, 0, 0]
    await inside.server.close("env-1")
    assert (inside.said[-1]["left_out"], inside.said[-1]["totals"]["denied"]) == (2, 17)
    assert len(inside.said) == 8


async def test_none_where_none_is_wanted(make: Make) -> None:
    """Not even the sums."""
    inside = await make(limits=NetworkLimits(logged_per_minute=0))
    await _deny(inside, 2)
    await inside.server.close("env-1")
    assert inside.said == []


def test_log_without_room() -> None:
    """What could not be said is counted, too, and takes nothing of what may be said."""
    has_room = [False, False, True, True, True]
    said: list[Note] = []

    def say(note: Note) -> bool:
        said.append(note)
        return has_room.pop(0)

    clock = ManualClock()
    notes = Notes("env-1", "user-1", 2, say, clock.monotonic)
    for _connection in range(5):
        notes.ended(_CONNECTION)
    notes.closed(NetworkTotals(denied=5))
    assert [note["left_out"] for note in said] == [0, 1, 2, 0, 1]
