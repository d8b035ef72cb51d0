"""Runs stay with the process that works on them, and none is forgotten."""

from typing import Any

import pytest

from sandgate.core.errors import StoreUnavailable
from sandgate.store.base import RunChange
from sandgate.store.sql_store import SqlStore
from sandgate.workflows.leases import LeaseKeeper
from tests.sqlite_store import database_path, empty_database, store
from tests.unit.workflows.stand import OWNER, Stand, ask, stands

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
