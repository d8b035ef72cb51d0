"""Passwords: rules, hashes, and work that is the same for everybody."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any, Literal

import pytest
from argon2 import PasswordHasher

from sandgate.auth.passwords import PasswordCost, Passwords, check_password
from sandgate.core.errors import InvalidRequest, ServiceDraining, TooManyLoginAttempts, TooManyRequests
from tests.unit.auth.memory import CHEAP


@pytest.fixture
def passwords() -> Iterator[Passwords]:
    """A pool of one cheap thread."""
    made = Passwords(CHEAP, threads=1, most_waiting=2)
    yield made
    made.close()


async def test_a_password_belongs_to_its_own_hash_only(passwords: Passwords) -> None:
    """The right one is told from a wrong one, and the hash does not hold it."""
    made = await passwords.hash("correct horse")
    assert made.startswith("$argon2id$")
    assert "horse" not in made
    assert await passwords.verify(made, "correct horse")
    assert not await passwords.verify(made, "correct horsf")


async def test_equal_passwords_have_unequal_hashes(passwords: Passwords) -> None:
    """Each hash has a salt of its own."""
    assert await passwords.hash("correct horse") != await passwords.hash("correct horse")


class CountingHasher(PasswordHasher):
    """Notes the cost of every hash that is verified."""

    def __init__(self) -> None:
        super().__init__()
        self.costs: list[str] = []

    def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:  # noqa: A002 - the library's name
        """See the library."""
        self.costs.append(str(hash).rsplit("$", 2)[0])
        return super().verify(hash, password)


async def test_nobody_costs_what_somebody_costs(passwords: Passwords) -> None:
    """For an unknown name the hash of nobody is verified, at the same cost, and never matches."""
    somebody = await passwords.hash("correct horse")
    passwords._hasher = counting = CountingHasher()
    for password_hash in (somebody, None):
        assert not await passwords.verify(password_hash, "no password")
    assert counting.costs == ["$argon2id$v=19$m=8,t=1,p=1"] * 2


@pytest.mark.parametrize("password", ["", "short", "x" * 1025, "with\0nul in it", "lone \ud800 surrogate"])
async def test_impossible_passwords_cost_the_same_and_belong_to_nobody(passwords: Passwords, password: str) -> None:
    """What cannot be a password is refused when it is set, and is simply wrong when it is presented."""
    with pytest.raises(InvalidRequest) as refused:
        check_password(password)
    assert refused.value.details["fields"][0]["field"] == "password"
    assert not await passwords.verify(await passwords.hash("correct horse"), password)
    assert passwords.verifications == 1


@pytest.mark.parametrize("password", ["eight ch", "x" * 1024, "pässwörd \U0001f511", " " * 8])
def test_possible_passwords(password: str) -> None:
    """Anything else can be one: no rules on kinds of characters."""
    check_password(password)


@pytest.mark.parametrize("broken", ["", "x", "$argon2id$", "$2b$12$abc", "$argon2id$v=19$m=8,t=1,p=1$AA$AA"])
async def test_a_broken_hash_belongs_to_no_password(passwords: Passwords, broken: str) -> None:
    """It is no reason to fail, and never one to let in."""
    assert not await passwords.verify(broken, "correct horse")
    assert isinstance(passwords.needs_rehash(broken), bool)


async def test_a_hash_of_another_cost_is_to_be_renewed(passwords: Passwords) -> None:
    """Raising the cost reaches users as they log in."""
    dearer = Passwords(PasswordCost(passes=2, memory_kib=8, lanes=1), threads=1)
    try:
        made = await passwords.hash("correct horse")
        assert not passwords.needs_rehash(made)
        assert dearer.needs_rehash(made)
        assert await dearer.verify(made, "correct horse")
    finally:
        dearer.close()


def test_the_usual_cost_is_what_the_standard_recommends() -> None:
    """Source: RFC 9106, section 4."""
    assert PasswordCost() == PasswordCost(passes=3, memory_kib=65_536, lanes=1)


async def test_a_flood_is_refused_and_not_queued(passwords: Passwords) -> None:
    """One runs, two wait, the rest is told to come again; afterwards all is as before."""
    go_on = threading.Event()
    began = threading.Event()

    def work() -> Any:
        began.set()
        return go_on.wait(30)

    running = [asyncio.ensure_future(passwords._run(work)) for _ in range(3)]
    await asyncio.to_thread(began.wait, 30)
    with pytest.raises(TooManyLoginAttempts):
        await passwords.verify(None, "correct horse")
    with pytest.raises(TooManyRequests):
        await passwords.hash("correct horse")
    go_on.set()
    assert await asyncio.gather(*running) == [True] * 3
    assert not await passwords.verify(None, "correct horse")


async def test_who_goes_away_frees_a_place_only_when_the_work_is_done(passwords: Passwords) -> None:
    """Clients that hang up cannot have more work done at once than those who stay."""
    go_on = threading.Event()
    began = threading.Event()

    def work() -> Any:
        began.set()
        return go_on.wait(30)

    running = [asyncio.ensure_future(passwords._run(work)) for _ in range(3)]
    await asyncio.to_thread(began.wait, 30)
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    assert passwords._at_once == 1
    go_on.set()
    assert not await passwords.verify(None, "correct horse")


async def test_a_closed_pool_says_so() -> None:
    """At the end of the process, late logins are told that the server stops."""
    closed = Passwords(CHEAP, threads=1)
    closed.close()
    with pytest.raises(ServiceDraining):
        await closed.verify(None, "correct horse")
    assert closed._at_once == 0
