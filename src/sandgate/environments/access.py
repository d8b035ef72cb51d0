"""Who may see and change what."""

from sandgate.core.environment import Environment
from sandgate.core.errors import EnvironmentElsewhere, EnvironmentNotFound, Forbidden
from sandgate.core.ids import EnvironmentId
from sandgate.core.principal import Principal


def environment_not_found(environment_id: EnvironmentId) -> EnvironmentNotFound:
    """The one answer for what is unknown, deleted or another user's."""
    return EnvironmentNotFound(
        f"You have no environment {environment_id}; GET the list of environments for those you have"
    )


def check_can_see(caller: Principal, row: Environment) -> None:
    """Raises ``EnvironmentNotFound`` when the row is deleted, or another user's and the caller no admin."""
    if row.deleted_at is not None or (row.owner_id != caller.user_id and not caller.is_admin):
        raise environment_not_found(row.environment_id)


def check_can_change(caller: Principal, row: Environment) -> None:
    """Like :func:`check_can_see`, and raises ``Forbidden`` when the caller sees it but only reads."""
    check_can_see(caller, row)
    check_can_write(caller)


def check_can_write(caller: Principal) -> None:
    """Raises ``Forbidden`` for a caller that only reads."""
    if not caller.can_write:
        raise Forbidden(f"The role {caller.role} only reads; ask an admin for the role user")


def check_is_here(row: Environment, server_id: str) -> None:
    """Raises ``EnvironmentElsewhere`` for one that lives, and on another server than this one."""
    if row.is_live and row.server_id not in (None, server_id):
        raise EnvironmentElsewhere(
            f"Environment {row.environment_id} is on another server ({row.server_id}); ask that one",
            {"server_id": row.server_id},
        )
