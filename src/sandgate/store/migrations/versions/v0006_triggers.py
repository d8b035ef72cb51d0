"""Schedules, webhooks, and what started a run."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def _text() -> sa.types.TypeEngine[str]:
    return sa.Text(collation="C") if op.get_bind().dialect.name == "postgresql" else sa.Text()


def upgrade() -> None:
    """Add what runs remember of their cause, and make the tables of the causes."""
    op.add_column("runs", sa.Column("trigger_type", _text(), nullable=False, server_default="api"))
    op.add_column("runs", sa.Column("trigger_id", _text()))
    op.add_column("runs", sa.Column("trigger_at", sa.BigInteger))
    _make_partial_index("runs", "runs_live_by_trigger", "trigger_id", "finished_at IS NULL AND trigger_id IS NOT NULL")
    _make_schedules()
    _make_webhooks()
    _make_webhook_keys()
    _make_webhook_deliveries()


def _make_schedules() -> None:
    op.create_table(
        "schedules",
        sa.Column("schedule_id", _text(), primary_key=True),
        sa.Column("workflow_id", _text(), nullable=False),
        sa.Column("owner_id", _text(), nullable=False),
        sa.Column("name", _text(), nullable=False),
        sa.Column("paused", sa.Boolean, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("waiting", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.Column("next_tick_at", sa.BigInteger),
        sa.Column("due_at", sa.BigInteger),
        sa.Column("last_tick_at", sa.BigInteger),
        sa.Column("last_run_at", sa.BigInteger),
        sa.Column("last_run_id", _text()),
        sa.Column("last_skipped_at", sa.BigInteger),
        sa.Column("last_skip_reason", _text()),
        sa.Column("last_error", sa.Text),
        sa.Column("queue", sa.Text, nullable=False),
        sa.Column("timing", sa.Text, nullable=False),
        sa.Column("policy", sa.Text, nullable=False),
        sa.Column("inputs", sa.Text, nullable=False),
    )
    op.create_index("schedules_by_owner", "schedules", ["owner_id", "schedule_id"])
    op.create_index("schedules_by_workflow", "schedules", ["workflow_id", "schedule_id"])
    _make_partial_index("schedules", "schedules_due", "due_at", "due_at IS NOT NULL")
    _make_partial_index("schedules", "schedules_waiting", "schedule_id", "waiting > 0")


def _make_webhooks() -> None:
    op.create_table(
        "webhooks",
        sa.Column("webhook_id", _text(), primary_key=True),
        sa.Column("workflow_id", _text(), nullable=False),
        sa.Column("owner_id", _text(), nullable=False),
        sa.Column("name", _text(), nullable=False),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Column("token_sha256", sa.LargeBinary, nullable=False),
        sa.Column("signature", _text(), nullable=False),
        sa.Column("salt", sa.LargeBinary),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.Column("filter", _text()),
        sa.Column("inputs", sa.Text, nullable=False),
    )
    op.create_index("webhooks_by_token", "webhooks", ["token_sha256"], unique=True)
    op.create_index("webhooks_by_owner", "webhooks", ["owner_id", "webhook_id"])
    op.create_index("webhooks_by_workflow", "webhooks", ["workflow_id", "webhook_id"])


def _make_webhook_keys() -> None:
    op.create_table(
        "webhook_keys",
        sa.Column("webhook_id", _text(), primary_key=True),
        sa.Column("key_sha256", sa.LargeBinary, primary_key=True),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("run_id", _text(), nullable=False),
    )
    op.create_index("webhook_keys_by_age", "webhook_keys", ["webhook_id", "created_at"])


def _make_webhook_deliveries() -> None:
    op.create_table(
        "webhook_deliveries",
        sa.Column("delivery_id", _text(), primary_key=True),
        sa.Column("webhook_id", _text(), nullable=False),
        sa.Column("received_at", sa.BigInteger, nullable=False),
        sa.Column("status", _text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("content_type", _text(), nullable=False),
        sa.Column("run_id", _text()),
        sa.Column("reason", _text()),
    )
    op.create_index("webhook_deliveries_newest", "webhook_deliveries", ["webhook_id", "delivery_id"])
    _make_partial_index("webhook_deliveries", "webhook_deliveries_by_run", "run_id", "run_id IS NOT NULL")


def _make_partial_index(table: str, name: str, columns: str, where: str) -> None:
    op.execute(f"CREATE INDEX {name} ON {table} ({columns}) WHERE {where}")
