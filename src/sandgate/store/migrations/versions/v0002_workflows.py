"""Workflows, their versions, and their runs."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def _text() -> sa.types.TypeEngine[str]:
    return sa.Text(collation="C") if op.get_bind().dialect.name == "postgresql" else sa.Text()


def upgrade() -> None:
    """Make the tables of the orchestrator."""
    _make_workflows()
    _make_workflow_versions()
    _make_runs()
    _make_run_steps()
    _make_run_history()


def _make_workflows() -> None:
    op.create_table(
        "workflows",
        sa.Column("workflow_id", _text(), primary_key=True),
        sa.Column("owner_id", _text(), nullable=False),
        sa.Column("name", _text(), nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.Column("deleted_at", sa.BigInteger),
        sa.Column("definition", sa.Text, nullable=False),
    )
    _make_partial_index("workflows", "workflows_newest", "workflow_id", "deleted_at IS NULL")
    _make_partial_index("workflows", "workflows_by_owner", "owner_id, workflow_id", "deleted_at IS NULL")
    _make_partial_index("workflows", "workflows_by_name", "name, owner_id, workflow_id", "deleted_at IS NULL")


def _make_workflow_versions() -> None:
    op.create_table(
        "workflow_versions",
        sa.Column("workflow_id", _text(), primary_key=True),
        sa.Column("version", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("definition", sa.Text, nullable=False),
    )


def _make_runs() -> None:
    op.create_table(
        "runs",
        sa.Column("run_id", _text(), primary_key=True),
        sa.Column("workflow_id", _text(), nullable=False),
        sa.Column("owner_id", _text(), nullable=False),
        sa.Column("workflow_name", _text(), nullable=False),
        sa.Column("workflow_version", sa.BigInteger, nullable=False),
        sa.Column("status", _text(), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("started_at", sa.BigInteger),
        sa.Column("finished_at", sa.BigInteger),
        sa.Column("deadline_at", sa.BigInteger),
        sa.Column("wake_at", sa.BigInteger),
        sa.Column("cancel_asked_at", sa.BigInteger),
        sa.Column("events", sa.BigInteger, nullable=False),
        sa.Column("fence", sa.BigInteger, nullable=False),
        sa.Column("lease_owner", _text()),
        sa.Column("lease_until", sa.BigInteger),
        sa.Column("error", sa.Text),
        sa.Column("inputs", sa.Text, nullable=False),
    )
    op.create_index("runs_by_owner", "runs", ["owner_id", "run_id"])
    op.create_index("runs_by_workflow", "runs", ["workflow_id", "run_id"])
    op.create_index("runs_by_status", "runs", ["status", "run_id"])
    op.create_index("runs_by_owner_and_status", "runs", ["owner_id", "status", "run_id"])
    _make_partial_index("runs", "runs_live", "lease_until", "finished_at IS NULL")
    _make_partial_index("runs", "runs_live_by_workflow", "workflow_id", "finished_at IS NULL")


def _make_run_steps() -> None:
    op.create_table(
        "run_steps",
        sa.Column("run_id", _text(), primary_key=True),
        sa.Column("step", _text(), primary_key=True),
        sa.Column("item", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("status", _text(), nullable=False),
        sa.Column("attempt", sa.BigInteger, nullable=False),
        sa.Column("losses", sa.BigInteger, nullable=False),
        sa.Column("items", sa.BigInteger),
        sa.Column("started_at", sa.BigInteger),
        sa.Column("finished_at", sa.BigInteger),
        sa.Column("wake_at", sa.BigInteger),
        sa.Column("duration_ms", sa.BigInteger),
        sa.Column("exit_code", sa.BigInteger),
        sa.Column("outputs", sa.Text),
        sa.Column("error", sa.Text),
        sa.Column("stdout", sa.LargeBinary, nullable=False),
        sa.Column("stderr", sa.LargeBinary, nullable=False),
    )


def _make_run_history() -> None:
    op.create_table(
        "run_history",
        sa.Column("run_id", _text(), primary_key=True),
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("kind", _text(), nullable=False),
        sa.Column("step", _text()),
        sa.Column("item", sa.BigInteger),
        sa.Column("attempt", sa.BigInteger),
        sa.Column("details", sa.Text, nullable=False),
    )


def _make_partial_index(table: str, name: str, columns: str, where: str) -> None:
    op.execute(f"CREATE INDEX {name} ON {table} ({columns}) WHERE {where}")
