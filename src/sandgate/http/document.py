"""The OpenAPI document, which FastAPI writes from the same signatures by which requests are read.

Imported when somebody asks for it: what serves requests needs nothing of FastAPI.
"""

import inspect
from collections.abc import Collection, Sequence
from typing import Annotated, Any, get_args, get_origin

from fastapi import FastAPI, params
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.requests import Request

import sandgate
from sandgate.core.errors import SandgateError
from sandgate.core.principal import Principal
from sandgate.http import documentation, parameters
from sandgate.http.authentication import SECURITY, SECURITY_SCHEMES
from sandgate.http.marks import Path, Query
from sandgate.http.operation import Endpoint, Operation

_DESCRIPTION = """Runs untrusted code in isolated environments.

Every answer that is not a success has the form of *Error*. Times are RFC 3339 in UTC; durations in requests are
seconds. Lists are newest first: send `next_cursor` as `cursor` to get the page after. Every path but the health
probes, the addresses of webhooks and this documentation needs a token or an API key in `Authorization: Bearer`.
"""


def write_document(operations: Sequence[Operation]) -> dict[str, Any]:
    """Describe these operations. Takes a second."""
    described = [operation for operation in operations if not operation.hidden]
    app = FastAPI(
        title="sandgate",
        version=sandgate.__version__,
        description=_DESCRIPTION,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        openapi_url=None,
    )
    app.router.routes.extend(map(_as_route, described))
    document = app.openapi()
    components = document.setdefault("components", {})
    components["securitySchemes"] = SECURITY_SCHEMES
    for kind, parts in documentation.shared_components().items():
        components.setdefault(kind, {}).update(parts)
    _restore_examples(components["schemas"], described)
    # FastAPI adds its own answer to wrong fields, which here are answered 400 like everything else.
    for name in ("HTTPValidationError", "ValidationError"):
        components.get("schemas", {}).pop(name, None)
    for methods in document["paths"].values():
        for entry in methods.values():
            entry["responses"].pop("422", None)
    parameters.describe(document)
    return document


def _restore_examples(schemas: dict[str, Any], operations: Sequence[Operation]) -> None:
    """FastAPI leaves out every null, also those in examples, where they are values."""
    for operation in operations:
        for model in operation.models():
            schema = model.model_json_schema()
            for name, part in {model.__name__: schema, **schema.get("$defs", {})}.items():
                if name in schemas and "examples" in part:
                    schemas[name]["examples"] = part["examples"]


def _as_route(operation: Operation) -> APIRoute:
    query = operation.signature.query
    for model in [*operation.models(), *([query[1]] if query is not None else [])]:
        model.model_rebuild()
        # What FastAPI makes of it would be deferred, too, past where it mutes a warning of pydantic's.
        model.model_config["defer_build"] = False
    return APIRoute(
        operation.path,
        _with_marks_of_fastapi(operation.endpoint),
        methods=[operation.method],
        status_code=operation.status,
        tags=[operation.tag],
        operation_id=operation.operation_id,
        response_model=operation.answer_model,
        responses=_document_answers(operation, operation.errors),
        openapi_extra=_document_rest(operation),
    )


def _with_marks_of_fastapi(endpoint: Endpoint) -> Endpoint:
    """A function with the signature that FastAPI would be given; nobody calls it."""

    async def described() -> BaseModel:
        raise NotImplementedError

    signature = inspect.signature(endpoint)
    kept = [each for each in map(_translated, signature.parameters.values()) if each is not None]
    described.__name__ = endpoint.__name__
    described.__doc__ = endpoint.__doc__
    described.__signature__ = signature.replace(parameters=kept)  # type: ignore[attr-defined]
    return described


def _translated(parameter: inspect.Parameter) -> inspect.Parameter | None:
    """None for what does not come from the request as it stands."""
    annotation = parameter.annotation
    if get_origin(annotation) is not Annotated:
        return None if annotation in (Request, Principal) else parameter
    kind, *marks = get_args(annotation)
    return parameter.replace(annotation=Annotated[kind, *map(_mark_of_fastapi, marks)])


def _mark_of_fastapi(mark: Any) -> Any:
    if isinstance(mark, Path):
        return params.Path(**mark.described)
    return params.Query() if isinstance(mark, Query) else mark


def _document_answers(operation: Operation, errors: Collection[type[SandgateError]]) -> dict[int | str, dict[str, Any]]:
    signature = operation.signature
    kinds = [*documentation.ALWAYS, *errors]
    if signature.caller is not None:
        kinds += documentation.WITH_CALLER
    if signature.body is not None:
        kinds += documentation.WITH_BODY
    if signature.query is not None:
        kinds += documentation.WITH_FIELDS
    if operation.idempotent:
        kinds += documentation.WITH_KEY
    answers = documentation.document_errors(kinds)
    answers[operation.status] = {"headers": documentation.REQUEST_ID_HEADER}
    return answers


def _document_rest(operation: Operation) -> dict[str, Any]:
    rest = {"security": SECURITY if operation.signature.caller is not None else [], **operation.extra}
    if operation.idempotent:
        rest["parameters"] = [documentation.IDEMPOTENCY_PARAMETER]
    return rest
