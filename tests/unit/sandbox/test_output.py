"""One pipe of an execution, read as it comes or at the end, and kept as far as it may be."""

import asyncio
import fcntl
import gc
import os
import time
import tracemalloc

import pytest

from sandgate.core.limits import MIB
from sandgate.sandbox.output import OutputStream
from tests.unit.sandbox.conftest import settle


def _pipe() -> tuple[int, int]:
    read, write = os.pipe()
    os.set_blocking(read, False)
    return read, write


@pytest.mark.parametrize("length", [0, 9, 10, 11, 5000])
async def test_stream_keeps_to_its_cap(length: int, no_leak: None) -> None:
    """Exactly so many bytes, and a word when there were more."""
    read, write = _pipe()
    stream = OutputStream(read, 10, 10_000, pytest.fail)
    os.write(write, b"x" * length)
    stream.finish()
    stream.finish()
    stream.watch()
    assert (stream.kept(), stream.truncated) == (b"x" * min(length, 10), length > 10)
    os.close(write)


async def test_last_read_is_bounded(no_leak: None) -> None:
    """Somebody who fills the pipe as fast as it is emptied does not keep the gateway at it."""
    read, write = _pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, MIB)
    os.write(write, b"x" * MIB)
    stream = OutputStream(read, 2 * MIB, MIB, pytest.fail)
    stream.finish()
    assert stream.kept() == b"x" * MIB
    os.close(write)


async def test_small_pieces_are_kept_as_what_they_are(no_leak: None) -> None:
    """However many of them an output comes in, it takes up its bytes and little more."""
    read, write = os.pipe2(os.O_DIRECT | os.O_NONBLOCK)
    count = fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, MIB) // os.sysconf("SC_PAGE_SIZE")
    pieces = [bytes((number // 7, number % 251)) for number in range(count)]
    for piece in pieces:
        os.write(write, piece)
    stream = OutputStream(read, MIB, MIB, pytest.fail)
    tracemalloc.start()
    stream.finish()
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert stream.kept() == b"".join(pieces)
    assert taken < 8 * count
    os.close(write)


@pytest.mark.parametrize(("length", "at_once"), [(0, False), (4096, False), (4097, True), (60_000, True)])
async def test_a_stream_is_watched_soon(length: int, at_once: bool, no_leak: None) -> None:
    """What has filled a part of its pipe at once, so that nobody waits for room; the rest a little later, or never."""
    read, write = _pipe()
    stream = OutputStream(read, MIB, MIB, pytest.fail)
    os.write(write, b"x" * length)
    stream.watch_soon()
    assert stream._watched is at_once
    os.write(write, b"y")
    await settle(lambda: stream.kept() == b"x" * length + b"y")
    stream.finish()
    os.close(write)


async def test_a_stream_that_has_ended_is_not_watched_later(no_leak: None) -> None:
    """Its number may be another's by then."""
    read, write = _pipe()
    stream = OutputStream(read, MIB, MIB, pytest.fail)
    stream.watch_soon()
    stream.finish()
    other, other_write = _pipe()
    assert other == read
    os.write(other_write, b"z")
    await asyncio.sleep(0.03)
    assert (stream._watched, os.read(other, 9)) == (False, b"z")
    for end in (write, other, other_write):
        os.close(end)


async def test_stream_that_ends_early(no_leak: None) -> None:
    """The end of a pipe is no reason to look at it again and again."""
    read, write = _pipe()
    stream = OutputStream(read, 10, 10, pytest.fail)
    stream.watch()
    os.write(write, b"x")
    os.close(write)
    await settle(lambda: stream.kept())
    gc.collect()
    await asyncio.sleep(0.005)
    busy = time.process_time()
    await asyncio.sleep(0.2)
    assert time.process_time() - busy < 0.1
    stream.finish()
    assert stream.kept() == b"x"
