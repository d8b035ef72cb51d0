"""What schedules and webhooks have in common: how many there may be, and what goes with what is deleted."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Select

from sandgate.core.ids import UserId, WebhookId, WorkflowId
from sandgate.store.owners import hold_owner
from sandgate.store.trigger_schema import schedules, webhook_deliveries, webhook_keys, webhooks
from sandgate.store.versions import hold_workflow

_COUNTS: Mapping[sa.Table, Select[Any]] = {
    table: sa.select(sa.func.count()).where(table.c.owner_id == sa.bindparam("wanted_owner"))
    for table in (schedules, webhooks)
}
_is_of_workflow = webhooks.c.workflow_id == sa.bindparam("wanted_workflow")
_OF_WORKFLOW = sa.select(webhooks.c.webhook_id).where(_is_of_workflow).scalar_subquery()
_SCHEDULES = sa.delete(schedules).where(schedules.c.workflow_id == sa.bindparam("wanted_workflow"))
_PARTS = [sa.delete(table).where(table.c.webhook_id.in_(_OF_WORKFLOW)) for table in (webhook_keys, webhook_deliveries)]
_WEBHOOKS = sa.delete(webhooks).where(_is_of_workflow)
_PARTS_OF_ONE = [
    sa.delete(table).where(table.c.webhook_id == sa.bindparam("wanted_id"))
    for table in (webhook_keys, webhook_deliveries)
]


def has_room(
    connection: Connection, table: sa.Table, workflow_id: WorkflowId, owner_id: UserId, most: int
) -> bool | None:
    """Whether an owner has fewer than ``most`` rows in the table; None when the workflow has been deleted.

    Both holds until the end of the transaction: whoever adds one waits for others who do.
    """
    hold_owner(connection, owner_id)
    if not hold_workflow(connection, workflow_id):
        return None
    count: int = connection.execute(_COUNTS[table], {"wanted_owner": owner_id}).scalar_one()
    return count < most


def delete_triggers(connection: Connection, workflow_id: WorkflowId) -> None:
    """Delete all that starts runs of a workflow, inside a transaction that holds the workflow."""
    for statement in (_SCHEDULES, *_PARTS, _WEBHOOKS):
        connection.execute(statement, {"wanted_workflow": workflow_id})


def delete_parts(connection: Connection, webhook_id: WebhookId) -> None:
    """Delete what is known of a webhook's deliveries."""
    for statement in _PARTS_OF_ONE:
        connection.execute(statement, {"wanted_id": webhook_id})
