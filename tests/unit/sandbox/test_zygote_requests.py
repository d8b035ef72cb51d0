"""A zygote clones nothing for a request that has come with other descriptors than it says."""

import os
import socket
from types import SimpleNamespace
from typing import Any

import pytest

from sandgate_agent import wire
from sandgate_agent.zygote import Zygote, _entering


@pytest.mark.parametrize("count", [1, 2, 7, 10, 12])
def test_descriptors_that_are_missing_are_noticed(
    count: int, capsys: pytest.CaptureFixture[str], no_leak: None
) -> None:
    """The kernel leaves out what a process has no room for: a namespace must not be taken for something else."""
    zygote: Any = Zygote.__new__(Zygote)
    zygote._start = lambda _words: SimpleNamespace(namespaces=5, entries=4)
    zygote.clone(wire.pack_numbered(wire.CLONE, 1), [os.open(os.devnull, os.O_RDONLY) for _ in range(count)])
    assert capsys.readouterr().err == f"sandgate: {count} descriptors came with a request\n"


def test_a_clone_writes_to_all_files_of_its_groups_before_it_says_so(no_leak: None) -> None:
    """And keeps none of them; without any it says nothing."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pipes = [os.pipe() for _ in range(3)]
    entering = _entering([write for _read, write in pipes], far.fileno())
    for call in entering[:-1]:
        assert call() >= 0
    # The end behind the text: nobody holds the files any more.
    assert [os.read(read, 9) + os.read(read, 9) for read, _write in pipes] == [b"0"] * 3
    assert entering[-1]() == 1
    assert near.recv(9) == wire.ENTERED
    assert _entering([], far.fileno()) == []
    for end in (near, far):
        end.close()
    for read, _write in pipes:
        os.close(read)
