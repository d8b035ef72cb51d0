"""A server among others: it says that it lives, and buries only who could have said so and did not."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sandgate.cluster.membership import Membership
from sandgate.core.clock import ManualClock
from sandgate.core.errors import StoreUnavailable
from sandgate.store.base import Remains

LEASE_S = 60.0
ROUND_S = 20.0


class Rows:
    """The table of servers, by the clock of the test."""

    def __init__(self, *, is_shared: bool = True) -> None:
        self.is_shared = is_shared
        self.leases: dict[str, datetime] = {}
        self.buried: list[str] = []
        self.is_away = False
        self.loses_answers = False
        self.asked = 0

    async def join(self, server_id: str, now: datetime, lease_s: float) -> None:
        """See ``ServerStore``."""
        self._ask()
        self.leases[server_id] = now + timedelta(seconds=lease_s)

    async def renew(self, server_id: str, now: datetime, lease_s: float) -> bool:
        """See ``ServerStore``."""
        self._ask()
        held = server_id in self.leases
        self.leases[server_id] = now + timedelta(seconds=lease_s)
        if self.loses_answers:
            raise StoreUnavailable("lost", {"outcome": "unknown"})
        return held

    async def list_dead(self, now: datetime) -> Sequence[str]:
        """See ``ServerStore``."""
        self._ask()
        return [server_id for server_id, until in self.leases.items() if until <= now]

    async def bury(self, server_id: str, now: datetime) -> Remains | None:
        """See ``ServerStore``."""
        self._ask()
        self.buried.append(server_id)
        del self.leases[server_id]
        return Remains(1, 1, 1)

    async def leave(self, server_id: str) -> None:
        """See ``ServerStore``."""
        self._ask()
        self.leases.pop(server_id, None)

    def _ask(self) -> None:
        self.asked += 1
        if self.is_away:
            raise StoreUnavailable("away")


class Server:
    """One of them."""

    def __init__(self, rows: Rows, clock: ManualClock, name: str) -> None:
        self.told = 0
        self.fails = False
        self.membership = Membership(rows, clock, name, LEASE_S, self._hear)

    async def _hear(self) -> None:
        if self.fails:
            raise StoreUnavailable("away")
        self.told += 1


async def _rounds(clock: ManualClock, count: int, *servers: Server) -> None:
    for _round in range(count):
        clock.advance(ROUND_S)
        for server in servers:
            await server.membership.go_round()


async def _make(*names: str) -> tuple[Rows, ManualClock, list[Server]]:
    rows, clock = Rows(), ManualClock()
    servers = [Server(rows, clock, name) for name in names]
    for server in servers:
        await server.membership.join()
    return rows, clock, servers


async def test_the_silent_are_buried_and_the_others_are_not() -> None:
    """After a lease without a word."""
    rows, clock, (one, two) = await _make("one", "two")
    await _rounds(clock, 5, one, two)
    await _rounds(clock, 2, one)
    assert rows.buried == []
    await _rounds(clock, 1, one)
    assert rows.buried == ["two"]
    await _rounds(clock, 1, one, two)
    assert (one.told, two.told) == (0, 1)
    await _rounds(clock, 5, one, two)
    assert (rows.buried, one.told, two.told) == (["two"], 0, 1)


async def test_a_database_that_was_away_kills_nobody() -> None:
    """All leases have run out when it is back: whoever comes first waits for a lease before it judges."""
    rows, clock, (one, two) = await _make("one", "two")
    await _rounds(clock, 5, one, two)
    rows.is_away = True
    await _rounds(clock, 10, one, two)
    rows.is_away = False
    await one.membership.go_round()
    assert rows.buried == []
    await _rounds(clock, 10, two, one)
    assert (rows.buried, one.told, two.told) == ([], 0, 0)


async def test_who_was_stopped_and_wakes_judges_nobody() -> None:
    """It has not heard the others for as long as it slept."""
    rows, clock, (one, two) = await _make("one", "two")
    await _rounds(clock, 5, one, two)
    clock.advance(1000)
    await one.membership.go_round()
    assert rows.buried == []
    await _rounds(clock, 3, two, one)
    assert rows.buried == []


async def test_who_has_just_come_judges_nobody() -> None:
    """Those that it finds may be about to say that they live."""
    rows, clock, (one,) = await _make("one")
    rows.leases["two"] = clock.now()
    await _rounds(clock, 2, one)
    assert rows.buried == []
    await _rounds(clock, 1, one)
    assert rows.buried == ["two"]


async def test_who_was_buried_ends_what_it_had_until_that_is_done() -> None:
    """Though the database goes away in the middle of it."""
    rows, clock, (one,) = await _make("one")
    del rows.leases["one"]
    one.fails = True
    await _rounds(clock, 1, one)
    assert one.told == 0
    one.fails = False
    await _rounds(clock, 3, one)
    assert one.told == 1


async def test_who_may_have_been_buried_looks() -> None:
    """Its row was made anew, and the answer that it had been gone was lost."""
    rows, clock, (one,) = await _make("one")
    del rows.leases["one"]
    rows.loses_answers = True
    await _rounds(clock, 1, one)
    assert one.told == 0
    rows.loses_answers = False
    await _rounds(clock, 3, one)
    assert one.told == 1


async def test_a_server_that_has_its_database_for_itself_does_nothing() -> None:
    """No row, no write, no task."""
    rows = Rows(is_shared=False)
    server = Server(rows, ManualClock(), "one")
    await server.membership.join()
    await server.membership.run()
    await server.membership.leave()
    assert rows.asked == 0


async def test_leaving_does_not_fail() -> None:
    """A database that is away is no reason not to stop."""
    rows, _clock, (one,) = await _make("one")
    rows.is_away = True
    await one.membership.leave()
    rows.is_away = False
    await one.membership.leave()
    assert rows.leases == {}
