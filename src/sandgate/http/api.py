"""The application: a table of operations, and the document that is made from it."""

from collections.abc import Callable, Collection
from typing import Any, NoReturn, TypeVar

from starlette.types import Receive, Scope, Send

from sandgate.core.errors import NotFound, SandgateError
from sandgate.http.audit import Audit
from sandgate.http.operation import Endpoint, Gate, Operation
from sandgate.http.route_index import RouteIndex

EndpointT = TypeVar("EndpointT", bound=Endpoint)

_LONGEST_PATH_SHOWN = 200


class Api:
    """A registry: operations are declared on it, ``document`` describes them; ``index`` finds them.

    :class:`sandgate.http.boundary.Boundary` stands in front of the index.
    """

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._methods: dict[str, list[str]] = {}
        self._operations: list[Operation] = []
        self._document: dict[str, Any] | None = None
        self.index = RouteIndex(self._operations, _refuse_path)

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
            self._operations.append(
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
        if self._document is None:
            # FastAPI, which writes it, takes longer to be imported than most servers take to start without.
            from sandgate.http.document import write_document

            self._document = write_document(self._operations)
        return self._document


async def _refuse_path(scope: Scope, _receive: Receive, _send: Send) -> NoReturn:
    path = scope["path"][:_LONGEST_PATH_SHOWN]
    raise NotFound(f"There is nothing at {path}; GET /openapi.json for all paths")
