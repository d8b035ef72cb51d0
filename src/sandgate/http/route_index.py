"""Finds the operation that a request is for, without trying all of them one after the other."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from starlette.routing import BaseRoute, Match, Mount
from starlette.types import ASGIApp, Receive, Scope, Send


@dataclass(slots=True)
class _Place:
    """What comes behind a beginning of a path; routes by their number, which says who is tried first."""

    named: "dict[str, _Place]" = field(default_factory=dict)
    any_name: "_Place | None" = None
    ends: list[int] = field(default_factory=list)
    # Those that may be for whatever follows.
    open: list[int] = field(default_factory=list)

    def add(self, number: int, names: Sequence[str]) -> None:
        """Sort in a route with this path from here on."""
        place = self
        for name in names:
            if "{" not in name:
                place = place.named.setdefault(name, _Place())
            elif name.startswith("{") and name.endswith("}") and ":" not in name:
                place.any_name = place = place.any_name or _Place()
            else:
                place.open.append(number)
                return
        place.ends.append(number)


class RouteIndex:
    """An application that hands each request to the first of the ``routes`` that matches it.

    Where none knows both path and method, it is the first that knows the path; what nobody knows is for ``default``.
    The routes are looked at when the first request comes.
    """

    def __init__(self, routes: Sequence[BaseRoute], default: ASGIApp) -> None:
        self._routes = routes
        self._default = default
        self._root: _Place | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        chosen: tuple[BaseRoute, Scope] | None = None
        for route in self.candidates(scope["path"]):
            match, found = route.matches(scope)
            if match is Match.FULL:
                chosen = route, found
                break
            if match is Match.PARTIAL and chosen is None:
                chosen = route, found
        if chosen is None:
            await self._default(scope, receive, send)
            return
        scope.update(chosen[1])
        await chosen[0].handle(scope, receive, send)

    def candidates(self, path: str) -> list[BaseRoute]:
        """The routes that a path can be for, in their order: few, and every one that matches is among them."""
        if self._root is None:
            self._root = self._sort()
        numbers = list(self._root.open)
        places = [self._root]
        for name in path.split("/"):
            following = []
            for place in places:
                if name in place.named:
                    following.append(place.named[name])
                if place.any_name is not None:
                    following.append(place.any_name)
            places = following
            for place in places:
                numbers += place.open
        for place in places:
            numbers += place.ends
        return [self._routes[number] for number in sorted(numbers)]

    def _sort(self) -> _Place:
        root = _Place()
        for number, route in enumerate(self._routes):
            path = getattr(route, "path", None)
            if isinstance(route, Mount) or path is None:
                root.open.append(number)
            else:
                root.add(number, path.split("/"))
        return root
