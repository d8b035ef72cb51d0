"""Servers that share a database: who lives, and what becomes of what the dead had."""

from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from sandgate.core.idempotency import KeyClaim
from sandgate.core.states import EnvironmentStatus, ExecutionStatus
from sandgate.store.base import Remains
from sandgate.store.connections import Location, connector_for
from sandgate.store.schema import servers
from sandgate.store.sql_store import SqlStore
from tests.contract.store.records import NOW, OWNER, a_running_execution, an_environment

LEASE_S = 60.0
REQUEST = bytes(32)


def _run_out(location: Location, *server_ids: str) -> None:
    """As if their leases had been over for long, by whatever clock."""
    statement = sa.update(servers).where(servers.c.server_id.in_(server_ids)).values(lease_until=NOW - timedelta(1000))
    with connector_for(location, checkpoint=False).writer.begin() as connection:
        connection.execute(statement)


async def _claim(store: SqlStore, server: str) -> Any:
    claim = KeyClaim(OWNER, f"key of {server}", "claim-1", server)
    return await store.idempotency.claim(claim, REQUEST, at=NOW, fresh_after=NOW - timedelta(1))


async def test_the_dead_are_buried_with_all_they_had(store: SqlStore, location: Location) -> None:
    """Environments, executions and claims of the dead end; those of the living are left alone."""
    rows = {}
    for server in ("dead", "live"):
        await store.servers.join(server, NOW, LEASE_S)
        row = rows[server] = an_environment(server_id=server)
        await store.environments.insert(row)
        await store.executions.insert_running(a_running_execution(environment_id=row.environment_id))
        assert await _claim(store, server) is None
    assert await store.servers.list_dead(NOW) == []
    assert await store.servers.bury("dead", NOW) is None
    _run_out(location, "dead")
    assert await store.servers.list_dead(NOW) == ["dead"]
    assert await store.servers.bury("dead", NOW) == Remains(environments=1, executions=1, keys=1)
    assert await store.servers.bury("dead", NOW) is None
    assert await store.servers.list_dead(NOW) == []
    found = {server: await store.environments.find(row.environment_id) for server, row in rows.items()}
    assert {server: row.status for server, row in found.items() if row} == {
        "dead": EnvironmentStatus.FAILED,
        "live": EnvironmentStatus.CREATING,
    }
    assert [row.server_id for row in await store.environments.list_live()] == ["live"]
    assert await store.environments.list_live("dead") == []
    assert await store.executions.mark_lost(NOW, server_id="dead") == []
    (lost,) = await store.executions.mark_lost(NOW, server_id="live")
    execution = await store.executions.find(lost)
    assert execution is not None
    assert (execution.environment_id, execution.status) == (rows["live"].environment_id, ExecutionStatus.LOST)
    assert await _claim(store, "dead") is None
    assert await _claim(store, "live") is not None


async def test_who_comes_back_learns_that_it_was_buried(store: SqlStore, location: Location) -> None:
    """Once; a renewal in time is nothing to tell."""
    await store.servers.join("one", NOW, LEASE_S)
    assert await store.servers.renew("one", NOW, LEASE_S)
    _run_out(location, "one")
    assert await store.servers.renew("one", NOW, LEASE_S)
    _run_out(location, "one")
    assert await store.servers.bury("one", NOW) == Remains(0, 0, 0)
    assert not await store.servers.renew("one", NOW, LEASE_S)
    assert await store.servers.renew("one", NOW, LEASE_S)
    await store.servers.leave("one")
    assert not await store.servers.renew("one", NOW, LEASE_S)


async def test_what_is_nobodys_is_found(store: SqlStore) -> None:
    """A server that was buried may have written once more before it noticed, and died: the next one to come sees it."""
    await store.environments.insert(an_environment(server_id="forgotten"))
    ended = an_environment(server_id="ended", status=EnvironmentStatus.EXPIRED, ended_at=NOW)
    await store.environments.insert(ended)
    await _claim(store, "claims only")
    await store.servers.join("one", NOW, LEASE_S)
    assert await store.servers.list_dead(NOW) == ["claims only", "forgotten"]
    assert await store.servers.bury("forgotten", NOW) == Remains(environments=1, executions=0, keys=0)


async def test_rows_of_no_server_are_every_servers(store: SqlStore) -> None:
    """What versions before this one wrote is adopted by whoever comes, and buried by nobody."""
    await store.environments.insert(an_environment())
    assert len(await store.environments.list_live("one")) == 1
    await store.servers.join("one", NOW, LEASE_S)
    assert await store.servers.list_dead(NOW) == []
