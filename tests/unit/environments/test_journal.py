"""What an execution writes, for those who follow it: whole to who sets the pace, bounded for all."""

import asyncio
import sys

import pytest

from sandgate.environments.journal import JournalReader, Offsets, OutputJournal, Part


def _nothing() -> None:
    pass


def _journal(head: int = 1000, recent: int = 1000) -> OutputJournal:
    return OutputJournal(head, recent, 1 << 30)


def _all(reader: JournalReader) -> list[Part]:
    found: list[Part] = []
    while parts := reader.read():
        found += parts
    return found


def _texts(parts: list[Part]) -> dict[str, str]:
    return {name: "".join(part.text for part in parts if part.stream == name) for name in ("stdout", "stderr")}


async def test_streams_come_in_the_order_they_were_written() -> None:
    """Small pieces of one stream as one."""
    journal = _journal()
    for name, data in (("stdout", b"a"), ("stdout", b"b"), ("stderr", b"c"), ("stdout", b"d")):
        journal.put(name, data, _nothing)
    parts = _all(journal.reader(Offsets()))
    assert [(part.stream, part.text) for part in parts] == [("stdout", "ab"), ("stderr", "c"), ("stdout", "d")]


async def test_what_grows_is_read_on_where_it_was_left() -> None:
    """Nothing twice, nothing missed."""
    journal = _journal()
    reader = journal.reader(Offsets())
    seen = []
    for number in range(50):
        journal.put("stdout", f"{number},".encode(), _nothing)
        seen += [part.text for part in reader.read()]
    assert seen == [f"{number}," for number in range(50)]
    assert str(reader.offsets) == f"{len(''.join(seen))}.0"


@pytest.mark.parametrize("cut", range(1, 8))
async def test_characters_are_decoded_across_pieces(cut: int) -> None:
    """As the whole is, with a replacement for what is no UTF-8."""
    whole = "a\N{SNOWMAN}\N{GRINNING FACE}".encode() + b"\xff"
    journal = _journal()
    journal.put("stdout", whole[:cut], _nothing)
    journal.put("stdout", whole[cut:] + b"\xe2\x98", _nothing)
    journal.end()
    assert _texts(_all(journal.reader(Offsets())))["stdout"] == (whole + b"\xe2\x98").decode("utf-8", "replace")


async def test_the_code_waits_for_who_sets_the_pace() -> None:
    """And goes on once enough was read; everything arrives, though little would be held."""
    journal = _journal(10, 10)
    reader = journal.reader(Offsets(), sets_pace=True)
    woken: list[int] = []
    written = 0
    piece = b"x" * 65_536
    while journal.put("stdout", piece, lambda: woken.append(1)):
        written += len(piece)
    written += len(piece)
    assert written < 1 << 20
    assert woken == []
    parts = _all(reader)
    assert woken == [1]
    assert sum(len(part.text) for part in parts) == written
    assert all(not part.skipped for part in parts)


async def test_without_one_the_newest_is_held_and_the_rest_counted() -> None:
    """The beginning, too; a reader is told what it missed."""
    journal = _journal(100, 30_000)
    resumed = asyncio.Event()
    for number in range(100):
        journal.put("stdout", f"{number:05}".encode() * 1000, resumed.set)
    await asyncio.wait_for(resumed.wait(), 30)
    parts = _all(journal.reader(Offsets()))
    assert parts[0].text.startswith("00000")
    assert parts[-1].text.endswith("00099")
    assert sum(part.skipped + len(part.text) for part in parts) == 500_000
    assert sum(len(part.text) for part in parts) < 60_000


async def test_many_small_pieces_cost_no_more_than_their_room() -> None:
    """Pieces that cannot be joined are counted for what they cost."""
    journal = _journal(1000, 10_000)
    for _ in range(10_000):
        journal.put("stdout", b"o", _nothing)
        journal.put("stderr", b"e", _nothing)
    assert len(list(journal.entries_from(0))) < 200


async def test_the_code_waits_for_small_pieces_as_for_large_ones() -> None:
    """They are as dear to whoever reads them, who gets no more of them at a time than he can tell of at once."""
    journal = _journal()
    reader = journal.reader(Offsets(), sets_pace=True)
    woken: list[int] = []
    count = 1
    while journal.put(("stdout", "stderr")[count % 2], b"x", lambda: woken.append(1)):
        count += 1
    assert count < 10_000
    batches = []
    while parts := reader.read():
        batches.append(len(parts))
    assert woken == [1]
    assert sum(batches) == count
    assert max(batches) < 10_000


async def test_many_small_pieces_that_are_all_held_are_put_together() -> None:
    """Nothing is lost of them, whoever reads meanwhile, but in which order the two streams were written."""
    journal = OutputJournal(sys.maxsize, 0, 0)
    reader = journal.reader(Offsets())
    wanted = {"stdout": "", "stderr": ""}
    found: list[Part] = []
    for number in range(30_000):
        name = ("stdout", "stderr")[number % 2]
        wanted[name] += chr(97 + number % 26)
        journal.add(name, wanted[name][-1].encode())
        if number % 17 == 0:
            found += reader.read()
    journal.end()
    assert len(list(journal.entries_from(0))) < 8_300
    assert _texts(found + _all(reader)) == wanted
    assert _texts(_all(journal.reader(Offsets()))) == wanted


async def test_a_reader_that_lets_go_frees_the_code() -> None:
    """What waits for it goes on, and is not held for it."""
    journal = _journal(10, 10)
    reader = journal.reader(Offsets(), sets_pace=True)
    woken: list[int] = []
    while journal.put("stdout", b"x" * 65_536, lambda: woken.append(1)):
        pass
    journal.free(reader)
    assert woken == [1]
    assert len(list(journal.entries_from(0))) <= 2


async def test_a_position_is_begun_at() -> None:
    """In the middle of a piece, and beyond all that there is."""
    journal = _journal()
    journal.put("stdout", b"hello", _nothing)
    journal.put("stderr", b"world", _nothing)
    parts = _all(journal.reader(Offsets({"stdout": 2, "stderr": 9})))
    assert [(part.stream, part.text) for part in parts] == [("stdout", "llo")]
