"""Passwords: Argon2id in a small thread pool of its own.

One hash takes a core for about a tenth of a second. The pool keeps logins from taking all cores, the bounded queue
keeps a flood of them from taking all memory, and an unknown name costs as much as a wrong password.
"""

import asyncio
import base64
import os
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from argon2 import PasswordHasher, Type
from argon2.exceptions import Argon2Error, InvalidHashError

from sandgate.core.errors import InvalidRequest, ServiceDraining, TooManyLoginAttempts, TooManyRequests

SHORTEST_PASSWORD = 8
LONGEST_PASSWORD = 1024

_SALT_BYTES = 16
_HASH_BYTES = 32

ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class PasswordCost:
    """How hard a guess is.

    Source: RFC 9106, section 4, the second recommended choice (3 passes over 64 MiB), with a single lane, so that a
    login takes one core and not four.
    """

    passes: int = 3
    memory_kib: int = 64 * 1024
    lanes: int = 1


def find_password_problem(password: str) -> str | None:
    """Why this cannot be a password; None when it can."""
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        return f"must have {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters"
    if "\0" in password or any("\ud800" <= character <= "\udfff" for character in password):
        return "must not hold NUL or lone surrogates"
    return None


def check_password(password: str) -> None:
    """Raises ``InvalidRequest`` when this cannot be a password."""
    problem = find_password_problem(password)
    if problem is not None:
        raise InvalidRequest.for_fields([("password", problem)])


class Passwords:
    """Makes and verifies hashes, at most ``threads`` at once with at most ``most_waiting`` in the queue.

    ``threads`` None takes half of the machine's cores. Call ``close`` at the end.
    """

    def __init__(self, cost: PasswordCost | None = None, *, threads: int | None = None, most_waiting: int = 32) -> None:
        cost = cost or PasswordCost()
        self._hasher = PasswordHasher(
            time_cost=cost.passes,
            memory_cost=cost.memory_kib,
            parallelism=cost.lanes,
            hash_len=_HASH_BYTES,
            salt_len=_SALT_BYTES,
            type=Type.ID,
        )
        threads = threads or max(1, (os.cpu_count() or 1) // 2)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="passwords")
        self._most_at_once = threads + most_waiting
        self._at_once = 0
        self._counting = threading.Lock()
        self._verifications = 0
        self._dummy = _make_dummy(cost)

    @property
    def verifications(self) -> int:
        """How many hashes were verified so far, those of nobody included."""
        return self._verifications

    async def hash(self, password: str) -> str:
        """The hash of a checked password, with its parameters and salt. Raises ``TooManyRequests``."""
        if self._at_once >= self._most_at_once:
            raise TooManyRequests("The server hashes as many passwords as it can; ask again in a second")
        return await self._run(lambda: self._hasher.hash(password))

    async def verify(self, password_hash: str | None, password: str) -> bool:
        """Whether the password belongs to the hash; with None the same work is done and the answer is False.

        Raises ``TooManyLoginAttempts`` when the queue is full.
        """
        if self._at_once >= self._most_at_once:
            raise TooManyLoginAttempts("The server checks as many passwords as it can; ask again in a second")
        if password_hash is None or find_password_problem(password) is not None:
            password_hash, password = None, "no password"
        self._verifications += 1
        return await self._run(lambda: self._verify(password_hash, password))

    def needs_rehash(self, password_hash: str) -> bool:
        """Whether the hash was made at another cost than the present one."""
        try:
            return self._hasher.check_needs_rehash(password_hash)
        except InvalidHashError:
            return False

    def close(self) -> None:
        """Drop what waits, and end the threads once they have finished what they are at."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _verify(self, password_hash: str | None, password: str) -> bool:
        """In a thread: the whole work, whatever the hash is."""
        try:
            matches = self._hasher.verify(password_hash or self._dummy, password)
        except (Argon2Error, InvalidHashError):
            return False
        return matches and password_hash is not None

    async def _run(self, work: Callable[[], ResultT]) -> ResultT:
        """The work's result, from the pool. Cancelling takes back what has not been begun."""
        with self._counting:
            self._at_once += 1
        try:
            future = self._pool.submit(work)
        except RuntimeError:
            self._count_off()
            raise ServiceDraining("The server is stopping and checks no more passwords") from None
        # Counted until the thread is done with it, and not until the caller is gone.
        future.add_done_callback(lambda _: self._count_off())
        return await asyncio.wrap_future(future)

    def _count_off(self) -> None:
        """From whichever thread ended the work."""
        with self._counting:
            self._at_once -= 1


def _make_dummy(cost: PasswordCost) -> str:
    """A hash of the same cost that no password belongs to, without the work of hashing one."""
    salt, digest = (
        base64.b64encode(secrets.token_bytes(length)).rstrip(b"=").decode() for length in (_SALT_BYTES, _HASH_BYTES)
    )
    return f"$argon2id$v=19$m={cost.memory_kib},t={cost.passes},p={cost.lanes}${salt}${digest}"
