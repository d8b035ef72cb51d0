"""Output that is looked at and left, when the code at the other end does what no ordinary code does."""

import asyncio
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sandgate.sandbox.kept_output import Keeping, KeptOutputStream

CAP = 100_000
Code = Callable[[int], None]


class Interrupted(Keeping):
    """Lets the code do something after each look."""

    code: Callable[[], None] = staticmethod(lambda: None)

    def look(self, pipe: int) -> bytes:
        """As ever."""
        seen = super().look(pipe)
        self.code()
        return seen


@pytest.fixture
def keeping(tmp_path: Path) -> Iterator[Interrupted]:
    """What all streams share."""
    made = Interrupted(tmp_path / "spool")
    yield made
    made.close()


def open_pipe() -> tuple[int, int]:
    """An execution's pipe."""
    out, into = os.pipe()
    os.set_blocking(out, False)
    return out, into


def stream_of(keeping: Keeping, out: int, name: str = "stdout") -> KeptOutputStream:
    """The gateway's side of it."""
    path = keeping.path("env-1", "tag", name)
    return KeptOutputStream(out, CAP, CAP, lambda: None, keeping=keeping, path=path)


def recovered(keeping: Keeping, out: int) -> bytes:
    """What the next gateway finds."""
    later = stream_of(keeping, os.open(f"/proc/self/fd/{out}", os.O_RDONLY | os.O_NONBLOCK))
    later.recover()
    later.finish()
    return later.kept()


def test_packets_are_whole_and_stay_with_who_wrote_them(keeping: Keeping) -> None:
    """A pipe in packet mode gives a reader one packet at a time; the rest must not be shown to another environment."""
    out, into = open_pipe()
    other, other_into = open_pipe()
    fcntl.fcntl(into, fcntl.F_SETFL, os.O_DIRECT)
    for number in range(5):
        os.write(into, b"secret%d" % number)
    os.write(other_into, b"mine")
    assert keeping.look(out) == b"secret0secret1secret2secret3secret4"
    assert keeping.look(other) == b"mine"
    for end in (out, into, other, other_into):
        os.close(end)


def test_a_pipe_that_has_grown_is_seen_whole(keeping: Keeping) -> None:
    """However many pieces it holds."""
    out, into = open_pipe()
    copy = os.dup(out)
    fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, 1 << 20)
    fcntl.fcntl(into, fcntl.F_SETFL, os.O_DIRECT)
    for _packet in range(250):
        os.write(into, b"p")
    stream = stream_of(keeping, out)
    stream.finish()
    assert stream.kept() == b"p" * 250
    assert recovered(keeping, copy) == b"p" * 250
    os.close(copy)
    os.close(into)


@pytest.mark.parametrize("closes", [False, True])
@pytest.mark.parametrize("length", [50_000, CAP + 50_000])
def test_code_that_reads_its_own_pipe_holds_nobody_up(keeping: Interrupted, length: int, *, closes: bool) -> None:
    """Between the look and the move there may be nothing left, now or for ever."""
    out, into = open_pipe()
    fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, 1 << 20)
    os.write(into, b"x" * length)

    def drain() -> None:
        own = os.open(f"/proc/self/fd/{into}", os.O_RDONLY | os.O_NONBLOCK)
        while os.read(own, 1 << 20) and not closes:
            break
        os.close(own)
        if closes:
            os.close(into)

    keeping.code = drain
    stream = stream_of(keeping, out)
    stream.finish()
    assert stream.kept() == b"x" * min(length, CAP)
    if not closes:
        os.close(into)


@pytest.mark.parametrize("length", [50_000, CAP])
def test_a_folder_that_cannot_be_written_costs_no_output(tmp_path: Path, length: int) -> None:
    """The gateway that has begun it reads on without a file."""
    (tmp_path / "file").touch()
    keeping = Keeping(tmp_path / "file")
    out, into = open_pipe()
    fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, 1 << 20)
    os.write(into, b"x" * length)
    stream = stream_of(keeping, out)
    assert stream._read() == length
    os.write(into, b"y" * 10)
    stream.finish()
    assert stream.kept() == (b"x" * length + b"y" * 10)[:CAP]
    os.close(into)
    keeping.close()


def test_a_disk_that_is_full_costs_no_output(keeping: Keeping, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor when it is full in the middle."""
    out, into = open_pipe()
    os.write(into, b"x" * 50_000)
    stream = stream_of(keeping, out)
    assert stream._read() == 50_000
    os.close(stream._file)
    monkeypatch.setattr(stream, "_file", os.open("/dev/full", os.O_RDWR))
    os.write(into, b"y" * 10)
    stream.finish()
    assert stream.kept() == b"x" * 50_000 + b"y" * 10
    os.close(into)


async def test_a_pipe_full_of_scraps_is_moved(keeping: Keeping, monkeypatch: pytest.MonkeyPatch) -> None:
    """Code that waits for room in its pipe goes on, though there is little in it."""
    monkeypatch.setattr("sandgate.sandbox.kept_output._MOST_STILL_S", 0.02)
    out, into = open_pipe()
    copy = os.dup(out)
    os.set_blocking(into, False)
    fcntl.fcntl(into, fcntl.F_SETFL, os.O_DIRECT | os.O_NONBLOCK)
    scraps = 0
    stream = stream_of(keeping, out)
    stream.watch()
    async with asyncio.timeout(30):
        while scraps < 50:
            try:
                scraps += os.write(into, b"s")
            except BlockingIOError:
                await asyncio.sleep(0.002)
    stream.finish()
    assert stream.kept() == b"s" * 50
    assert recovered(keeping, copy) == b"s" * 50
    os.close(copy)
    os.close(into)
