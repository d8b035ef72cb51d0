"""Tokens and API keys."""

from typing import Annotated, Any

from starlette.requests import Request

from sandgate.auth.base import Authenticator, IssuedApiKey
from sandgate.core import errors
from sandgate.core.audit import Credential
from sandgate.http.api import Api
from sandgate.http.authentication import Caller
from sandgate.http.bodies import (
    FORM_TYPE,
    JSON_TYPE,
    check_media_type,
    parse_form,
    parse_json,
    read_body,
    validate,
)
from sandgate.http.exchange import exchange_of
from sandgate.http.idempotency import keeper
from sandgate.http.marks import Query
from sandgate.http.models.accounts import (
    ApiKeyAnswer,
    ApiKeyDeletedAnswer,
    ApiKeysAnswer,
    NewApiKeyAnswer,
    RevokedAnswer,
    TokenAnswer,
)
from sandgate.http.models.requests import CreateApiKey, Credentials, PasswordForm, Revoke
from sandgate.http.pagination import PageQuery, next_cursor
from sandgate.http.paths import ApiKeyPath

_AUTH = "/api/v1/auth"
_KEYS = f"{_AUTH}/api-keys"
_TAG = "authentication"

# A name and a password are short; strangers need not be read at length.
_MOST_BYTES = 16_384

_TOKEN_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            JSON_TYPE: {"schema": Credentials.model_json_schema()},
            FORM_TYPE: {"schema": PasswordForm.model_json_schema()},
        },
    }
}


async def _read_credentials(request: Request) -> Credentials:
    exchange = exchange_of(request.scope)
    kind = check_media_type(exchange, JSON_TYPE, FORM_TYPE)
    raw = await read_body(request.scope, request.receive, _MOST_BYTES)
    if kind == FORM_TYPE:
        return validate(PasswordForm, parse_form(raw))
    return validate(Credentials, parse_json(raw))


def _shown(issued: IssuedApiKey) -> NewApiKeyAnswer:
    return NewApiKeyAnswer.made(issued.key, issued.secret)


def add_auth_routes(api: Api, authenticator: Authenticator) -> None:
    """Declare the operations."""

    @api.operation(
        "POST",
        f"{_AUTH}/token",
        tag=_TAG,
        errors=(
            errors.InvalidRequest,
            errors.InvalidCredentials,
            errors.TooManyLoginAttempts,
            errors.TooManyRequests,
            errors.PayloadTooLarge,
            errors.UnsupportedMediaType,
            errors.StoreUnavailable,
            errors.ServiceDraining,
        ),
        extra=_TOKEN_BODY,
    )
    async def issue_token(request: Request) -> TokenAnswer:
        """Exchange a name and a password for a token, as JSON or as the password form of OAuth 2."""
        exchange = exchange_of(request.scope)
        exchange.credential = Credential.PASSWORD
        credentials = await _read_credentials(request)
        exchange.login_name = credentials.username
        token = await authenticator.issue_token(credentials.username, credentials.password, exchange.address)
        return TokenAnswer(access_token=token.access_token, expires_in=token.expires_in_s)

    @api.operation("POST", f"{_AUTH}/revoke", tag=_TAG)
    async def revoke_token(caller: Caller, body: Revoke | None = None) -> RevokedAnswer:
        """End a token of yours before its time: the one in the body, or the one that the request came with."""
        await authenticator.revoke(caller, None if body is None else body.token)
        return RevokedAnswer()

    @api.operation("POST", _KEYS, tag=_TAG, status=201, idempotent=True, errors=(errors.Forbidden, errors.Conflict))
    async def create_api_key(caller: Caller, body: CreateApiKey, request: Request) -> NewApiKeyAnswer:
        """Make an API key that acts as you. Its secret is shown in this answer and never again."""
        keep = keeper(request, _shown)
        return _shown(await authenticator.create_api_key(caller, body.label, body.expires_in, keep))

    @api.operation("GET", _KEYS, tag=_TAG)
    async def list_api_keys(caller: Caller, query: Annotated[PageQuery, Query()]) -> ApiKeysAnswer:
        """List your API keys, newest first, without their secrets."""
        page = await authenticator.list_api_keys(caller, query.page_request("key"))
        keys = [ApiKeyAnswer.of(key) for key in page.items]
        return ApiKeysAnswer(api_keys=keys, next_cursor=next_cursor(page))

    @api.operation("DELETE", f"{_KEYS}/{{api_key_id}}", tag=_TAG, errors=(errors.ApiKeyNotFound,))
    async def delete_api_key(caller: Caller, api_key_id: ApiKeyPath) -> ApiKeyDeletedAnswer:
        """End one of your API keys."""
        await authenticator.delete_api_key(caller, api_key_id)
        return ApiKeyDeletedAnswer(api_key_id=api_key_id)
