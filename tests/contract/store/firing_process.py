"""A process that starts a run for one tick of a schedule after the other, as fast as it can, beside others like it."""

import asyncio
import os
import sys
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from sandgate.core.errors import StoreUnavailable
from sandgate.core.ids import ScheduleId
from sandgate.core.trigger import TriggerType
from sandgate.store.base import RunChange
from sandgate.store.connections import Location
from sandgate.store.sql_store import SqlStore
from tests.contract.store.records import a_run

MINUTE = timedelta(minutes=1)


async def _main(location: Location, schedule_id: ScheduleId) -> None:
    store = SqlStore(location, read_threads=1, checkpoint=False)
    await store.open()
    while True:
        # On a slow disk the others may have the database for longer than it is waited for.
        with suppress(StoreUnavailable):
            await _fire(store, schedule_id)


async def _fire(store: SqlStore, schedule_id: ScheduleId) -> None:
    schedule = await store.schedules.find(schedule_id)
    assert schedule is not None
    tick = schedule.next_tick_at
    assert tick is not None
    marks = {"trigger_type": TriggerType.SCHEDULE, "trigger_id": schedule_id, "trigger_at": tick}
    run = a_run(schedule.workflow_id, **marks)
    after = replace(schedule, next_tick_at=tick + MINUTE, due_at=tick + MINUTE, last_tick_at=tick)
    if await store.schedules.fire(schedule, after, RunChange(run)):
        os.write(1, b"x\n")


if __name__ == "__main__":
    place = sys.argv[1]
    asyncio.run(_main(place if "://" in place else Path(place), ScheduleId(sys.argv[2])))
