"""Who is asking: reads the credential of a request."""

from sandgate.auth.base import Authenticator
from sandgate.core.errors import NotAuthenticated
from sandgate.core.principal import Principal
from sandgate.http.exchange import Exchange

# A parameter of an operation that is who asks; ``Operation`` fills it in.
Caller = Principal

# For the documentation: how a client proves who it is. Either one is enough.
SECURITY_SCHEMES = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "A token of `POST /api/v1/auth/token`, or an API key.",
    },
    "password": {
        "type": "oauth2",
        "description": "Name and password; the documentation page exchanges them for a token.",
        "flows": {"password": {"tokenUrl": "/api/v1/auth/token", "scopes": {}}},
    },
}
SECURITY: list[dict[str, list[str]]] = [{"bearer": []}, {"password": []}]


async def authenticate(exchange: Exchange, authenticator: Authenticator) -> Principal:
    """The caller. Raises ``NotAuthenticated``."""
    scheme, _, credential = exchange.headers.get(b"authorization", b"").partition(b" ")
    credential = credential.strip()
    if scheme.lower() != b"bearer" or not credential or not credential.isascii():
        raise NotAuthenticated(
            "The request has no credential; send 'Authorization: Bearer <token>' with a token of "
            "POST /api/v1/auth/token or an API key"
        )
    return await authenticator.authenticate(credential.decode("ascii"))
