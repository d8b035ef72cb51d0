"""Secrets and artifacts of workflows."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def _text() -> sa.types.TypeEngine[str]:
    return sa.Text(collation="C") if op.get_bind().dialect.name == "postgresql" else sa.Text()


def upgrade() -> None:
    """Make the tables of what workflows keep."""
    _make_secrets()
    _make_artifacts()


def _make_secrets() -> None:
    op.create_table(
        "secrets",
        sa.Column(
            "owner_id",
            _text(),
            sa.ForeignKey("users.user_id", name="secrets_of_users", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("name", _text(), primary_key=True),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.Column("key_id", _text(), nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
    )


def _make_artifacts() -> None:
    op.create_table(
        "artifacts",
        sa.Column("artifact_id", _text(), primary_key=True),
        sa.Column("run_id", _text(), nullable=False),
        sa.Column("step", _text(), nullable=False),
        sa.Column("item", sa.BigInteger, nullable=False),
        sa.Column("attempt", sa.BigInteger, nullable=False),
        sa.Column("path", _text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("sha256", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("pack", _text(), nullable=False),
        sa.Column("offset_bytes", sa.BigInteger, nullable=False),
    )
    op.create_index("artifacts_by_run", "artifacts", ["run_id", "artifact_id"])
    op.create_index("artifacts_by_age", "artifacts", ["created_at"])
