"""The audit log: who did what to which, from where, with which outcome; and the chain that its rows make.

Rows are only ever added. Each has a number, one more than that of the row before, and a digest that covers the row and
the digest of the row before. The digest needs a key that the database does not hold, so that whoever can write to the
database can neither change, remove, move nor invent a row without the chain telling.
"""

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Protocol

from sandgate.core.ids import AuditId, UserId, make_audit_id

_DIGEST = hashlib.sha256
#: What the digest of the very first row covers in the place of a row before it.
BEGINNING = bytes(32)


class AuditOutcome(StrEnum):
    """Whether it was carried out, the caller may not or cannot now, or the service could not."""

    DONE = "done"
    REFUSED = "refused"
    FAILED = "failed"


class Credential(StrEnum):
    """What the caller came with. ``command`` is the command line, ``service`` the service by itself."""

    TOKEN = "token"  # noqa: S105
    API_KEY = "api_key"
    PASSWORD = "password"  # noqa: S105 - the kind of credential, not one
    WEBHOOK = "webhook"
    LINK = "link"
    COMMAND = "command"
    SERVICE = "service"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One thing that was done or refused; ``times`` is how often, for repeats that were put together."""

    audit_id: AuditId
    at: datetime
    action: str
    outcome: AuditOutcome
    credential: Credential
    actor_id: UserId | None = None
    actor_name: str | None = None
    credential_id: str | None = None
    resource_id: str | None = None
    status: int | None = None
    code: str | None = None
    address: str | None = None
    request_id: str | None = None
    times: int = 1
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AuditRow:
    """An entry in its place in the chain."""

    number: int
    entry: AuditEntry
    digest: bytes


@dataclass(frozen=True, slots=True)
class AuditHead:
    """Where the chain ends, and where it begins since older rows were removed when their time was over.

    ``anchor`` is the digest of the row before ``first_number``. ``seal`` covers the rest.
    """

    number: int
    digest: bytes
    first_number: int
    anchor: bytes
    seal: bytes


class AuditChain:
    """Makes and checks digests with one key."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def digest(self, before: bytes, number: int, entry: AuditEntry) -> bytes:
        """The digest of a row that follows the row with the digest ``before``."""
        return hmac.digest(self._key, before + _canonical(number, entry), _DIGEST)

    def follow(self, before: bytes, number: int, entries: Sequence[AuditEntry]) -> list[AuditRow]:
        """The rows that the entries make behind row ``number`` with the digest ``before``."""
        rows = []
        for entry in entries:
            number += 1
            before = self.digest(before, number, entry)
            rows.append(AuditRow(number, entry, before))
        return rows

    def make_head(self, number: int, digest: bytes, first_number: int, anchor: bytes) -> AuditHead:
        """A head with its seal."""
        return AuditHead(number, digest, first_number, anchor, self._seal(number, digest, first_number, anchor))

    def is_ours(self, head: AuditHead) -> bool:
        """Whether the head was made with this key and not changed."""
        return hmac.compare_digest(
            self._seal(head.number, head.digest, head.first_number, head.anchor), bytes(head.seal)
        )

    def _seal(self, number: int, digest: bytes, first_number: int, anchor: bytes) -> bytes:
        return hmac.digest(self._key, f"head {number} {first_number} ".encode() + digest + anchor, _DIGEST)


def _canonical(number: int, entry: AuditEntry) -> bytes:
    """A row as bytes; two rows that differ in anything differ in these."""
    at = entry.at.astimezone(UTC).isoformat(timespec="microseconds")
    texts = [
        entry.audit_id, at, entry.action, entry.outcome, entry.credential, entry.actor_id, entry.actor_name,
        entry.credential_id, entry.resource_id, entry.code, entry.address, entry.request_id,
    ]  # fmt: skip
    plain = [None if text is None else str(text) for text in texts]
    fields = [number, plain, entry.status, entry.times, dict(entry.details)]
    return json.dumps(fields, ensure_ascii=True, sort_keys=True, separators=(",", ":")).encode("ascii")


def by_service(action: str, at: datetime, resource_id: str | None, details: Mapping[str, Any]) -> AuditEntry:
    """An entry of what the service did by itself."""
    return AuditEntry(
        make_audit_id(), at, action, AuditOutcome.DONE, Credential.SERVICE, resource_id=resource_id, details=details
    )


class AuditSink(Protocol):
    """Where entries are handed in."""

    def note(self, entry: AuditEntry) -> None:
        """Keep the entry; it is on disk within a second."""
        ...

    def refuse(self, entry: AuditEntry) -> None:
        """Like :meth:`note`, for what was refused; many that are alike within a minute are put together."""
        ...

    def note_often(self, entry: AuditEntry) -> None:
        """Like :meth:`note`, for what one user may do hundreds of times a second: beyond some within a minute that are
        alike, one entry stands for the rest. Its ``audit_id`` need not be one: it is made where it is needed.
        """
        ...

    async def record(self, entry: AuditEntry) -> None:
        """Keep the entry; it is on disk when this returns, unless the database is away: then as soon as it is back."""
        ...
