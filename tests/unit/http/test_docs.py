"""The document of the API, and the page that shows it."""

import asyncio
import re
import threading
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any, cast

import fastapi_offline
import pytest

from sandgate.http.answer import Answer
from sandgate.http.api import Api
from sandgate.http.documentation import ALWAYS
from sandgate.http.models import accounts, environments, health, requests, schedules, sessions, webhooks
from sandgate.http.problems import status_of
from sandgate.http.routes.docs import add_docs_routes
from tests.unit.http.site import Site

BODILESS = ("/{rest}", "/cancel", "/trigger", "/stdin", "/interrupt", "/restart", "/pause", "/resume")
METHODS_WITH_BODY = {"post", "patch"}


async def _document(site: Site) -> dict[str, Any]:
    document: dict[str, Any] = (await site.get("/openapi.json", None)).json()
    return document


async def _operations(site: Site) -> list[tuple[str, str, dict[str, Any]]]:
    document = await _document(site)
    return [(path, method, op) for path, operations in document["paths"].items() for method, op in operations.items()]


async def test_every_operation_says_what_it_does(site: Site) -> None:
    """A name of its own, a sentence, a tag."""
    operations = await _operations(site)
    names = [operation["operationId"] for _, _, operation in operations]
    assert len(names) == len(set(names))
    assert all(operation["description"] and operation["tags"] for _, _, operation in operations)


async def test_every_group_and_every_parameter_is_described(site: Site) -> None:
    """And no group that there is none of."""
    document = await _document(site)
    groups = {name for _, _, operation in await _operations(site) for name in operation["tags"]}
    assert {group["name"] for group in document["tags"]} == groups
    for path, method, operation in await _operations(site):
        for parameter in operation.get("parameters", ()):
            where = (
                document["components"]["parameters"][parameter["$ref"].rpartition("/")[2]]
                if "$ref" in parameter
                else parameter
            )
            assert where.get("description"), f"{method} {path} {where['name']}"


async def test_every_operation_lists_every_way_to_fail(site: Site) -> None:
    """With the form of errors, and an example for each code."""
    for path, method, operation in await _operations(site):
        responses = operation["responses"]
        wanted = {str(status_of(kind)) for kind in ALWAYS}
        if operation["security"]:
            wanted |= {"401"}
        if "requestBody" in operation:
            wanted |= {"400", "413", "415"}
        if "{" in path:
            wanted |= {"404"}
        assert wanted <= set(responses), f"{method} {path}"
        assert "422" not in responses
        for status, response in responses.items():
            assert response["headers"]["X-Request-Id"]
            if int(status) >= 400:
                content = response["content"]["application/json"]
                assert content["schema"] == {"$ref": "#/components/schemas/Error"}
                assert all(example["value"]["error"]["code"] == code for code, example in content["examples"].items())
                assert content["examples"]


async def test_bodies_and_answers_have_examples_that_are_valid(site: Site) -> None:
    """Each example is one that the model itself accepts."""
    schemas = (await _document(site))["components"]["schemas"]
    models = {
        name: model
        for module in (accounts, environments, health, requests, schedules, sessions, webhooks)
        for name, model in vars(module).items()
        if name in schemas and hasattr(model, "model_validate")
    }
    assert {"CreateEnvironment", "ExecutionAnswer", "UserAnswer"} <= set(models)
    for name, model in models.items():
        for example in schemas[name].get("examples", []):
            assert model.model_validate(example), name
    for path, method, operation in await _operations(site):
        if method in METHODS_WITH_BODY and not path.endswith(BODILESS):
            assert operation["requestBody"]["content"]["application/json"]["schema"], path


async def test_everything_that_is_referred_to_is_there(site: Site) -> None:
    """No reference of the document leads nowhere, and no component is left over."""
    document = await _document(site)
    references: set[str] = set()

    def collect(node: Any) -> None:
        if isinstance(node, dict):
            if isinstance(node.get("$ref"), str):
                references.add(node["$ref"])
            for value in node.values():
                collect(value)
        elif isinstance(node, list):
            for value in node:
                collect(value)

    collect(document)
    there = {f"#/components/{kind}/{name}" for kind in ("schemas", "headers") for name in document["components"][kind]}
    assert references == there


async def test_only_probes_the_login_and_hooks_are_open(site: Site) -> None:
    """Every other operation names both ways to authenticate; the address of a hook or a link is a credential itself."""
    opened = {path for path, _, operation in await _operations(site) if operation["security"] == []}
    assert opened == {
        "/healthz",
        "/readyz",
        "/api/v1/auth/token",
        "/api/v1/hooks/{token}",
        "/api/v1/links/{link}",
        "/api/v1/port-links/{port_link}/{rest}",
    }
    for _, _, operation in await _operations(site):
        assert operation["security"] in ([], [{"bearer": []}, {"password": []}])
    schemes = (await _document(site))["components"]["securitySchemes"]
    assert schemes["password"]["flows"]["password"]["tokenUrl"] == "/api/v1/auth/token"


async def test_creating_operations_take_a_key(site: Site) -> None:
    """And no others."""
    keyed = {
        operation["operationId"]
        for _, _, operation in await _operations(site)
        if "Idempotency-Key" in [parameter["name"] for parameter in operation.get("parameters", [])]
    }
    assert keyed == {
        "create_environment",
        "create_volume",
        "create_session",
        "create_snapshot",
        "fork_environment",
        "create_api_key",
        "create_user",
        "create_workflow",
        "execute",
        "start_process",
        "start_workflow",
        "retry_run",
        "create_schedule",
        "trigger_schedule",
        "create_webhook",
    }


async def test_the_page_needs_this_server_only(site: Site) -> None:
    """Every script and style of it is served from here, and its policy allows nothing else."""
    page = await site.get("/docs", None)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    sources = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(sources) == 3
    for source in sources:
        assert source.startswith("/docs/")
        answer = await site.get(source, None)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(("text/javascript", "text/css"))
    assert "/openapi.json" in (await site.get("/docs/start.js", None)).text


async def test_the_files_are_those_of_their_package(site: Site) -> None:
    """Though the server finds them without importing it."""
    for name in ("swagger-ui.css", "swagger-ui-bundle.js"):
        own = files(fastapi_offline).joinpath("static", name).read_bytes()
        assert (await site.get(f"/docs/{name}", None)).content == own


@pytest.mark.parametrize("path", ["/docs/", "/docs/../api.py", "/docs/redoc.standalone.js", "/redoc"])
async def test_no_other_file_is_served(site: Site, path: str) -> None:
    """The page is a list of files, not a folder."""
    assert (await site.get(path, None)).status_code == 404


class _SlowApi:
    """Takes the declarations of operations, and its time to write the document."""

    def __init__(self) -> None:
        self.endpoints: dict[str, Callable[[], Awaitable[Answer]]] = {}
        self.written = threading.Event()
        self.begun = 0

    def operation(self, _method: str, path: str, **_named: object) -> Callable[[Any], Any]:
        return lambda endpoint: self.endpoints.setdefault(path, endpoint)

    def openapi(self) -> dict[str, Any]:
        self.begun += 1
        assert self.written.wait(30)
        return {"openapi": "3.1.0"}


async def test_the_document_is_written_once_while_others_are_served() -> None:
    """Who asks for it is a stranger, may be many, and may go away."""
    api = _SlowApi()
    add_docs_routes(cast(Api, api))
    asking = [asyncio.ensure_future(api.endpoints["/openapi.json"]()) for _number in range(3)]
    assert (await api.endpoints["/docs"]()).status == 200
    asking[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking[0]
    api.written.set()
    assert {(await each).body for each in asking[1:]} == {b'{"openapi":"3.1.0"}'}
    assert (await api.endpoints["/openapi.json"]()).status == 200
    assert api.begun == 1
