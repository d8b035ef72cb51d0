"""What the gateway and the proxy say to each other, over a socket of type SOCK_SEQPACKET: JSON, one message a datagram.

The first message to the proxy is the policy. A request is ``{"number", "verb", "environment_id", …}`` with the verbs
``open`` (``owner``, ``allow``; the listener comes with it), ``change`` (``allow``), ``close`` and ``report``. An answer
is ``{"number", "ok", …}``; that to ``report`` comes in parts, all but the last with ``more``. What is for the log comes
unasked, as ``{"note"}``.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sandgate.core.network import (
    Connection,
    NetworkLimits,
    NetworkPolicy,
    NetworkReport,
    NetworkRules,
    NetworkTotals,
    Verdict,
)

LONGEST_MESSAGE = 65_536
# Of a datagram of that size, each with a host of 253 bytes at most.
_CONNECTIONS_IN_A_PART = 100


def pack(message: Mapping[str, Any]) -> bytes:
    """A message as one datagram."""
    return json.dumps(message, separators=(",", ":")).encode()


def unpack(data: bytes) -> dict[str, Any]:
    """The inverse of :func:`pack`."""
    message: dict[str, Any] = json.loads(data)
    return message


def pack_note(note: Mapping[str, Any]) -> bytes:
    """What nobody has asked for."""
    return pack({"note": note})


def pack_policy(policy: NetworkPolicy) -> bytes:
    """The first message."""
    return pack(asdict(policy))


def unpack_policy(data: bytes) -> NetworkPolicy:
    """The inverse of :func:`pack_policy`."""
    values = unpack(data)
    return NetworkPolicy(**{**values, "limits": NetworkLimits(**values["limits"])})


def report_in_parts(report: NetworkReport) -> Iterator[dict[str, Any]]:
    """The answers to ``report``."""
    rows = [_to_row(connection) for connection in report.connections]
    parts = [rows[start : start + _CONNECTIONS_IN_A_PART] for start in range(0, len(rows), _CONNECTIONS_IN_A_PART)]
    for place, part in enumerate(parts or [[]]):
        yield {"totals": asdict(report.totals), "connections": part, "more": place + 1 < len(parts)}


def join_parts(rules: NetworkRules, parts: Sequence[Mapping[str, Any]]) -> NetworkReport:
    """The inverse of :func:`report_in_parts`."""
    rows = [_from_row(row) for part in parts for row in part["connections"]]
    return NetworkReport(rules, NetworkTotals(**parts[-1]["totals"]), tuple(rows))


def _to_row(connection: Connection) -> list[Any]:
    return [connection.started_at.isoformat(), *list(asdict(connection).values())[1:]]


def _from_row(row: Sequence[Any]) -> Connection:
    started_at, host, port, verdict, *rest = row
    return Connection(datetime.fromisoformat(started_at), host, port, Verdict(verdict), *rest)
