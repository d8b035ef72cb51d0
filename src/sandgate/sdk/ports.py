"""The calls of a client about what listens in environments."""

import json
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypedDict, Unpack

from sandgate.sdk.answers import AnswerModel
from sandgate.sdk.calls import Calls
from sandgate.sdk.files import environment_path
from sandgate.sdk.transport import Asked


class PortLink(AnswerModel):
    """A link to a port: behind the server's address, ``link_path`` and what is asked for are all that is needed.

    ``link_url`` is for a browser, where the server has names for ports.
    """

    link_path: str
    link_url: str | None
    port: int
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class PortAnswer:
    """What a server inside answers, whatever its status; names of ``headers`` are in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    def json(self) -> Any:
        """Its content, from JSON. Raises ``ValueError``."""
        return json.loads(self.content)


@dataclass(frozen=True, slots=True)
class OpenPortAnswer:
    """One whose content comes in ``pieces``."""

    status: int
    headers: Mapping[str, str]
    pieces: Iterator[bytes]


class PortOptions(TypedDict, total=False):
    """What a server inside is asked with; a piece of its answer has to come within ``silence_s``."""

    method: str
    content: bytes | Iterable[bytes] | None
    headers: Mapping[str, str] | None
    silence_s: float


def port_path(environment_id: str, port: int, path: str = "/") -> str:
    """Where something behind a port is; ``path`` may have a query, and is passed on as it stands."""
    before, mark, query = path.removeprefix("/").partition("?")
    # Dots alone would be taken for a way through the path, out of the port.
    parts = [part if part.strip(".") else "%2E" * len(part) for part in before.split("/")]
    return f"{environment_path(environment_id)}/ports/{port}/{'/'.join(parts)}{mark}{query}"


class PortCalls(Calls):
    """The part of :class:`sandgate.sdk.client.Client` that is about ports; it raises what that one does.

    ``ApiError`` is for what this API refuses, as a port at which nothing listens (``PORT_NOT_SERVED``); what the server
    inside answers is an answer, whatever its status.
    """

    def ask_port(self, environment_id: str, port: int, path: str = "/", **more: Unpack[PortOptions]) -> PortAnswer:
        """Ask a server inside; its whole answer. Never asked twice."""
        with self.open_port(environment_id, port, path, **more) as answer:
            return PortAnswer(answer.status, answer.headers, b"".join(answer.pieces))

    @contextmanager
    def open_port(
        self, environment_id: str, port: int, path: str = "/", **more: Unpack[PortOptions]
    ) -> Generator[OpenPortAnswer, None, None]:
        """Ask a server inside; its answer as it comes."""
        asked = Asked(more.get("method", "GET"), port_path(environment_id, port, path))
        headers, silence_s = more.get("headers") or {}, more.get("silence_s", 60.0)
        with self._transport.opened_passage(asked, headers, more.get("content"), silence_s) as answer:
            yield OpenPortAnswer(*answer)

    def port_address(self, environment_id: str, port: int, path: str = "/") -> str:
        """Where a client of your own finds it, which has to send your token or API key along."""
        return self._transport.address + port_path(environment_id, port, path)

    def create_port_link(self, environment_id: str, port: int, *, expires_in_s: int | None = None) -> PortLink:
        """A link with which anybody may talk to a port until it expires."""
        body = {} if expires_in_s is None else {"expires_in": expires_in_s}
        asked = Asked("POST", f"{environment_path(environment_id)}/port-links/{port}", body)
        return self._get(PortLink, asked)
