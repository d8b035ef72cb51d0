"""Runs stay with the process that works on them, and none is forgotten."""

import asyncio
from typing import Any

import pytest

from sandgate.core.errors import StoreUnavailable
from sandgate.core.run import Run
from sandgate.store.base import RunChange
from sandgate.store.sql_store import SqlStore
from sandgate.workflows import leases
from sandgate.workflows.leases import LeaseKeeper
from tests.sqlite_store import database_path, empty_database, store
from tests.unit.workflows.stand import LIMIT_S, OWNER, Stand, ask, stands, until

__all__ = ["database_path", "empty_database", "store"]


def _keeper(stand: Stand) -> LeaseKeeper:
    return stand.engine._leases


async def test_a_run_whose_beginning_was_not_heard_of_is_found(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was written, but the word of that got lost: after a while the same process works on it."""
    insert = store.runs.insert

    async def insert_and_fail(change: RunChange, lease_s: float, **_: object) -> bool:
        await insert(change, lease_s)
        raise StoreUnavailable("lost on its way back", {"outcome": "unknown"})

    async with stands(store, "one") as [one]:
        monkeypatch.setattr(store.runs, "insert", insert_and_fail)
        with pytest.raises(StoreUnavailable):
            await one.start(ask())
        assert one.engine.live_count == 0
        # Once it could be one that has just been begun.
        await _keeper(one)._keep()
        assert one.engine.live_count == 0
        await _keeper(one)._keep()
        (run_id,) = one.engine.held()
        await one.service.decide(OWNER, run_id, "ask", approved=True, comment="")
        assert (await one.until_over(run_id)).status == "succeeded"


async def test_what_another_process_took_is_let_go(store: SqlStore) -> None:
    """It is noticed with the next renewal, and nothing of the run goes on here."""
    async with stands(store, "one", "two") as [one, two]:
        run = await one.start(ask())
        one.clock.advance(11)
        await _keeper(two)._take_free()
        assert list(two.engine.held()) == [run.run_id]
        await _keeper(one)._keep()
        assert not one.engine.held()


async def test_leases_are_renewed_while_a_run_is_taken_over(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what is worked on and of what is being taken over, however long that takes, also after a failed renewal."""
    monkeypatch.setattr(leases, "_RENEWALS_A_LEASE", 1000)
    async with stands(store, "one", "two") as [one, two]:
        load, renew = one.engine.graphs.load, store.runs.renew
        begun, may_end, faults = asyncio.Event(), asyncio.Event(), [StoreUnavailable("away for a moment")]

        async def load_late(*version: Any) -> Any:
            begun.set()
            await may_end.wait()
            return await load(*version)

        async def renew_late(*arguments: Any) -> Any:
            if begun.is_set() and faults:
                raise faults.pop()
            return await renew(*arguments)

        async def are_renewed(*runs: Run) -> bool:
            found = [await store.runs.find(run.run_id) for run in runs]
            return all(run and run.lease_until and run.lease_until > one.clock.now() for run in found)

        monkeypatch.setattr(one.engine.graphs, "load", load_late)
        monkeypatch.setattr(store.runs, "renew", renew_late)
        own, left = await one.start(ask()), await two.start(ask())
        one.clock.advance(11)
        await _keeper(one)._keep()
        taking = asyncio.create_task(_keeper(one)._take_free())
        async with asyncio.timeout(LIMIT_S):
            await begun.wait()
        one.clock.advance(11)
        assert one.engine.find(left.run_id) is None
        await until(lambda: are_renewed(own, left))
        assert not taking.done()
        may_end.set()
        await taking
        assert one.engine.held().keys() == {own.run_id, left.run_id}
        assert not faults


async def test_who_cannot_renew_for_long_lets_go(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of everything, once two leases have passed: another process may work on it by then."""

    async def fail(*_arguments: Any) -> None:
        raise StoreUnavailable("the database is away")

    async with stands(store, "one") as [one]:
        keeper = _keeper(one)
        await one.start(ask())
        monkeypatch.setattr(type(store.runs), "is_shared", True)
        with monkeypatch.context() as away:
            away.setattr(store.runs, "renew", fail)
            for seconds, held in ((0, 1), (19, 1), (2, 0)):
                one.clock.advance(seconds)
                with pytest.raises(StoreUnavailable):
                    await keeper._keep()
                keeper._give_up_in_time()
                assert len(one.engine.held()) == held
        # The database is back, and nobody has taken it.
        await keeper._keep()
        await keeper._keep()
        assert len(one.engine.held()) == 1


async def test_a_stopped_server_gives_its_runs_up(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one need not wait for the end of the lease."""
    monkeypatch.setattr(type(store.runs), "is_shared", True)
    async with stands(store, "one", "two") as [one, two]:
        run = await one.start(ask())
        await _keeper(two)._take_free()
        assert not two.engine.held()
        await one.service.stop()
        _keeper(two).stir(free=True)
        await _keeper(two)._take_free()
        assert list(two.engine.held()) == [run.run_id]
