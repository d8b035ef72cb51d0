"""Secrets of users: written, listed by name, used by their steps, and never read back."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Protocol

from sandgate.config.settings import Settings
from sandgate.core.clock import Clock
from sandgate.core.errors import Forbidden, InvalidRequest, SecretUnreadable, TooManySecrets
from sandgate.core.ids import UserId
from sandgate.core.principal import Principal
from sandgate.core.secret import Secret
from sandgate.store.base import SecretStore
from sandgate.workflows.expressions import SecretValues
from sandgate.workflows.masking import SHORTEST_SECRET
from sandgate.workflows.refusals import secret_not_found

LONGEST_SECRET_BYTES = 32 * 1024
MOST_LINES = 1000
# What one workflow may name together: each line and each byte is looked for in all that its steps write.
MOST_BYTES_TOGETHER = 256 * 1024
MOST_LINES_TOGETHER = 2000


class Seals(Protocol):
    """What makes a text unreadable for the database."""

    def seal(self, owner_id: UserId, name: str, text: str) -> tuple[str, bytes]:
        """The id of the key, and the sealed text."""
        ...

    def open(self, owner_id: UserId, name: str, key_id: str, sealed: bytes) -> str:
        """The text. Raises ``SecretUnreadable``."""
        ...


class SecretService:
    """See :class:`sandgate.workflows.base.Secrets`. Secrets are one's own affair, also against an admin."""

    def __init__(self, store: SecretStore, seals: Seals, clock: Clock, settings: Settings) -> None:
        self._store = store
        self._seals = seals
        self._clock = clock
        self._most = settings.max_secrets_per_user

    async def put(self, caller: Principal, name: str, value: str) -> Secret:
        """See ``Secrets``."""
        _check_can_write(caller)
        _check_value(value)
        now = self._clock.now()
        key_id, sealed = self._seals.seal(caller.user_id, name, value)
        kept = await self._store.put(Secret(caller.user_id, name, now, now, key_id, sealed), self._most)
        if kept is None:
            raise TooManySecrets(
                f"You have {self._most} secrets, which is the most allowed; delete one that no workflow needs",
                {"limit": self._most},
            )
        return replace(kept, sealed=b"")

    async def list(self, caller: Principal) -> Sequence[Secret]:
        """See ``Secrets``."""
        return await self._store.list(caller.user_id)

    async def delete(self, caller: Principal, name: str) -> None:
        """See ``Secrets``."""
        _check_can_write(caller)
        if not await self._store.delete(caller.user_id, name):
            raise secret_not_found(name)

    async def open(self, owner_id: UserId, names: Collection[str]) -> SecretValues:
        """The values of those that are there. Raises ``SecretUnreadable``, ``StoreUnavailable``."""
        if not names:
            return SecretValues()
        rows = await self._store.find(owner_id, names)
        values = {row.name: self._seals.open(owner_id, row.name, row.key_id, row.sealed) for row in rows}
        _check_together(values.values())
        return SecretValues(values)


def _check_can_write(caller: Principal) -> None:
    if not caller.can_write:
        raise Forbidden(f"The role {caller.role} only reads; ask an admin for the role user")


def _check_together(values: Collection[str]) -> None:
    """Raises ``SecretUnreadable`` for more than can be masked in a time that nobody else would notice."""
    size = sum(len(value.encode("utf-8", "replace")) for value in values)
    lines = sum(len(value.splitlines()) for value in values)
    if size > MOST_BYTES_TOGETHER or lines > MOST_LINES_TOGETHER:
        raise SecretUnreadable(
            f"The secrets that this workflow names have {size} bytes and {lines} lines together, each of which would "
            f"have to be masked; {MOST_BYTES_TOGETHER} and {MOST_LINES_TOGETHER} are the most"
        )


def _check_value(value: str) -> None:
    """Raises ``InvalidRequest`` for what cannot be masked, or not be a variable; the message does not show it."""
    problem = None
    if len(value.strip()) < SHORTEST_SECRET:
        problem = (
            f"has to have {SHORTEST_SECRET} characters without the space around it: a shorter one could not be masked "
            "without masking much else"
        )
    elif len(value.encode("utf-8", "replace")) > LONGEST_SECRET_BYTES:
        problem = f"is longer than {LONGEST_SECRET_BYTES} bytes"
    elif "\0" in value:
        problem = "has a NUL character"
    elif len(value.splitlines()) > MOST_LINES:
        problem = f"has more than {MOST_LINES} lines, each of which would have to be masked"
    if problem:
        raise InvalidRequest.for_fields([("value", problem)])
