"""The calls of a client about secrets."""

from collections.abc import Sequence
from datetime import datetime

from sandgate.sdk.answers import AnswerModel
from sandgate.sdk.calls import Calls
from sandgate.sdk.reading import quote_part
from sandgate.sdk.transport import Asked

_SECRETS = "/api/v1/orchestrator/secrets"


class Secret(AnswerModel):
    """A secret, whose value nobody is shown."""

    name: str
    creation_time: datetime
    updated_at: datetime


class Secrets(AnswerModel):
    """All of a user."""

    secrets: Sequence[Secret]


class SecretCalls(Calls):
    """The part of :class:`sandgate.sdk.client.Client` that is about secrets; it raises what that one does."""

    def put_secret(self, name: str, value: str) -> Secret:
        """Make a secret, or give it another value."""
        return self._get(Secret, Asked("PUT", f"{_SECRETS}/{quote_part(name)}", {"value": value}))

    def list_secrets(self) -> Sequence[Secret]:
        """Yours, by name."""
        return self._get(Secrets, Asked("GET", _SECRETS)).secrets

    def delete_secret(self, name: str) -> None:
        """Delete a secret; steps that name it fail from now on."""
        self._transport.ask(Asked("DELETE", f"{_SECRETS}/{quote_part(name)}"))
