"""The tables. Every change here needs a revision under ``migrations/versions``; a contract test compares the two.

Columns that are read often come before large ones: SQLite reads a row from its start, and follows a chain of pages
for the rest.
"""

import sqlalchemy as sa

from sandgate.store.column_types import ExactText, Instant, JsonText, Utf8

metadata = sa.MetaData()

environments = sa.Table(
    "environments",
    metadata,
    sa.Column("environment_id", ExactText, primary_key=True),
    sa.Column("owner_id", ExactText, nullable=False),
    sa.Column("name", ExactText, nullable=False),
    sa.Column("template", ExactText, nullable=False),
    sa.Column("isolation", ExactText, nullable=False),
    sa.Column("status", ExactText, nullable=False),
    sa.Column("status_reason", ExactText),
    sa.Column("timeout_s", sa.BigInteger, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("expires_at", Instant, nullable=False),
    sa.Column("ended_at", Instant),
    sa.Column("deleted_at", Instant),
    sa.Column("limits", JsonText, nullable=False),
    sa.Column("metadata", JsonText, nullable=False),
    sa.Column("server_id", ExactText),
    sa.Column("network", JsonText),
    sa.Column("variables", JsonText),
    sa.Column("on_timeout", ExactText),
    sa.Column("idle_timeout_s", sa.BigInteger),
    sa.Column("paused_at", Instant),
    sa.Column("remaining_s", sa.Double),
    sa.Column("snapshot_id", ExactText),
    sa.Column("forked_from", ExactText),
    sa.Column("volumes", JsonText),
)

executions = sa.Table(
    "executions",
    metadata,
    sa.Column("execution_id", ExactText, primary_key=True),
    sa.Column("environment_id", ExactText, nullable=False),
    sa.Column("owner_id", ExactText, nullable=False),
    sa.Column("status", ExactText, nullable=False),
    sa.Column("timeout_s", sa.Double, nullable=False),
    sa.Column("started_at", Instant, nullable=False),
    sa.Column("finished_at", Instant),
    sa.Column("duration_ms", sa.BigInteger),
    sa.Column("exit_code", sa.BigInteger),
    sa.Column("stdout_truncated", sa.Boolean, nullable=False),
    sa.Column("stderr_truncated", sa.Boolean, nullable=False),
    sa.Column("usage", JsonText),
    sa.Column("error", JsonText),
    sa.Column("stdout", Utf8, nullable=False),
    sa.Column("stderr", Utf8, nullable=False),
    sa.Column("session_id", ExactText),
    sa.Column("results", JsonText),
    sa.Index("executions_by_environment", "environment_id", "execution_id"),
)

users = sa.Table(
    "users",
    metadata,
    sa.Column("user_id", ExactText, primary_key=True),
    sa.Column("name", ExactText, nullable=False),
    sa.Column("role", ExactText, nullable=False),
    sa.Column("password_hash", ExactText, nullable=False),
    sa.Column("disabled", sa.Boolean, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("tokens_valid_from", Instant, nullable=False),
    sa.Index("users_by_name", "name", unique=True),
)

api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("api_key_id", ExactText, primary_key=True),
    sa.Column(
        "user_id",
        ExactText,
        sa.ForeignKey("users.user_id", name="api_keys_of_users", ondelete="CASCADE"),
        nullable=False,
    ),
    sa.Column("label", ExactText, nullable=False),
    sa.Column("secret_sha256", sa.LargeBinary, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("expires_at", Instant),
    sa.Column("last_used_at", Instant),
    sa.Index("api_keys_by_user", "user_id", "api_key_id"),
)

revoked_tokens = sa.Table(
    "revoked_tokens",
    metadata,
    sa.Column("token_id", ExactText, primary_key=True),
    sa.Column("expires_at", Instant, nullable=False),
    sa.Index("revoked_tokens_by_expiry", "expires_at"),
)

idempotency = sa.Table(
    "idempotency",
    metadata,
    sa.Column("user_id", ExactText, primary_key=True),
    sa.Column("key", ExactText, primary_key=True),
    sa.Column("request_sha256", sa.LargeBinary, nullable=False),
    sa.Column("status", sa.BigInteger),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("claim_id", ExactText),
    sa.Column("server_id", ExactText),
    sa.Index("idempotency_by_age", "created_at"),
)

# Servers that share a database, and for how long each is believed to live.
servers = sa.Table(
    "servers",
    metadata,
    sa.Column("server_id", ExactText, primary_key=True),
    sa.Column("lease_until", Instant, nullable=False),
)

workflows = sa.Table(
    "workflows",
    metadata,
    sa.Column("workflow_id", ExactText, primary_key=True),
    sa.Column("owner_id", ExactText, nullable=False),
    sa.Column("name", ExactText, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("updated_at", Instant, nullable=False),
    sa.Column("deleted_at", Instant),
    sa.Column("definition", JsonText, nullable=False),
)

workflow_versions = sa.Table(
    "workflow_versions",
    metadata,
    sa.Column("workflow_id", ExactText, primary_key=True),
    sa.Column("version", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("definition", JsonText, nullable=False),
)

# Versions that are kept for their runs only: another has taken their place, or their workflow was deleted.
superseded_versions = sa.Table(
    "superseded_versions",
    metadata,
    sa.Column("workflow_id", ExactText, primary_key=True),
    sa.Column("version", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("owner_id", ExactText, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Index("superseded_versions_by_owner", "owner_id", "size_bytes"),
)

runs = sa.Table(
    "runs",
    metadata,
    sa.Column("run_id", ExactText, primary_key=True),
    sa.Column("workflow_id", ExactText, nullable=False),
    sa.Column("owner_id", ExactText, nullable=False),
    sa.Column("workflow_name", ExactText, nullable=False),
    sa.Column("workflow_version", sa.BigInteger, nullable=False),
    sa.Column("status", ExactText, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("started_at", Instant),
    sa.Column("finished_at", Instant),
    sa.Column("deadline_at", Instant),
    sa.Column("wake_at", Instant),
    sa.Column("cancel_asked_at", Instant),
    sa.Column("events", sa.BigInteger, nullable=False),
    sa.Column("fence", sa.BigInteger, nullable=False),
    sa.Column("lease_owner", ExactText),
    sa.Column("lease_until", Instant),
    sa.Column("error", JsonText),
    sa.Column("inputs", JsonText, nullable=False),
    sa.Column("outputs", JsonText),
    sa.Column("parent_run_id", ExactText),
    sa.Column("parent_step", ExactText),
    sa.Column("depth", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("slot_group", ExactText),
    sa.Column("slot_limit", sa.BigInteger),
    sa.Column("trigger_type", ExactText, nullable=False, server_default="api"),
    sa.Column("trigger_id", ExactText),
    sa.Column("trigger_at", Instant),
    sa.Column("templates", JsonText),
    sa.Index("runs_by_owner", "owner_id", "run_id"),
    sa.Index("runs_by_workflow", "workflow_id", "run_id"),
    sa.Index("runs_by_status", "status", "run_id"),
    sa.Index("runs_by_owner_and_status", "owner_id", "status", "run_id"),
    sa.Index("runs_by_workflow_and_status", "workflow_id", "status", "run_id"),
    sa.Index("runs_by_name", "workflow_name", "owner_id", "run_id"),
    sa.Index("runs_by_version", "workflow_id", "workflow_version"),
)

# How much is kept of each run that has ended. The index holds all that is asked for.
run_sizes = sa.Table(
    "run_sizes",
    metadata,
    sa.Column("run_id", ExactText, primary_key=True),
    sa.Column("owner_id", ExactText, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Index("run_sizes_by_owner", "owner_id", "run_id", "size_bytes"),
)

# ``item`` is -1 for a step as a whole.
run_steps = sa.Table(
    "run_steps",
    metadata,
    sa.Column("run_id", ExactText, primary_key=True),
    sa.Column("step", ExactText, primary_key=True),
    sa.Column("item", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("status", ExactText, nullable=False),
    sa.Column("attempt", sa.BigInteger, nullable=False),
    sa.Column("losses", sa.BigInteger, nullable=False),
    sa.Column("items", sa.BigInteger),
    sa.Column("started_at", Instant),
    sa.Column("finished_at", Instant),
    sa.Column("wake_at", Instant),
    sa.Column("duration_ms", sa.BigInteger),
    sa.Column("exit_code", sa.BigInteger),
    sa.Column("outputs", JsonText),
    sa.Column("error", JsonText),
    sa.Column("stdout", Utf8, nullable=False),
    sa.Column("stderr", Utf8, nullable=False),
    sa.Column("attempts_before", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("child_run_id", ExactText),
)

run_history = sa.Table(
    "run_history",
    metadata,
    sa.Column("run_id", ExactText, primary_key=True),
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("at", Instant, nullable=False),
    sa.Column("kind", ExactText, nullable=False),
    sa.Column("step", ExactText),
    sa.Column("item", sa.BigInteger),
    sa.Column("attempt", sa.BigInteger),
    sa.Column("details", JsonText, nullable=False),
)

# Words to the process that works on a run; a row is deleted in the transaction that writes what follows from it.
run_signals = sa.Table(
    "run_signals",
    metadata,
    sa.Column("signal_id", ExactText, primary_key=True),
    sa.Column("run_id", ExactText, nullable=False),
    sa.Column("kind", ExactText, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("body", JsonText, nullable=False),
    sa.Index("run_signals_by_run", "run_id", "signal_id"),
)

secrets = sa.Table(
    "secrets",
    metadata,
    sa.Column(
        "owner_id",
        ExactText,
        sa.ForeignKey("users.user_id", name="secrets_of_users", ondelete="CASCADE"),
        primary_key=True,
    ),
    sa.Column("name", ExactText, primary_key=True),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("updated_at", Instant, nullable=False),
    sa.Column("key_id", ExactText, nullable=False),
    sa.Column("sealed", sa.LargeBinary, nullable=False),
)

# ``item`` is -1 for a step as a whole. The bytes are a part of a file named ``pack`` outside of the database.
artifacts = sa.Table(
    "artifacts",
    metadata,
    sa.Column("artifact_id", ExactText, primary_key=True),
    sa.Column("run_id", ExactText, nullable=False),
    sa.Column("step", ExactText, nullable=False),
    sa.Column("item", sa.BigInteger, nullable=False),
    sa.Column("attempt", sa.BigInteger, nullable=False),
    sa.Column("path", ExactText, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("sha256", sa.LargeBinary, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("pack", ExactText, nullable=False),
    sa.Column("offset_bytes", sa.BigInteger, nullable=False),
    sa.Index("artifacts_by_run", "run_id", "artifact_id"),
    sa.Index("artifacts_by_age", "created_at"),
)

write_probe = sa.Table(
    "write_probe",
    metadata,
    sa.Column("probe_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("written", sa.BigInteger, nullable=False),
)


def partial_index(table: sa.Table, name: str, columns: str, where: str) -> None:
    """An index of the rows that meet a condition.

    SQLAlchemy's own way is an argument for each database, and loads the dialects of both into every process.
    """
    statement = sa.DDL(f"CREATE INDEX {name} ON {table.name} ({columns}) WHERE {where}")  # type: ignore[no-untyped-call]
    sa.event.listen(table, "after_create", statement)


# Lists: newest first is the order of ids. What was deleted is never listed, and piles up.
partial_index(environments, "environments_newest", "environment_id", "deleted_at IS NULL")
partial_index(environments, "environments_by_owner", "owner_id, environment_id", "deleted_at IS NULL")
partial_index(environments, "environments_by_status", "status, environment_id", "deleted_at IS NULL")
partial_index(
    environments, "environments_by_owner_and_status", "owner_id, status, environment_id", "deleted_at IS NULL"
)
partial_index(environments, "environments_by_name", "name, owner_id, environment_id", "deleted_at IS NULL")
# Few run at a time, whatever the number of rows.
partial_index(executions, "executions_running", "execution_id", "status = 'running'")
partial_index(executions, "executions_by_end", "finished_at", "finished_at IS NOT NULL")
partial_index(idempotency, "idempotency_unanswered", "created_at", "status IS NULL")
partial_index(workflows, "workflows_newest", "workflow_id", "deleted_at IS NULL")
partial_index(workflows, "workflows_by_owner", "owner_id, workflow_id", "deleted_at IS NULL")
partial_index(workflows, "workflows_by_name", "name, owner_id, workflow_id", "deleted_at IS NULL")
# Few runs are live at a time, whatever the number of rows.
partial_index(
    runs, "runs_live_by_slot", "owner_id, slot_group, run_id", "finished_at IS NULL AND slot_group IS NOT NULL"
)
partial_index(runs, "runs_live", "lease_until", "finished_at IS NULL")
partial_index(runs, "runs_live_by_workflow", "workflow_id", "finished_at IS NULL")
partial_index(runs, "runs_live_by_trigger", "trigger_id", "finished_at IS NULL AND trigger_id IS NOT NULL")
# What is removed when its time is over.
partial_index(runs, "runs_by_end", "finished_at", "finished_at IS NOT NULL")
partial_index(environments, "environments_by_end", "ended_at", "ended_at IS NOT NULL")
partial_index(workflows, "workflows_by_end", "deleted_at", "deleted_at IS NOT NULL")
