"""Reading the audit log."""

from typing import Annotated

from sandgate.core import errors
from sandgate.core.errors import Forbidden
from sandgate.http.api import Api
from sandgate.http.authentication import Caller
from sandgate.http.marks import Query
from sandgate.http.models.audit import AuditAnswer, ListAudit
from sandgate.store.base import AuditStore

_TAG = "audit"


def add_audit_routes(api: Api, rows: AuditStore) -> None:
    """Declare the operation."""

    @api.operation("GET", "/api/v1/audit", tag=_TAG, errors=(errors.Forbidden,))
    async def list_audit(caller: Caller, query: Annotated[ListAudit, Query()]) -> AuditAnswer:
        """List who did what to which, from where, with which outcome, newest first; for admins."""
        if not caller.is_admin:
            raise Forbidden(f"The audit log is read by admins; {caller.name} has the role {caller.role}")
        found = await rows.list(query.filter(), query.before_number(), query.limit + 1)
        return AuditAnswer.of(list(found), query.limit)
