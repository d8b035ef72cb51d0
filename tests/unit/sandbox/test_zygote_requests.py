"""A zygote clones nothing for a request that has come with other descriptors than it says."""

import os
from types import SimpleNamespace
from typing import Any

import pytest

from sandgate_agent import wire
from sandgate_agent.zygote import Zygote


@pytest.mark.parametrize("count", [1, 2, 7, 10, 12])
def test_descriptors_that_are_missing_are_noticed(
    count: int, capsys: pytest.CaptureFixture[str], no_leak: None
) -> None:
    """The kernel leaves out what a process has no room for: a namespace must not be taken for something else."""
    zygote: Any = Zygote.__new__(Zygote)
    zygote._start = lambda _words: SimpleNamespace(namespaces=5, entries=4)
    zygote.clone(wire.pack_numbered(wire.CLONE, 1), [os.open(os.devnull, os.O_RDONLY) for _ in range(count)])
    assert capsys.readouterr().err == f"sandgate: {count} descriptors came with a request\n"
