"""What goes with a workflow or a webhook that is deleted."""

import sqlalchemy as sa
from sqlalchemy import Connection

from sandgate.core.ids import WebhookId, WorkflowId
from sandgate.store.trigger_schema import schedules, webhook_deliveries, webhook_keys, webhooks

_is_of_workflow = webhooks.c.workflow_id == sa.bindparam("wanted_workflow")
_OF_WORKFLOW = sa.select(webhooks.c.webhook_id).where(_is_of_workflow).scalar_subquery()
_SCHEDULES = sa.delete(schedules).where(schedules.c.workflow_id == sa.bindparam("wanted_workflow"))
_PARTS = [sa.delete(table).where(table.c.webhook_id.in_(_OF_WORKFLOW)) for table in (webhook_keys, webhook_deliveries)]
_WEBHOOKS = sa.delete(webhooks).where(_is_of_workflow)
_PARTS_OF_ONE = [
    sa.delete(table).where(table.c.webhook_id == sa.bindparam("wanted_id"))
    for table in (webhook_keys, webhook_deliveries)
]


def delete_triggers(connection: Connection, workflow_id: WorkflowId) -> None:
    """Delete all that starts runs of a workflow, inside a transaction that holds the workflow."""
    for statement in (_SCHEDULES, *_PARTS, _WEBHOOKS):
        connection.execute(statement, {"wanted_workflow": workflow_id})


def delete_parts(connection: Connection, webhook_id: WebhookId) -> None:
    """Delete what is known of a webhook's deliveries."""
    for statement in _PARTS_OF_ONE:
        connection.execute(statement, {"wanted_id": webhook_id})
