"""The tables of the audit log, and the triggers that let nothing be changed in them; see :mod:`sandgate.store.schema`.

The triggers stop mistakes and injected statements, not whoever owns the database: for those there is the chain.
"""

import sqlalchemy as sa

from sandgate.store.column_types import ExactText, Instant
from sandgate.store.trigger_schema import metadata

__all__ = ["audit_head", "audit_log", "metadata"]

audit_log = sa.Table(
    "audit_log",
    metadata,
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("audit_id", ExactText, nullable=False),
    sa.Column("at", Instant, nullable=False),
    sa.Column("action", ExactText, nullable=False),
    sa.Column("outcome", ExactText, nullable=False),
    sa.Column("credential", ExactText, nullable=False),
    sa.Column("actor_id", ExactText),
    sa.Column("actor_name", ExactText),
    sa.Column("credential_id", ExactText),
    sa.Column("resource_id", ExactText),
    sa.Column("status", sa.BigInteger),
    sa.Column("code", ExactText),
    sa.Column("address", ExactText),
    sa.Column("request_id", ExactText),
    sa.Column("times", sa.BigInteger, nullable=False),
    sa.Column("details", ExactText, nullable=False),
    sa.Column("digest", sa.LargeBinary, nullable=False),
    sa.Index("audit_log_by_id", "audit_id", unique=True),
    sa.Index("audit_log_by_actor", "actor_id", "number"),
    sa.Index("audit_log_by_action", "action", "number"),
    sa.Index("audit_log_by_resource", "resource_id", "number"),
    sa.Index("audit_log_by_outcome", "outcome", "number"),
    sa.Index("audit_log_by_time", "at"),
)

# One row, with the id 1.
audit_head = sa.Table(
    "audit_head",
    metadata,
    sa.Column("head_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("number", sa.BigInteger, nullable=False),
    sa.Column("digest", sa.LargeBinary, nullable=False),
    sa.Column("first_number", sa.BigInteger, nullable=False),
    sa.Column("anchor", sa.LargeBinary, nullable=False),
    sa.Column("seal", sa.LargeBinary, nullable=False),
)

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


def _guard(_metadata: sa.MetaData, connection: sa.Connection, **_named: object) -> None:
    for statement in _SQLITE if connection.dialect.name == "sqlite" else _POSTGRESQL:
        connection.exec_driver_sql(statement)


sa.event.listen(metadata, "after_create", _guard)
