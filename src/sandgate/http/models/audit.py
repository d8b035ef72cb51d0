"""What clients send and get to read about the audit log."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from sandgate.core.audit import AuditOutcome, AuditRow
from sandgate.core.ids import UserId
from sandgate.http.models.base import Model
from sandgate.http.models.parts import Cursor, with_example
from sandgate.http.models.runs import Time
from sandgate.http.pagination import PageQuery, number_cursor, parse_number
from sandgate.store.base import AuditFilter

_ENTRY = {
    "number": 4711,
    "audit_id": "audit-06evrhxr2g000r2s7n0cymq3kd",
    "at": "2026-01-01T00:00:00Z",
    "action": "delete_environment",
    "outcome": "done",
    "credential": "token",
    "credential_id": "tok-06evrhxr2g000r2s7n0cymq3kd",
    "user_id": "user-06evrhwp4g000e8v0zrc4v1m6h",
    "username": "alice",
    "resource_id": "env-06evrhxq8g000wmabyzsqnd3wf",
    "status": 200,
    "code": None,
    "address": "192.0.2.7",
    "request_id": "req-06evrhxr2g000r2s7n0cymq3kd",
    "times": 1,
    "details": {},
    "digest": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
}


class ListAudit(PageQuery):
    """Which entries are wanted."""

    user_id: Annotated[str | None, Field(max_length=80, description="Done or tried by this user.")] = None
    action: Annotated[
        str | None, Field(max_length=64, description="The `operationId` of what was asked for, as `create_user`.")
    ] = None
    resource_id: Annotated[str | None, Field(max_length=128, description="Done to this thing.")] = None
    outcome: Literal["done", "refused", "failed"] | None = None
    after: Annotated[Time | None, Field(description="At that time or later.")] = None
    before: Annotated[Time | None, Field(description="Before that time.")] = None

    def filter(self) -> AuditFilter:
        """For the store."""
        return AuditFilter(
            actor_id=None if self.user_id is None else UserId(self.user_id),
            action=self.action,
            resource_id=self.resource_id,
            outcome=None if self.outcome is None else AuditOutcome(self.outcome),
            after=self.after,
            before=self.before,
        )

    def before_number(self) -> int | None:
        """Where the page begins. Raises ``InvalidRequest`` for a cursor that is not one of this list's."""
        return None if self.cursor is None else parse_number(self.cursor)


class AuditEntryAnswer(Model):
    """One thing that was done or refused. `times` is how often, for refusals that were alike and put together."""

    model_config = with_example(_ENTRY)

    number: int
    audit_id: str
    at: datetime
    action: str
    outcome: str
    credential: str
    credential_id: str | None
    user_id: str | None
    username: str | None
    resource_id: str | None
    status: int | None
    code: str | None
    address: str | None
    request_id: str | None
    times: int
    details: dict[str, Any]
    digest: str

    @classmethod
    def of(cls, row: AuditRow) -> "AuditEntryAnswer":
        """From the record."""
        entry = row.entry
        return cls(
            number=row.number,
            audit_id=entry.audit_id,
            at=entry.at,
            action=entry.action,
            outcome=str(entry.outcome),
            credential=str(entry.credential),
            credential_id=entry.credential_id,
            user_id=entry.actor_id,
            username=entry.actor_name,
            resource_id=entry.resource_id,
            status=entry.status,
            code=entry.code,
            address=entry.address,
            request_id=entry.request_id,
            times=entry.times,
            details=dict(entry.details),
            digest=row.digest.hex(),
        )


class AuditAnswer(Model):
    """A page of the audit log, newest first."""

    model_config = with_example({"entries": [_ENTRY], "next_cursor": None})

    entries: list[AuditEntryAnswer]
    next_cursor: Cursor

    @classmethod
    def of(cls, rows: list[AuditRow], limit: int) -> "AuditAnswer":
        """From one row more than are shown, if there are more."""
        shown = [AuditEntryAnswer.of(row) for row in rows[:limit]]
        return cls(entries=shown, next_cursor=number_cursor(shown[-1].number) if len(rows) > limit else None)
