"""The application: a table of operations, and the document that is made from it."""

from collections.abc import Callable, Collection
from typing import Any, NoReturn, TypeVar

from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

import sandgate
from sandgate.core.errors import NotFound, SandgateError
from sandgate.http import parameters
from sandgate.http.audit import Audit
from sandgate.http.authentication import SECURITY_SCHEMES
from sandgate.http.documentation import shared_components
from sandgate.http.operation import Endpoint, Gate, Operation
from sandgate.http.route_index import RouteIndex

EndpointT = TypeVar("EndpointT", bound=Endpoint)

_LONGEST_PATH_SHOWN = 200

_DESCRIPTION = """Runs untrusted code in isolated environments.

Every answer that is not a success has the form of *Error*. Times are RFC 3339 in UTC; durations in requests are
seconds. Lists are newest first: send `next_cursor` as `cursor` to get the page after. Every path but the health
probes, the addresses of webhooks and this documentation needs a token or an API key in `Authorization: Bearer`.
"""


class Api(FastAPI):
    """FastAPI as a registry: operations are declared on it, its document describes them; ``index`` finds them.

    Its layers of middleware are not used; :class:`sandgate.http.boundary.Boundary` stands in front of the index.
    """

    def __init__(self, gate: Gate) -> None:
        super().__init__(
            title="sandgate",
            version=sandgate.__version__,
            description=_DESCRIPTION,
            license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
            openapi_url=None,
            redirect_slashes=False,
        )
        self._gate = gate
        self._methods: dict[str, list[str]] = {}
        self.index = RouteIndex(self.router.routes, _refuse_path)

    def operation(
        self,
        method: str,
        path: str,
        *,
        tag: str,
        status: int = 200,
        errors: Collection[type[SandgateError]] = (),
        idempotent: bool = False,
        audit: Audit | None = None,
        hidden: bool = False,
        opens_socket: bool = False,
        extra: dict[str, Any] | None = None,
    ) -> Callable[[EndpointT], EndpointT]:
        """Declare a function as the operation; its signature says what it takes, its annotation what it answers.

        ``errors`` are those of the use case; what reading a request can meet is added by itself. ``extra`` is merged
        into the operation's part of the document. With ``opens_socket`` browsers may prove who they are in the ways
        that they have for a web socket. Whatever is no GET counts as a change, unless ``audit`` says else.
        """
        told = audit or (Audit.READ if method == "GET" else Audit.CHANGE)
        allowed = self._methods.setdefault(path, [])
        allowed += ["GET", "HEAD"] if method == "GET" else [method]

        def declare(endpoint: EndpointT) -> EndpointT:
            self.router.routes.append(
                Operation(
                    path,
                    endpoint,
                    self._gate,
                    method=method,
                    status=status,
                    tag=tag,
                    errors=errors,
                    idempotent=idempotent,
                    audit=told,
                    allowed=allowed,
                    hidden=hidden,
                    opens_socket=opens_socket,
                    extra=extra or {},
                )
            )
            return endpoint

        return declare

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document."""
        if self.openapi_schema is None:
            document = super().openapi()
            components = document.setdefault("components", {})
            components["securitySchemes"] = SECURITY_SCHEMES
            for kind, parts in shared_components().items():
                components.setdefault(kind, {}).update(parts)
            self._restore_examples(components["schemas"])
            # FastAPI adds its own answer to wrong fields, which here are answered 400 like everything else.
            for name in ("HTTPValidationError", "ValidationError"):
                components.get("schemas", {}).pop(name, None)
            for operations in document["paths"].values():
                for operation in operations.values():
                    operation["responses"].pop("422", None)
            parameters.describe(document)
            self.openapi_schema = document
        return self.openapi_schema

    def _restore_examples(self, schemas: dict[str, Any]) -> None:
        """FastAPI leaves out every null, also those in examples, where they are values."""
        for route in self.router.routes:
            for model in route.models() if isinstance(route, Operation) else ():
                schema = model.model_json_schema()
                for name, part in {model.__name__: schema, **schema.get("$defs", {})}.items():
                    if name in schemas and "examples" in part:
                        schemas[name]["examples"] = part["examples"]


async def _refuse_path(scope: Scope, _receive: Receive, _send: Send) -> NoReturn:
    path = scope["path"][:_LONGEST_PATH_SHOWN]
    raise NotFound(f"There is nothing at {path}; GET /openapi.json for all paths")
