"""What all processes of the machine share, and whether environments could use it up."""

from collections.abc import Callable
from pathlib import Path

import pytest

from sandgate.sandbox.pools_probe import MOST_TERMINALS, memory_of_machine, probe_pools

GIB = 1 << 30


@pytest.fixture
def told(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder in which the kernel says what there may be."""

    def tell(files: int, ptys: int = 4096, kept: int = 1024) -> Path:
        for name, value in (("fs/file-max", files), ("kernel/pty/max", ptys), ("kernel/pty/reserve", kept)):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(f"{value}\n")
        return tmp_path

    return tell


def test_open_files_are_bounded_by_memory_or_named(told: Callable[..., Path]) -> None:
    """An environment's memory bounds its files where the machine's own bound is beyond all memory."""
    for most, ok in ((GIB // 192, True), (GIB // 192 - 1, False), ((1 << 63) - 1, True), (0, False)):
        files, _terminals = probe_pools(GIB, 1, told(most))
        assert (files.ok, bool(files.mend), files.required_by) == (ok, not ok, frozenset())
    assert files.mend == "sysctl -w fs.file-max=9223372036854775807, as systemd does"


def test_terminals_are_enough_for_all_or_it_is_said_how_many_there_are(told: Callable[..., Path]) -> None:
    """The host keeps its own in any case; what is advised is what would be enough, as far as the kernel goes."""
    _files, terminals = probe_pools(GIB, 48, told(1))
    assert (terminals.ok, terminals.mend) == (True, "")
    assert terminals.found == "3,072 for environments, 64 each; 1,024 for the host"
    _files, terminals = probe_pools(GIB, 49, told(1))
    assert (terminals.ok, terminals.mend) == (False, f"sysctl -w kernel.pty.max={49 * MOST_TERMINALS + 1024}")
    _files, terminals = probe_pools(GIB, 20_000, told(1))
    assert terminals.mend == "sysctl -w kernel.pty.max=1048576"


def test_this_machine_tells(tmp_path: Path) -> None:
    """And one that does not is taken for one that has nothing."""
    files, terminals = probe_pools(memory_of_machine(), 1)
    assert (memory_of_machine() > GIB // 4, terminals.ok) == (True, True)
    assert files.ok or files.found.startswith("at most ")
    assert [each.ok for each in probe_pools(GIB, 1, tmp_path)] == [False, False]
