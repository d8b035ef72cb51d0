"""The audit log, to which rows are only ever added."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_SQLITE = (
    """CREATE TRIGGER audit_log_keeps_rows BEFORE UPDATE ON audit_log
       BEGIN SELECT RAISE(ABORT, 'rows of the audit log are never changed'); END""",
    """CREATE TRIGGER audit_log_loses_none BEFORE DELETE ON audit_log
       WHEN OLD.number >= (SELECT first_number FROM audit_head)
       BEGIN SELECT RAISE(ABORT, 'rows of the audit log are not removed before their time'); END""",
    """CREATE TRIGGER audit_head_goes_on BEFORE UPDATE ON audit_head
       WHEN NEW.number < OLD.number OR NEW.first_number < OLD.first_number OR NEW.head_id <> OLD.head_id
       BEGIN SELECT RAISE(ABORT, 'the end of the audit log never goes back'); END""",
    """CREATE TRIGGER audit_head_stays BEFORE DELETE ON audit_head
       BEGIN SELECT RAISE(ABORT, 'the end of the audit log is never removed'); END""",
)

_POSTGRESQL = (
    """CREATE OR REPLACE FUNCTION audit_guard() RETURNS trigger LANGUAGE plpgsql AS $$
       BEGIN
           IF TG_OP = 'TRUNCATE' THEN
               RAISE EXCEPTION 'the audit log is never emptied';
           ELSIF TG_TABLE_NAME = 'audit_log' THEN
               IF TG_OP = 'UPDATE' THEN
                   RAISE EXCEPTION 'rows of the audit log are never changed';
               ELSIF OLD.number >= (SELECT first_number FROM audit_head) THEN
                   RAISE EXCEPTION 'rows of the audit log are not removed before their time';
               END IF;
               RETURN OLD;
           ELSIF TG_OP = 'DELETE' THEN
               RAISE EXCEPTION 'the end of the audit log is never removed';
           ELSIF NEW.number < OLD.number OR NEW.first_number < OLD.first_number OR NEW.head_id <> OLD.head_id THEN
               RAISE EXCEPTION 'the end of the audit log never goes back';
           END IF;
           RETURN NEW;
       END $$""",
    *(
        f"""CREATE TRIGGER {table}_{name} BEFORE {event} ON {table}
            FOR EACH {each} EXECUTE FUNCTION audit_guard()"""
        for table in ("audit_log", "audit_head")
        for name, event, each in (("guard", "UPDATE OR DELETE", "ROW"), ("stays", "TRUNCATE", "STATEMENT"))
    ),
)


def _text() -> sa.types.TypeEngine[str]:
    return sa.Text(collation="C") if op.get_bind().dialect.name == "postgresql" else sa.Text()


def upgrade() -> None:
    """Make the tables and what guards them."""
    op.create_table(
        "audit_log",
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("audit_id", _text(), nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("action", _text(), nullable=False),
        sa.Column("outcome", _text(), nullable=False),
        sa.Column("credential", _text(), nullable=False),
        sa.Column("actor_id", _text()),
        sa.Column("actor_name", _text()),
        sa.Column("credential_id", _text()),
        sa.Column("resource_id", _text()),
        sa.Column("status", sa.BigInteger),
        sa.Column("code", _text()),
        sa.Column("address", _text()),
        sa.Column("request_id", _text()),
        sa.Column("times", sa.BigInteger, nullable=False),
        sa.Column("details", _text(), nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
    )
    op.create_index("audit_log_by_id", "audit_log", ["audit_id"], unique=True)
    for name, column in (("actor", "actor_id"), ("action", "action"), ("resource", "resource_id")):
        op.create_index(f"audit_log_by_{name}", "audit_log", [column, "number"])
    op.create_index("audit_log_by_outcome", "audit_log", ["outcome", "number"])
    op.create_index("audit_log_by_time", "audit_log", ["at"])
    op.create_table(
        "audit_head",
        sa.Column("head_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("first_number", sa.BigInteger, nullable=False),
        sa.Column("anchor", sa.LargeBinary, nullable=False),
        sa.Column("seal", sa.LargeBinary, nullable=False),
    )
    for statement in _SQLITE if op.get_bind().dialect.name == "sqlite" else _POSTGRESQL:
        op.get_bind().exec_driver_sql(statement)
