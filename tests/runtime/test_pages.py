"""What forks copy: the pages that are written to after each fork are most of what an execution and a sandbox cost."""

from pathlib import Path

import pytest

from tests.runtime.hosts import Bench, available_versions, until

pytestmark = pytest.mark.needs_root_namespaces

EXECUTIONS = 10
# Some 40; a hundred when each call goes through functions and attributes of its own.
MOST_OF_FORKER = 60
# Some 200 to 220 until it has opened a file; up to 280 when each step goes through functions and attributes of its own.
MOST_OF_CHILD = 240
# Some 10, of the code itself; 360 with those that made it run.
MOST_COLLECTED = 40
# Some 350 to 600.
MOST_OF_SANDBOX_KIB = 800


def _faults(pid: int) -> int:
    """Pages that a process has had copied or mapped. Source: proc_pid_stat(5), ``minflt``."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[7])


@pytest.mark.parametrize("version", available_versions())
async def test_forker_touches_few_pages(version: str, standard: Bench) -> None:
    """Between two forks it uses objects that lie together."""
    before = set(standard.host.forkers())
    sandbox = await standard.make(version)
    (forker,) = set(standard.host.forkers()) - before
    for _ in range(3):
        assert await standard.works(sandbox)
    start = _faults(forker)
    for _ in range(EXECUTIONS):
        assert await standard.works(sandbox)
    assert (_faults(forker) - start) / EXECUTIONS <= MOST_OF_FORKER


@pytest.mark.parametrize("version", available_versions())
async def test_child_touches_few_pages(version: str, standard: Bench) -> None:
    """From its fork to its code it uses objects that lie together, and its collection is for what the code has made."""
    sandbox = await standard.make(version)
    count = "open('/proc/self/stat').read().rpartition(')')[2].split()[7]"
    for code, most in ((f"print({count})", MOST_OF_CHILD), ("import gc; print(len(gc.get_objects()))", MOST_COLLECTED)):
        for _ in range(3):
            ran = await standard.run(sandbox, code)
        assert int(ran.stdout) <= most


def _own_kib(pid: int) -> int:
    """Memory that only this process has. Source: proc_pid_smaps_rollup(5)."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


@pytest.mark.parametrize("version", available_versions())
async def test_idle_sandbox_keeps_little_of_its_own(version: str, standard: Bench) -> None:
    """A forker and a child that waits share nearly all of their memory with the zygote and with each other."""
    before = set(standard.host.processes())
    await standard.make(version)
    await until(lambda: len(set(standard.host.processes()) - before) == 2)
    own = {pid: _own_kib(pid) for pid in set(standard.host.processes()) - before}
    assert sum(own.values()) <= MOST_OF_SANDBOX_KIB
