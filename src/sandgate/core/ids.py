"""Identifiers: a prefix, a dash, then 26 characters of ``[0-9a-z]`` that sort by creation.

Layout of the 26 characters, Crockford's base 32 in lower case (Source: the ULID specification, with a
counter taken from its randomness so that ids of one process and one millisecond keep their order):
10 characters of milliseconds since 1970, 3 of a counter, 13 (65 bits) of randomness.
"""

import hashlib
import secrets
import threading
import time
from datetime import UTC, datetime
from typing import NewType

EnvironmentId = NewType("EnvironmentId", str)
ExecutionId = NewType("ExecutionId", str)
ProcessId = NewType("ProcessId", str)
UserId = NewType("UserId", str)
ApiKeyId = NewType("ApiKeyId", str)
WorkflowId = NewType("WorkflowId", str)
RunId = NewType("RunId", str)
SignalId = NewType("SignalId", str)
ScheduleId = NewType("ScheduleId", str)
WebhookId = NewType("WebhookId", str)
DeliveryId = NewType("DeliveryId", str)
AuditId = NewType("AuditId", str)
SessionId = NewType("SessionId", str)
SnapshotId = NewType("SnapshotId", str)
VolumeId = NewType("VolumeId", str)
TemplateId = NewType("TemplateId", str)

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_COUNTER_LIMIT = 32**3
_RANDOM_BITS = 65


# Two digits at a time, because ids are made for every request.
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]
_SHIFTS = range(120, -1, -10)


def _encode(millisecond: int, counter: int, random: int) -> str:
    """The 26 characters."""
    value = (millisecond << 15 | counter) << _RANDOM_BITS | random
    return "".join([_PAIRS[value >> shift & 1023] for shift in _SHIFTS])


class _Sequence:
    """Hands out (millisecond, counter) pairs that never go back, whatever the clock does."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._millisecond = 0
        self._counter = 0

    def take(self) -> tuple[int, int]:
        now = time.time_ns() // 1_000_000
        with self._lock:
            if now > self._millisecond:
                self._millisecond, self._counter = now, 0
            elif self._counter + 1 < _COUNTER_LIMIT:
                self._counter += 1
            else:
                self._millisecond, self._counter = self._millisecond + 1, 0
            return self._millisecond, self._counter


_sequence = _Sequence()


def make_id(prefix: str) -> str:
    """A new identifier: ``prefix``, a dash, 26 sortable, unguessable characters."""
    millisecond, counter = _sequence.take()
    return f"{prefix}-{_encode(millisecond, counter, secrets.randbits(_RANDOM_BITS))}"


def first_id_at(prefix: str, at: datetime) -> str:
    """What sorts before every identifier made at that time or later, and after every earlier one."""
    return f"{prefix}-{_encode(max(0, int(at.timestamp() * 1000)), 0, 0)}"


def make_template_id() -> TemplateId:
    """A new ``tpl-…``."""
    return TemplateId(make_id("tpl"))


def make_environment_id() -> EnvironmentId:
    """A new ``env-…``."""
    return EnvironmentId(make_id("env"))


def make_execution_id() -> ExecutionId:
    """A new ``exec-…``."""
    return ExecutionId(make_id("exec"))


def make_session_id() -> SessionId:
    """A new ``session-…``."""
    return SessionId(make_id("session"))


def make_volume_id() -> VolumeId:
    """A new ``vol-…``."""
    return VolumeId(make_id("vol"))


def time_of_id(identifier: str) -> datetime:
    """When an identifier of this kind was made, to the millisecond."""
    value = 0
    for character in identifier.rpartition("-")[2][:10]:
        value = value << 5 | _ALPHABET.index(character)
    return datetime.fromtimestamp(value / 1000, UTC)


def make_process_id() -> ProcessId:
    """A new ``proc-…``."""
    return ProcessId(make_id("proc"))


def make_user_id() -> UserId:
    """A new ``user-…``."""
    return UserId(make_id("user"))


def make_api_key_id() -> ApiKeyId:
    """A new ``key-…``."""
    return ApiKeyId(make_id("key"))


def make_workflow_id() -> WorkflowId:
    """A new ``workflow-…``."""
    return WorkflowId(make_id("workflow"))


def make_run_id() -> RunId:
    """A new ``run-…``."""
    return RunId(make_id("run"))


def make_signal_id() -> SignalId:
    """A new ``signal-…``."""
    return SignalId(make_id("signal"))


def derive_signal_id(run_id: RunId) -> SignalId:
    """The ``signal-…`` of what may be said to a run any number of times and counts once."""
    return SignalId(f"signal-{run_id.partition('-')[2]}")


def derive_run_id(parent: RunId, place: str, at: datetime) -> RunId:
    """The ``run-…`` that a run starts at a place and time: the same each time, unguessable as the parent's."""
    digest = hashlib.sha256(f"{parent} {place}".encode()).digest()
    drawn = int.from_bytes(digest[:10])
    millisecond = int(at.timestamp() * 1000)
    return RunId(f"run-{_encode(millisecond, drawn >> _RANDOM_BITS, drawn & (1 << _RANDOM_BITS) - 1)}")


def make_schedule_id() -> ScheduleId:
    """A new ``schedule-…``."""
    return ScheduleId(make_id("schedule"))


def make_snapshot_id() -> SnapshotId:
    """A new ``snap-…``."""
    return SnapshotId(make_id("snap"))


def make_webhook_id() -> WebhookId:
    """A new ``webhook-…``."""
    return WebhookId(make_id("webhook"))


def make_delivery_id() -> DeliveryId:
    """A new ``delivery-…``."""
    return DeliveryId(make_id("delivery"))


def make_audit_id() -> AuditId:
    """A new ``audit-…``."""
    return AuditId(make_id("audit"))
