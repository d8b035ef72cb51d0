"""What a build says: kept up to a bound, and followed from any position on."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandgate.environments.builds.log import BuildLog, LogEvents, read_log

NOWHERE = Path("/nonexistent/log")


@pytest.fixture
def log(tmp_path: Path) -> Iterator[BuildLog]:
    """One that keeps 200 bytes."""
    made = BuildLog(tmp_path / "log", 200)
    yield made
    if not made.has_ended:
        made.end()


async def _read(events: LogEvents) -> tuple[str, int]:
    text, position, ended = "", 0, False
    async for batch in events:
        for part in batch:
            assert not ended
            text, position, ended = text + part.text, part.position, part.is_last
    assert ended
    return text, position


def test_what_is_kept_is_in_the_file(log: BuildLog, tmp_path: Path) -> None:
    """As it was said, in UTF-8, whatever bytes came; the last line is remembered."""
    log.say("step")
    log.write(b"caf\xc3\xa9 \xff\0\nlast\n\n")
    assert log.kept.decode() == "== step\ncaf\u00e9 \ufffd\ufffd\nlast\n\n"
    assert (tmp_path / "log").read_bytes() == log.kept
    assert log.last_line == "last"


def test_what_is_too_much_is_left_out(log: BuildLog) -> None:
    """With a word about it, once; no character is cut in two."""
    for _round in range(3):
        log.write(("x" + "\u00e9" * 120).encode())
    assert log.kept.decode().startswith("x\u00e9")
    assert log.kept.decode().count("was not kept") == 1
    assert len(log.kept) < 300


async def test_it_is_followed_while_it_is_written(log: BuildLog) -> None:
    """To its end, from the beginning or from where somebody left off."""
    log.say("one")
    reading = asyncio.create_task(_read(LogEvents(log, NOWHERE, 0)))
    await asyncio.sleep(0)
    log.say("two")
    await asyncio.sleep(0)
    log.end()
    assert await reading == ("== one\n== two\n", 14)
    assert await _read(LogEvents(log, NOWHERE, 7)) == ("== two\n", 14)
    assert await _read(LogEvents(log, NOWHERE, 99)) == ("", 99)


async def test_long_logs_come_in_parts_of_whole_characters(tmp_path: Path) -> None:
    """Those of builds that are over, too, from their files."""
    text = "x" + "\u20ac\U0001f600\u00e9" * 30_000
    path = tmp_path / "one.log"
    path.write_text(text)
    assert (await _read(LogEvents(None, path, 0)))[0] == text
    assert (await _read(LogEvents(None, path, len(text.encode()) - 2)))[0] == "\u00e9"
    assert read_log(None, path) == text


async def test_a_log_that_is_gone_is_empty() -> None:
    """As is one that nobody has been able to write."""
    assert await _read(LogEvents(None, NOWHERE, 5)) == ("", 5)
    assert read_log(None, NOWHERE) == ""
