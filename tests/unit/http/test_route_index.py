"""The index finds what trying all routes in their order would find."""

from typing import Any

import pytest
from starlette.routing import Match, Mount, Route
from starlette.types import Receive, Scope, Send

from sandgate.http.route_index import RouteIndex

_PATHS = (
    ("/things", "POST"),
    ("/things", "GET"),
    ("/things/{thing_id}", "GET"),
    ("/things/best", "GET"),
    ("/things/{thing_id}/parts", "GET"),
    ("/things/{thing_id}/parts/{part_id}", "DELETE"),
    ("/things/{thing_id}/files/{path:path}", "GET"),
    ("/{kind}/best", "PUT"),
    ("/pages/v{number:int}.html", "GET"),
    ("/", "GET"),
)


async def _endpoint(scope: Scope, _receive: Receive, _send: Send) -> None:
    scope["served"] = True


class _Endpoint:
    """An application by itself, which starlette takes as it is."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _endpoint(scope, receive, send)


async def _nobody(scope: Scope, _receive: Receive, _send: Send) -> None:
    scope["refused"] = True


async def _receive() -> Any:
    raise AssertionError


async def _send(_message: Any) -> None:
    return


ROUTES = [Route(path, _Endpoint(), methods=[method]) for path, method in _PATHS]


def _scope(method: str, path: str) -> Scope:
    return {"type": "http", "method": method, "path": path, "headers": []}


def _first_that_matches(method: str, path: str) -> Route | None:
    matches = [(route, route.matches(_scope(method, path))[0]) for route in ROUTES]
    full = [route for route, match in matches if match is Match.FULL]
    partial = [route for route, match in matches if match is Match.PARTIAL]
    return next(iter([*full, *partial]), None)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
@pytest.mark.parametrize(
    "path",
    [
        "/",
        "",
        "/things",
        "/things/",
        "/things/7",
        "/things/best",
        "/things/7/parts",
        "/things/7/parts/2",
        "/things/7/parts/2/more",
        "/things/7/files/",
        "/things/7/files/a/b//c",
        "/things/best/files/best",
        "/others/best",
        "/pages/v3.html",
        "/pages/v.html",
        "/nothing",
        "//things",
    ],
)
def test_the_first_that_matches_is_chosen(method: str, path: str) -> None:
    """Whatever the path, the choice is the one of trying every route in turn."""
    candidates = RouteIndex(ROUTES, _nobody).candidates(path)
    expected = _first_that_matches(method, path)
    scope = _scope(method, path)
    matches = [(route, route.matches(scope)[0]) for route in candidates]
    full = [route for route, match in matches if match is Match.FULL]
    partial = [route for route, match in matches if match is Match.PARTIAL]
    assert next(iter([*full, *partial]), None) is expected


def test_few_are_tried() -> None:
    """Routes that have other names in the place of one of the path's are not looked at."""
    index = RouteIndex(ROUTES, _nobody)
    assert [getattr(route, "path", "") for route in index.candidates("/things")] == ["/things", "/things"]
    assert [getattr(route, "path", "") for route in index.candidates("/things/best")] == [
        "/things/{thing_id}",
        "/things/best",
        "/{kind}/best",
    ]


async def test_the_request_is_served_with_what_its_path_names() -> None:
    """The route is told what the parameters of its path are."""
    scope = _scope("GET", "/things/7/files/a/b")
    await RouteIndex(ROUTES, _nobody)(scope, _receive, _send)
    assert scope["served"]
    assert scope["path_params"] == {"thing_id": "7", "path": "a/b"}


async def test_what_nobody_knows_goes_to_the_default() -> None:
    """A path of nobody's is refused by whoever is there for that."""
    scope = _scope("GET", "/nothing/here")
    await RouteIndex(ROUTES, _nobody)(scope, _receive, _send)
    assert scope["refused"]


def test_routes_that_are_declared_late_are_found() -> None:
    """The index is made before the operations are declared."""
    routes: list[Route] = []
    index = RouteIndex(routes, _nobody)
    routes.append(ROUTES[0])
    assert index.candidates("/things") == [ROUTES[0]]


def test_what_has_no_path_of_its_own_is_always_tried() -> None:
    """Of something else than a route nobody knows what it is for."""
    mount = Mount("/below", app=_nobody)
    assert RouteIndex([mount], _nobody).candidates("/elsewhere") == [mount]
