"""Secrets of workflows."""

from sandgate.core import errors
from sandgate.http.api import Api
from sandgate.http.authentication import Caller
from sandgate.http.models.secrets import PutSecret, SecretAnswer, SecretDeletedAnswer, SecretsAnswer
from sandgate.http.paths import NewSecretPath, SecretPath
from sandgate.workflows.base import Secrets

_SECRETS = "/api/v1/orchestrator/secrets"
_TAG = "secrets"


def add_secret_routes(api: Api, secrets: Secrets) -> None:
    """Declare the operations."""

    @api.operation(
        "PUT",
        f"{_SECRETS}/{{secret_name}}",
        tag=_TAG,
        errors=(errors.Forbidden, errors.TooManySecrets, errors.UserNotFound),
    )
    async def put_secret(caller: Caller, secret_name: NewSecretPath, body: PutSecret) -> SecretAnswer:
        """Make a secret, or give it another value. Your workflows use it as `${{ secrets.NAME }}`."""
        return SecretAnswer.of(await secrets.put(caller, secret_name, body.value))

    @api.operation("GET", _SECRETS, tag=_TAG)
    async def list_secrets(caller: Caller) -> SecretsAnswer:
        """List your secrets by name. Values are shown to nobody."""
        return SecretsAnswer(secrets=[SecretAnswer.of(row) for row in await secrets.list(caller)])

    @api.operation("DELETE", f"{_SECRETS}/{{secret_name}}", tag=_TAG, errors=(errors.SecretNotFound, errors.Forbidden))
    async def delete_secret(caller: Caller, secret_name: SecretPath) -> SecretDeletedAnswer:
        """Delete one of your secrets. Steps that name it fail from now on."""
        await secrets.delete(caller, secret_name)
        return SecretDeletedAnswer(name=secret_name)
