"""What forks copy: the pages that are written to after each fork are most of what an execution and a sandbox cost."""

from pathlib import Path

import pytest

from tests.runtime.hosts import Bench, available_versions

pytestmark = pytest.mark.needs_root_namespaces

EXECUTIONS = 10
# Some 40; a hundred when each call goes through functions and attributes of its own.
MOST_OF_FORKER = 60


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
