"""Processes are killed while schedules tick: every tick has its one run, whoever was there to start it."""

import itertools
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from bench.client import Connection
from tests.crash.server_process import GATEWAY, CrashServer, until
from tests.postgres import PostgresServer, postgres_server

__all__ = ["postgres_server"]

pytestmark = pytest.mark.needs_root_namespaces
ORCHESTRATOR = "/api/v1/orchestrator"
SETTINGS = {"SANDGATE_DRAIN_GRACE_S": "0.3"}


@pytest.fixture
def two_servers(postgres_server: PostgresServer) -> Iterator[tuple[CrashServer, CrashServer]]:
    """Two servers of their own state on one database."""
    url = postgres_server.create_database("schedules")
    # The gateways are other users than the database's.
    os.chmod(parse_qs(urlsplit(url).query)["host"][0], 0o711)
    with ExitStack() as stack:
        stack.callback(postgres_server.drop_database, "schedules")
        first, second = (stack.enter_context(CrashServer({**SETTINGS, "SANDGATE_DATABASE_URL": url})) for _ in range(2))
        yield first, second


def _begin(connection: Connection, **fields: Any) -> tuple[str, str]:
    """A workflow that does next to nothing, and a schedule of it that ticks every second."""
    steps = [{"name": "nap", "type": "sleep", "config": {"seconds": 0}}]
    made = connection.expect(201, "POST", f"{ORCHESTRATOR}/workflows", {"name": "w", "steps": steps})
    wanted = {"workflow_id": made["workflow_id"], "interval": 1, "catch_up": "all", "catch_up_limit": 100, **fields}
    schedule = connection.expect(201, "POST", f"{ORCHESTRATOR}/schedules", wanted)
    return made["workflow_id"], schedule["schedule_id"]


def _runs(connection: Connection, workflow_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor = ""
    while cursor is not None:
        path = f"{ORCHESTRATOR}/runs?workflow_id={workflow_id}&limit=200" + (f"&cursor={cursor}" if cursor else "")
        page = connection.expect(200, "GET", path)
        found += page["runs"]
        cursor = page["next_cursor"]
    return found


def _until_ticks(server: CrashServer, workflow_id: str, count: int) -> None:
    """Until so many ticks have started a run."""

    def seen() -> bool:
        with server.reconnect() as connection:
            return len(_runs(connection, workflow_id)) >= count

    until(seen, f"{count} ticks", limit_s=60)


def _until_tick_after(server: CrashServer, workflow_id: str, at: datetime) -> None:
    """Until a tick that was due after this has started its run, and with it all that were due before."""

    def seen() -> bool:
        with server.reconnect() as connection:
            return any(datetime.fromisoformat(run["trigger"]["at"]) > at for run in _runs(connection, workflow_id))

    until(seen, f"a tick after {at}", limit_s=60)


def _check(server: CrashServer, workflow_id: str, schedule_id: str) -> None:
    """Every second from the first tick to the last has one run, and every run comes to its end."""
    with server.until_ready() as connection:
        connection.expect(200, "PATCH", f"{ORCHESTRATOR}/schedules/{schedule_id}", {"paused": True})

        def all_over() -> bool:
            return all(run["status"] == "succeeded" for run in _runs(connection, workflow_id))

        until(all_over, "all runs are over", limit_s=60)
        ticks = sorted(datetime.fromisoformat(run["trigger"]["at"]) for run in _runs(connection, workflow_id))
    apart = [(later - earlier).total_seconds() for earlier, later in itertools.pairwise(ticks)]
    assert apart == [1.0] * (len(ticks) - 1), f"ticks lost or doubled: {ticks}"


@pytest.mark.needs_postgresql
def test_two_servers_share_the_ticks_of_one_schedule(two_servers: tuple[CrashServer, CrashServer]) -> None:
    """Gateways are killed in turn, in the middle of ticks: no second is without a run, and none has two."""
    first, second = two_servers
    with first.connect() as connection:
        workflow_id, schedule_id = _begin(connection)
    for victim, survivor, count in ((first, second, 2), (second, first, 5), (first, second, 8)):
        _until_ticks(survivor, workflow_id, count)
        victim.kill(GATEWAY)
    _until_ticks(second, workflow_id, 10)
    _check(first, workflow_id, schedule_id)


def test_ticks_of_a_time_without_a_server() -> None:
    """With ``all`` they run when the server is there again, each once; with ``last`` they start one run."""
    with CrashServer(SETTINGS) as server:
        with server.connect() as connection:
            every, last = _begin(connection), _begin(connection, catch_up="last")
        _until_ticks(server, every[0], 2)
        _until_ticks(server, last[0], 1)
        server.kill_all()
        until(lambda: not server.listeners(), "the port is free")
        time.sleep(3)  # waits: ticks pass by while nobody is there
        back_at = datetime.now(UTC)
        server.start()
        _until_tick_after(server, last[0], back_at)
        with server.connect() as connection:
            path = f"{ORCHESTRATOR}/schedules/{last[1]}"
            connection.expect(200, "PATCH", path, {"paused": True})
            ticks = sorted(datetime.fromisoformat(run["trigger"]["at"]) for run in _runs(connection, last[0]))
            shown = connection.expect(200, "GET", path)
        _until_tick_after(server, every[0], back_at)
        _check(server, *every)
    assert max((later - earlier).total_seconds() for earlier, later in itertools.pairwise(ticks)) >= 3
    assert len(set(ticks)) == len(ticks)
    assert shown["last_skipped"]["reason"] == "missed"
