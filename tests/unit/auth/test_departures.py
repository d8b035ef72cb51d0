"""What users have left running ends with their accounts."""

from collections.abc import Set

import pytest

from sandgate.auth.accounts import Accounts
from sandgate.auth.departures import Departures
from sandgate.core.clock import ManualClock
from sandgate.core.ids import UserId
from sandgate.core.principal import Role, User
from tests.unit.auth.memory import MemoryUsers

NOW = ManualClock().now()


class Kept:
    """Things of users, and why they were ended."""

    def __init__(self, *owners: UserId) -> None:
        self.live = set(owners)
        self.reasons: dict[UserId, str] = {}

    def owners(self) -> Set[UserId]:
        """Everybody who has something live."""
        return set(self.live)

    def end_all_of(self, owner_id: UserId, reason: str) -> int:
        """End it."""
        if owner_id not in self.live:
            return 0
        self.live.remove(owner_id)
        self.reasons[owner_id] = reason
        return 1


@pytest.fixture
async def users() -> MemoryUsers:
    """Three of them."""
    rows = MemoryUsers()
    for name in ("anna", "ben", "carl"):
        await rows.insert(User(UserId(f"user-{name}"), name, Role.USER, "hash", False, NOW, NOW))
    return rows


async def test_what_is_left_ends_and_nothing_else(users: MemoryUsers) -> None:
    """Of the disabled and the deleted, on all sides, once."""
    anna, ben, carl = UserId("user-anna"), UserId("user-ben"), UserId("user-carl")
    clock = ManualClock()
    first, second = Kept(anna, ben, carl), Kept(ben)
    departures = Departures(Accounts(users, clock), [first, second])
    assert await departures.look() == 0

    await users.update(ben, disabled=True)
    await users.delete(carl)
    clock.advance(1.1)

    assert await departures.look() == 3
    assert first.live == {anna}
    assert first.reasons == {ben: "the account of its owner is disabled", carl: "the account of its owner was deleted"}
    assert second.reasons == {ben: "the account of its owner is disabled"}
    assert await departures.look() == 0


async def test_nobody_is_looked_up_while_nothing_is_live(users: MemoryUsers) -> None:
    """A server that does nothing asks its database nothing."""
    asked = users.asked.total()
    assert await Departures(Accounts(users, ManualClock()), [Kept()]).look() == 0
    assert users.asked.total() == asked
