"""Tells the audit log of requests: of every change, and of every refusal."""

import enum
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from sandgate.core.audit import AuditEntry, AuditOutcome, AuditSink, Credential
from sandgate.core.clock import Clock
from sandgate.core.errors import SandgateError
from sandgate.core.ids import AuditId, make_audit_id
from sandgate.http.exchange import Exchange
from sandgate.http.problems import status_of

_CLIENT_GONE = "CLIENT_GONE"
# The action of who never got as far as one.
_CONNECTION = "connect"

# Fields of bodies that say what a change was and are never a secret. Of others only the name is kept.
_SHOWN = (
    "username",
    "role",
    "disabled",
    "label",
    "template",
    "isolation",
    "paused",
    "enabled",
    "expires_in",
    "environments",
    "memory_mb",
    "executions_per_day",
    "executions_at_once",
    "snapshots",
    "snapshot_mb",
    "snapshot_id",
    "count",
    "network",
    "size_mb",
)
_LONGEST_SHOWN = 128
_NAMED_LATER = AuditId("")
_LONGEST_MODEL = 512


class Audit(enum.Enum):
    """What the audit log is told of an operation that succeeds: ``OFTEN`` is a change that nobody waits to see told,
    ``SUMMED`` one of which there may be so many that beyond some a minute they share an entry.
    """

    READ = enum.auto()
    CHANGE = enum.auto()
    OFTEN = enum.auto()
    SUMMED = enum.auto()


class AuditedRequests:
    """Makes entries of requests. Executions that succeed are left out unless ``with_executions``."""

    def __init__(self, sink: AuditSink, clock: Clock, *, with_executions: bool) -> None:
        self._sink = sink
        self._clock = clock
        self._with_executions = with_executions

    async def tell_done(self, exchange: Exchange, status: int, told: Audit) -> None:
        """A change was made and is about to be answered."""
        if told is Audit.SUMMED:
            if self._with_executions or exchange.operation != "execute":
                self._sink.note_often(self._entry(exchange, AuditOutcome.DONE, status, None, _NAMED_LATER))
        elif told is Audit.OFTEN:
            self._sink.note(self._entry(exchange, AuditOutcome.DONE, status, None))
        else:
            await self._sink.record(self._entry(exchange, AuditOutcome.DONE, status, None))

    def tell_refused(self, exchange: Exchange, status: int, code: str) -> None:
        """A request was answered with an error; what asks to read what the API does not have is not told."""
        if not (exchange.changes or exchange.is_known):
            return
        outcome = AuditOutcome.FAILED if status >= 500 else AuditOutcome.REFUSED
        self._sink.refuse(self._entry(exchange, outcome, status, code))

    def tell_gone(self, exchange: Exchange) -> None:
        """A client went away before its request was answered; what was asked may have been done."""
        if exchange.changes:
            self._sink.refuse(self._entry(exchange, AuditOutcome.FAILED, None, _CLIENT_GONE))

    def _entry(
        self,
        exchange: Exchange,
        outcome: AuditOutcome,
        status: int | None,
        code: str | None,
        audit_id: AuditId | None = None,
    ) -> AuditEntry:
        caller = exchange.caller
        if caller is None:
            user_id, name, kind, credential_id = None, exchange.login_name, exchange.credential, None
        elif exchange.credential is Credential.LINK:
            user_id, name, kind, credential_id = caller.user_id, caller.name, Credential.LINK, None
        elif caller.api_key_id is None:
            user_id, name, kind, credential_id = caller.user_id, caller.name, Credential.TOKEN, caller.token_id
        else:
            user_id, name, kind, credential_id = caller.user_id, caller.name, Credential.API_KEY, caller.api_key_id
        return AuditEntry(
            audit_id=make_audit_id() if audit_id is None else audit_id,
            at=self._clock.now(),
            action=exchange.operation,
            outcome=outcome,
            credential=kind,
            actor_id=user_id,
            actor_name=name,
            credential_id=credential_id,
            resource_id=exchange.resource_id,
            status=status,
            code=code,
            address=exchange.address or None,
            request_id=exchange.request_id,
            details=exchange.facts,
        )


class AuditedConnections:
    """Makes entries of what was refused before it was a request."""

    def __init__(self, sink: AuditSink, clock: Clock) -> None:
        self._sink = sink
        self._clock = clock

    def tell_refused(self, address: str, error: SandgateError, request_id: str) -> None:
        """A connection was answered with an error, and takes no more."""
        status = status_of(type(error))
        self._sink.refuse(
            AuditEntry(
                make_audit_id(),
                self._clock.now(),
                _CONNECTION,
                AuditOutcome.FAILED if status >= 500 else AuditOutcome.REFUSED,
                Credential.NONE,
                status=status,
                code=error.code,
                address=address or None,
                request_id=request_id,
            )
        )


def facts_of_body(body: BaseModel) -> Mapping[str, Any]:
    """What a body says that may be kept: the names of its fields, and the values of those that are no secrets."""
    given = body.model_fields_set
    shown = {name: _shorten(getattr(body, name)) for name in _SHOWN if name in given}
    rest = sorted(given - shown.keys() - {"root"})
    return {**shown, "fields": rest} if rest else shown


def _shorten(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump_json()[:_LONGEST_MODEL]
    return value[:_LONGEST_SHOWN] if isinstance(value, str) else value
