"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def _text() -> sa.types.TypeEngine[str]:
    return sa.Text(collation="C") if op.get_bind().dialect.name == "postgresql" else sa.Text()


def upgrade() -> None:
    """Make all tables of the first version."""
    _make_environments()
    _make_executions()
    _make_users()
    _make_revoked_tokens()
    _make_idempotency()
    op.create_table(
        "write_probe",
        sa.Column("probe_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("written", sa.BigInteger, nullable=False),
    )


def _make_environments() -> None:
    op.create_table(
        "environments",
        sa.Column("environment_id", _text(), primary_key=True),
        sa.Column("owner_id", _text(), nullable=False),
        sa.Column("name", _text(), nullable=False),
        sa.Column("template", _text(), nullable=False),
        sa.Column("isolation", _text(), nullable=False),
        sa.Column("status", _text(), nullable=False),
        sa.Column("status_reason", _text()),
        sa.Column("timeout_s", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("ended_at", sa.BigInteger),
        sa.Column("deleted_at", sa.BigInteger),
        sa.Column("limits", sa.Text, nullable=False),
        sa.Column("metadata", sa.Text, nullable=False),
    )
    _make_partial_index("environments", "environments_newest", "environment_id", "deleted_at IS NULL")
    _make_partial_index("environments", "environments_by_owner", "owner_id, environment_id", "deleted_at IS NULL")
    _make_partial_index("environments", "environments_by_status", "status, environment_id", "deleted_at IS NULL")
    _make_partial_index(
        "environments", "environments_by_owner_and_status", "owner_id, status, environment_id", "deleted_at IS NULL"
    )
    _make_partial_index("environments", "environments_by_name", "name, owner_id, environment_id", "deleted_at IS NULL")


def _make_executions() -> None:
    op.create_table(
        "executions",
        sa.Column("execution_id", _text(), primary_key=True),
        sa.Column("environment_id", _text(), nullable=False),
        sa.Column("owner_id", _text(), nullable=False),
        sa.Column("status", _text(), nullable=False),
        sa.Column("timeout_s", sa.Double, nullable=False),
        sa.Column("started_at", sa.BigInteger, nullable=False),
        sa.Column("finished_at", sa.BigInteger),
        sa.Column("duration_ms", sa.BigInteger),
        sa.Column("exit_code", sa.BigInteger),
        sa.Column("stdout_truncated", sa.Boolean, nullable=False),
        sa.Column("stderr_truncated", sa.Boolean, nullable=False),
        sa.Column("usage", sa.Text),
        sa.Column("error", sa.Text),
        sa.Column("stdout", sa.LargeBinary, nullable=False),
        sa.Column("stderr", sa.LargeBinary, nullable=False),
    )
    op.create_index("executions_by_environment", "executions", ["environment_id", "execution_id"])
    _make_partial_index("executions", "executions_running", "execution_id", "status = 'running'")
    _make_partial_index("executions", "executions_by_end", "finished_at", "finished_at IS NOT NULL")


def _make_users() -> None:
    op.create_table(
        "users",
        sa.Column("user_id", _text(), primary_key=True),
        sa.Column("name", _text(), nullable=False),
        sa.Column("role", _text(), nullable=False),
        sa.Column("password_hash", _text(), nullable=False),
        sa.Column("disabled", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("tokens_valid_from", sa.BigInteger, nullable=False),
    )
    op.create_index("users_by_name", "users", ["name"], unique=True)
    op.create_table(
        "api_keys",
        sa.Column("api_key_id", _text(), primary_key=True),
        sa.Column(
            "user_id",
            _text(),
            sa.ForeignKey("users.user_id", name="api_keys_of_users", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("label", _text(), nullable=False),
        sa.Column("secret_sha256", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger),
        sa.Column("last_used_at", sa.BigInteger),
    )
    op.create_index("api_keys_by_user", "api_keys", ["user_id", "api_key_id"])


def _make_revoked_tokens() -> None:
    op.create_table(
        "revoked_tokens",
        sa.Column("token_id", _text(), primary_key=True),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
    )
    op.create_index("revoked_tokens_by_expiry", "revoked_tokens", ["expires_at"])


def _make_idempotency() -> None:
    op.create_table(
        "idempotency",
        sa.Column("user_id", _text(), primary_key=True),
        sa.Column("key", _text(), primary_key=True),
        sa.Column("request_sha256", sa.LargeBinary, nullable=False),
        sa.Column("status", sa.BigInteger),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )
    op.create_index("idempotency_by_age", "idempotency", ["created_at"])
    _make_partial_index("idempotency", "idempotency_unanswered", "created_at", "status IS NULL")


def _make_partial_index(table: str, name: str, columns: str, where: str) -> None:
    op.execute(f"CREATE INDEX {name} ON {table} ({columns}) WHERE {where}")
