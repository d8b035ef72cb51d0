"""The table that tells databases apart; see :mod:`sandgate.store.schema`."""

import secrets

import sqlalchemy as sa

from sandgate.store.column_types import ExactText
from sandgate.store.template_schema import metadata

__all__ = ["database_identity", "make_identity", "metadata"]

# One row, which whoever makes the table puts there and nobody changes.
database_identity = sa.Table(
    "database_identity",
    metadata,
    sa.Column("identity", ExactText, primary_key=True),
)


def make_identity() -> str:
    """One that no other database has."""
    return secrets.token_hex(16)
