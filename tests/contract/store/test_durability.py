"""What was acknowledged survives the death of the process."""

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sandgate.core.ids import ExecutionId
from sandgate.core.page import PageRequest
from sandgate.store.connections import Location
from sandgate.store.revisions import migrate
from sandgate.store.sql_store import SqlStore
from tests.contract.store.records import a_running_execution, ended

ROOT = Path(__file__).parents[3]
MODULE = "tests.contract.store.acknowledging_writer"


def _killed_after(location: Location, acknowledged: int) -> list[ExecutionId]:
    """What a writer acknowledges until it is killed, which is some time after it has acknowledged so many."""
    process = subprocess.Popen([sys.executable, "-m", MODULE, str(location)], cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout as output:
        lines = [output.readline() for _ in range(acknowledged)]
        process.send_signal(signal.SIGKILL)
        lines += output.read().splitlines()
    assert process.wait() == -signal.SIGKILL
    return [ExecutionId(line.decode().strip()) for line in lines]


async def _all_ids(store: SqlStore) -> set[ExecutionId]:
    found: set[ExecutionId] = set()
    request = PageRequest(limit=200)
    while True:
        page = await store.executions.list(a_running_execution().environment_id, request)
        for item in page.items:
            assert item == ended(item, stdout=item.execution_id * 400)
            found.add(item.execution_id)
        if page.next_before_id is None:
            return found
        request = PageRequest(limit=200, before_id=page.next_before_id)


@pytest.mark.parametrize("seed", [1, 2])
async def test_what_was_acknowledged_survives_a_kill(location: Location, seed: int) -> None:
    """A process is killed at random moments, again and again on the same database; no whole row is ever missing."""
    migrate(location)
    points = random.Random(seed)
    acknowledged: set[ExecutionId] = set()
    for _ in range(2):
        acknowledged.update(_killed_after(location, points.randrange(1, 120)))
    store = SqlStore(location)
    await store.open()
    assert acknowledged <= await _all_ids(store)
    await store.close()
