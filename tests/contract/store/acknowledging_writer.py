"""A process that ends executions as fast as it can, and names each on its standard output once that is durable."""

import asyncio
import os
import sys
from pathlib import Path

from sandgate.store.connections import Location
from sandgate.store.sql_store import SqlStore
from tests.contract.store.records import a_running_execution, ended

WRITERS = 8


async def _write(store: SqlStore) -> None:
    while True:
        execution = a_running_execution()
        # A record that spreads over many pages, so that a half-written one would be seen.
        await store.executions.finish(ended(execution, stdout=execution.execution_id * 400))
        os.write(1, f"{execution.execution_id}\n".encode())


async def _main(location: Location) -> None:
    store = SqlStore(location)
    await store.open()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(WRITERS):
            tasks.create_task(_write(store))


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1] if "://" in sys.argv[1] else Path(sys.argv[1])))
