"""Tells the audit log of requests: of every change, and of every refusal."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from sandgate.core.audit import AuditEntry, AuditOutcome, AuditSink, Credential
from sandgate.core.clock import Clock
from sandgate.core.ids import make_audit_id
from sandgate.http.exchange import Exchange

# What reading is refused for and is worth a word: somebody asks for what is not theirs, or too much of it.
_TOLD_OF_READS = frozenset({401, 403, 404, 429})
_CLIENT_GONE = "CLIENT_GONE"

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
)
_LONGEST_SHOWN = 128


class AuditedRequests:
    """Makes entries of requests. Executions that succeed are left out unless ``with_executions``."""

    def __init__(self, sink: AuditSink, clock: Clock, *, with_executions: bool) -> None:
        self._sink = sink
        self._clock = clock
        self._with_executions = with_executions

    async def tell_done(self, exchange: Exchange, status: int, *, often: bool) -> None:
        """A change was made and is about to be answered. Of what is done ``often`` nobody waits for the entry."""
        if often:
            if self._with_executions or exchange.operation != "execute":
                self._sink.note(self._entry(exchange, AuditOutcome.DONE, status, None))
        else:
            await self._sink.record(self._entry(exchange, AuditOutcome.DONE, status, None))

    def tell_refused(self, exchange: Exchange, status: int, code: str) -> None:
        """A request was answered with an error."""
        if not (exchange.changes or (exchange.is_known and status in _TOLD_OF_READS)):
            return
        outcome = AuditOutcome.FAILED if status >= 500 else AuditOutcome.REFUSED
        self._sink.refuse(self._entry(exchange, outcome, status, code))

    def tell_gone(self, exchange: Exchange) -> None:
        """A client went away before its request was answered; what was asked may have been done."""
        if exchange.changes:
            self._sink.refuse(self._entry(exchange, AuditOutcome.FAILED, None, _CLIENT_GONE))

    def _entry(self, exchange: Exchange, outcome: AuditOutcome, status: int | None, code: str | None) -> AuditEntry:
        caller = exchange.caller
        if caller is None:
            user_id, name, kind, credential_id = None, exchange.login_name, exchange.credential, None
        elif caller.api_key_id is None:
            user_id, name, kind, credential_id = caller.user_id, caller.name, Credential.TOKEN, caller.token_id
        else:
            user_id, name, kind, credential_id = caller.user_id, caller.name, Credential.API_KEY, caller.api_key_id
        return AuditEntry(
            audit_id=make_audit_id(),
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


def facts_of_body(body: BaseModel) -> Mapping[str, Any]:
    """What a body says that may be kept: the names of its fields, and the values of those that are no secrets."""
    given = body.model_fields_set
    shown = {name: _shorten(getattr(body, name)) for name in _SHOWN if name in given}
    rest = sorted(given - shown.keys() - {"root"})
    return {**shown, "fields": rest} if rest else shown


def _shorten(value: Any) -> Any:
    return value[:_LONGEST_SHOWN] if isinstance(value, str) else value
