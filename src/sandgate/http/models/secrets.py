"""What clients send and get to read about secrets: values only ever come in."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from sandgate.core.secret import Secret
from sandgate.http.models.base import Model
from sandgate.http.models.parts import Cursor, with_example
from sandgate.workflows.masking import SHORTEST_SECRET
from sandgate.workflows.secrets import LONGEST_SECRET_BYTES

_TIME = "2026-01-01T00:00:00Z"
_SECRET = {"name": "API_TOKEN", "creation_time": _TIME, "updated_at": _TIME}


class PutSecret(Model):
    """The value of a secret."""

    model_config = ConfigDict(
        strict=True, extra="forbid", json_schema_extra={"examples": [{"value": "correct horse battery staple"}]}
    )

    value: Annotated[
        str,
        Field(
            min_length=SHORTEST_SECRET,
            max_length=LONGEST_SECRET_BYTES,
            repr=False,
            description=f"At most {LONGEST_SECRET_BYTES} bytes. It is shown to nobody again.",
            json_schema_extra={"format": "password", "writeOnly": True},
        ),
    ]


class SecretAnswer(Model):
    """A secret, without its value."""

    model_config = with_example(_SECRET)

    name: str
    creation_time: datetime
    updated_at: datetime

    @classmethod
    def of(cls, secret: Secret) -> "SecretAnswer":
        """From the record."""
        return cls(name=secret.name, creation_time=secret.created_at, updated_at=secret.updated_at)


class SecretsAnswer(Model):
    """All secrets of the caller by name; there are few, so that one page holds them."""

    model_config = with_example({"secrets": [_SECRET], "next_cursor": None})

    secrets: list[SecretAnswer]
    next_cursor: Cursor = None


class SecretDeletedAnswer(Model):
    """Steps that name the secret fail from now on."""

    model_config = with_example({"name": "API_TOKEN", "status": "deleted"})

    name: str
    status: Literal["deleted"] = "deleted"
