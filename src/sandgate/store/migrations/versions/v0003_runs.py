"""Signals to runs, retries of runs, and what finding and removing old rows needs."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_STEP_COLUMNS = (
    "run_id, step, item, status, attempt, losses, items, started_at, finished_at, wake_at, duration_ms, exit_code, "
    "outputs, error, stdout, stderr"
)


def _is_postgres() -> bool:
    return op.get_bind().dialect.name == "postgresql"


def _text() -> sa.types.TypeEngine[str]:
    return sa.Text(collation="C") if _is_postgres() else sa.Text()


def upgrade() -> None:
    """Make the table of signals, the column and the indexes."""
    op.create_table(
        "run_signals",
        sa.Column("signal_id", _text(), primary_key=True),
        sa.Column("run_id", _text(), nullable=False),
        sa.Column("kind", _text(), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
    )
    op.create_index("run_signals_by_run", "run_signals", ["run_id", "signal_id"])
    if _is_postgres():
        op.add_column("run_steps", sa.Column("attempts_before", sa.BigInteger, nullable=False, server_default="0"))
    else:
        _make_run_steps_anew()
    op.create_index("runs_by_workflow_and_status", "runs", ["workflow_id", "status", "run_id"])
    op.create_index("runs_by_name", "runs", ["workflow_name", "owner_id", "run_id"])
    _make_partial_index("runs", "runs_by_end", "finished_at", "finished_at IS NOT NULL")
    _make_partial_index("environments", "environments_by_end", "ended_at", "ended_at IS NOT NULL")
    _make_partial_index("workflows", "workflows_by_end", "deleted_at", "deleted_at IS NOT NULL")


def _make_run_steps_anew() -> None:
    """SQLite writes an added column behind the constraints, where no table that is made at once has one."""
    op.rename_table("run_steps", "run_steps_before")
    op.create_table(
        "run_steps",
        sa.Column("run_id", sa.Text, primary_key=True),
        sa.Column("step", sa.Text, primary_key=True),
        sa.Column("item", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("status", sa.Text, nullable=False),
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
        sa.Column("attempts_before", sa.BigInteger, nullable=False, server_default="0"),
    )
    op.execute(f"INSERT INTO run_steps ({_STEP_COLUMNS}) SELECT {_STEP_COLUMNS} FROM run_steps_before")  # noqa: S608
    op.drop_table("run_steps_before")


def _make_partial_index(table: str, name: str, columns: str, where: str) -> None:
    op.execute(f"CREATE INDEX {name} ON {table} ({columns}) WHERE {where}")
