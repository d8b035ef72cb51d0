"""The tables of schedules and webhooks; see :mod:`sandgate.store.schema`."""

import sqlalchemy as sa

from sandgate.store.column_types import ExactText, Instant, JsonText
from sandgate.store.schema import metadata, partial_index

__all__ = ["metadata", "schedules", "webhook_deliveries", "webhook_keys", "webhooks"]

# ``waiting`` is how many ticks the queue holds.
schedules = sa.Table(
    "schedules",
    metadata,
    sa.Column("schedule_id", ExactText, primary_key=True),
    sa.Column("workflow_id", ExactText, nullable=False),
    sa.Column("owner_id", ExactText, nullable=False),
    sa.Column("name", ExactText, nullable=False),
    sa.Column("paused", sa.Boolean, nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("waiting", sa.BigInteger, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("updated_at", Instant, nullable=False),
    sa.Column("next_tick_at", Instant),
    sa.Column("due_at", Instant),
    sa.Column("last_tick_at", Instant),
    sa.Column("last_run_at", Instant),
    sa.Column("last_run_id", ExactText),
    sa.Column("last_skipped_at", Instant),
    sa.Column("last_skip_reason", ExactText),
    sa.Column("last_error", JsonText),
    sa.Column("queue", JsonText, nullable=False),
    sa.Column("timing", JsonText, nullable=False),
    sa.Column("policy", JsonText, nullable=False),
    sa.Column("inputs", JsonText, nullable=False),
    sa.Index("schedules_by_owner", "owner_id", "schedule_id"),
    sa.Index("schedules_by_workflow", "workflow_id", "schedule_id"),
)

webhooks = sa.Table(
    "webhooks",
    metadata,
    sa.Column("webhook_id", ExactText, primary_key=True),
    sa.Column("workflow_id", ExactText, nullable=False),
    sa.Column("owner_id", ExactText, nullable=False),
    sa.Column("name", ExactText, nullable=False),
    sa.Column("enabled", sa.Boolean, nullable=False),
    sa.Column("token_sha256", sa.LargeBinary, nullable=False),
    sa.Column("signature", ExactText, nullable=False),
    sa.Column("salt", sa.LargeBinary),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("updated_at", Instant, nullable=False),
    sa.Column("filter", ExactText),
    sa.Column("inputs", JsonText, nullable=False),
    sa.Index("webhooks_by_token", "token_sha256", unique=True),
    sa.Index("webhooks_by_owner", "owner_id", "webhook_id"),
    sa.Index("webhooks_by_workflow", "workflow_id", "webhook_id"),
)

# What has been delivered is known by these for a day, so that it starts one run however often it comes.
webhook_keys = sa.Table(
    "webhook_keys",
    metadata,
    sa.Column("webhook_id", ExactText, primary_key=True),
    sa.Column("key_sha256", sa.LargeBinary, primary_key=True),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("run_id", ExactText, nullable=False),
    sa.Index("webhook_keys_by_age", "webhook_id", "created_at"),
)

webhook_deliveries = sa.Table(
    "webhook_deliveries",
    metadata,
    sa.Column("delivery_id", ExactText, primary_key=True),
    sa.Column("webhook_id", ExactText, nullable=False),
    sa.Column("received_at", Instant, nullable=False),
    sa.Column("status", ExactText, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("content_type", ExactText, nullable=False),
    sa.Column("run_id", ExactText),
    sa.Column("reason", ExactText),
    sa.Index("webhook_deliveries_newest", "webhook_id", "delivery_id"),
)

partial_index(schedules, "schedules_due", "due_at", "due_at IS NOT NULL")
partial_index(schedules, "schedules_waiting", "schedule_id", "waiting > 0")
# For what is removed with its run.
partial_index(webhook_deliveries, "webhook_deliveries_by_run", "run_id", "run_id IS NOT NULL")
