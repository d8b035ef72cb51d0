"""Who holds the most memory, asked of this machine's own processes."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from sandgate_agent import greedy

MIB = 1 << 20


@contextmanager
def child(hold: str) -> Iterator[int]:
    """A process that holds 32 MiB ``in pages`` or ``in a file``, or ``nothing``."""
    holding = {
        "nothing": "",
        "in pages": "held = b'x' * (32 << 20)",
        "in a file": "held = os.memfd_create('held')\nfor _ in range(32): os.write(held, b'x' * (1 << 20))",
    }
    code = f"import os\n{holding[hold]}\nos.write(1, b'x')\nos.read(0, 1)"
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as started:
        assert started.stdout is not None
        assert started.stdout.read(1) == b"x"
        yield started.pid


@contextmanager
def nobody_but(*pids: int) -> Iterator[None]:
    """As if these were all processes of this machine, where others start and end theirs."""
    real = os.listdir
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "listdir", lambda path: list(map(str, pids)) if path == "/proc" else real(path))
        yield


def test_pages_are_found_first() -> None:
    """And who has done nothing yet is not among those that hold a lot."""
    with child("nothing") as idle, child("in pages") as large, nobody_but(idle, large):
        (found,) = greedy.rank(set(), greedy.resident_bytes(idle))
        assert found[1] == large
        assert 30 * MIB < found[0] < 40 * MIB


def test_files_without_a_name_are_found_when_pages_are_not() -> None:
    """They are in no process's memory."""
    with child("nothing") as idle, child("in a file") as large, nobody_but(idle, large):
        ((held, pid),) = greedy.rank(set(), greedy.resident_bytes(idle))
        assert pid == large
        assert held >= 32 * MIB


def test_one_that_is_gone_holds_nothing() -> None:
    """It ends while it is looked at, as a rule."""
    with child("nothing") as gone:
        pass
    assert greedy.resident_bytes(gone) == greedy.unlinked_bytes(gone) == 0
