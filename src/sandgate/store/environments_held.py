"""What users have of live environments, on all servers of a database."""

import sqlalchemy as sa
from sqlalchemy import Connection, TextClause

from sandgate.core.environment import Environment
from sandgate.core.ids import UserId
from sandgate.core.quota import EnvironmentsHeld, UserQuota
from sandgate.core.states import LIVE_ENVIRONMENT_STATUSES

# Written out, so that the partial index by owner and status serves.
_STATUSES = ", ".join(f"'{status}'" for status in sorted(LIVE_ENVIRONMENT_STATUSES))
_LIVE = f"FROM environments WHERE deleted_at IS NULL AND status IN ({_STATUSES}) AND owner_id = :owner_id"
_ELSEWHERE = " AND server_id <> :server_id"
# What one may take of the machine's memory: see ``Limits.machine_bytes``.
_BYTES = {
    "postgresql": "(limits::json->>'memory_bytes')::bigint + (limits::json->>'disk_bytes')::bigint",
    "sqlite": "json_extract(limits, '$.memory_bytes') + json_extract(limits, '$.disk_bytes')",
}


def _measuring(size: str, where: str = "") -> TextClause:
    return sa.text(f"SELECT count(*), coalesce(sum({size}), 0) {_LIVE}{where}")


_COUNT = _measuring("0")
_MEASURE = {name: _measuring(size) for name, size in _BYTES.items()}
_MEASURE_ELSEWHERE = {name: _measuring(size, _ELSEWHERE) for name, size in _BYTES.items()}


def turn_of(owner_id: UserId) -> str:
    """The turn of who counts what an owner has, and adds to it."""
    return f"environments of {owner_id}"


def find_excess(connection: Connection, environment: Environment, allowed: UserQuota) -> EnvironmentsHeld | None:
    """Inside a transaction whose turn it is: what the owner has already, if one more would be too much."""
    if allowed.environments is None and allowed.memory_bytes is None:
        return None
    # Sizes are in a text that has to be read, which only few need.
    statement = _COUNT if allowed.memory_bytes is None else _MEASURE[connection.dialect.name]
    held = _read(connection, statement, {"owner_id": environment.owner_id})
    fits = allowed.has_place(held) and allowed.has_memory(held, environment.limits.machine_bytes)
    return None if fits else held


def measure_elsewhere(connection: Connection, owner_id: UserId, server_id: str) -> EnvironmentsHeld:
    """What an owner has on other servers than one."""
    statement = _MEASURE_ELSEWHERE[connection.dialect.name]
    return _read(connection, statement, {"owner_id": owner_id, "server_id": server_id})


def _read(connection: Connection, statement: TextClause, parameters: dict[str, str]) -> EnvironmentsHeld:
    count, memory_bytes = connection.execute(statement, parameters).one()
    return EnvironmentsHeld(int(count), int(memory_bytes))
