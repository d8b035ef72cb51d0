"""A file as an answer: whole or a part of it, read from the disk as fast as the client takes it.

Source: RFC 9110, sections 13 and 14; of several ranges in one request nothing is made, and the whole file is sent.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol
from urllib.parse import quote

from starlette.types import Receive, Send

from sandgate.core.errors import RangeNotSatisfiable
from sandgate.http.answer import Answer, Header
from sandgate.http.connection import while_connected
from sandgate.http.documentation import REQUEST_ID_HEADER
from sandgate.http.exchange import Exchange

PIECE_BYTES = 256 * 1024
OCTETS = b"application/octet-stream"
HARMLESS: Header = (b"content-security-policy", b"default-src 'none'; sandbox")
"""Whatever it is, a browser that shows it all the same runs nothing of it."""

RANGE_PARAMETERS: list[dict[str, Any]] = [
    {
        "name": name,
        "in": "header",
        "required": False,
        "description": description,
        "schema": {"type": "string", "maxLength": 1024},
    }
    for name, description in (
        ("Range", "A part of the file, as in `bytes=0-1023`."),
        ("If-Range", "An `ETag`: the part is sent only of this very file, otherwise the whole."),
        ("If-None-Match", "An `ETag`: of this very file nothing is sent."),
    )
]
"""The part of an operation's document that says how a part of a file is asked for."""

OCTETS_CONTENT: dict[str, Any] = {OCTETS.decode(): {"schema": {"type": "string", "format": "binary"}}}
"""The part of an operation's document that says that a body is bytes."""

FILE_CONTENT: dict[str, Any] = {
    "parameters": RANGE_PARAMETERS,
    "responses": {
        "200": {"content": OCTETS_CONTENT},
        "206": {
            "description": "The part that was asked for.",
            "content": OCTETS_CONTENT,
            "headers": REQUEST_ID_HEADER,
        },
        "304": {
            "description": "The file is the one that you have.",
            "content": OCTETS_CONTENT,
            "headers": REQUEST_ID_HEADER,
        },
    },
}
"""The document of an operation that answers a file."""

_RANGE = re.compile(rb"bytes=(\d{0,18})-(\d{0,18})")


class Content(Protocol):
    """What is sent, piece by piece."""

    async def read(self, offset: int, length: int) -> bytes:
        """So many bytes from there on. Raises ``OSError``."""
        ...

    def close(self) -> None:
        """Nothing more will be read."""
        ...


@dataclass(frozen=True, slots=True)
class FileAnswer(Answer):
    """``length`` bytes of a file from ``offset`` on. It closes the file when it has been sent, or cannot be."""

    content: Content | None = None
    offset: int = 0
    length: int = 0
    is_head: bool = False

    def head(self) -> list[Header]:
        """See ``Answer``."""
        sized = () if self.status == 304 else ((b"content-length", str(self.length).encode()),)
        return [(b"content-type", self.content_type), *sized, *self.headers]

    async def serve(self, receive: Receive, send: Send) -> None:
        """See ``Answer``. A file that nobody receives any more is read no further, however slowly it comes."""
        await while_connected(receive, self.send(send))

    async def send(self, send: Send) -> None:
        """See ``Answer``. Raises ``OSError``, which cuts the connection off."""
        if self.content is None:
            return
        try:
            await send({"type": "http.response.start", "status": self.status, "headers": self.head()})
            end = self.offset if self.is_head else self.offset + self.length
            offset = self.offset
            while offset < end:
                piece = await self.content.read(offset, min(PIECE_BYTES, end - offset))
                if not piece:
                    raise OSError(f"a file ends {end - offset} bytes too soon")
                offset += len(piece)
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            self.content.close()


def answer_file(exchange: Exchange, content: Content, size: int, name: str, tag: str) -> FileAnswer:
    """The answer to a request for a file of that size, called ``name``, whose bytes ``tag`` stands for.

    Raises ``RangeNotSatisfiable``, after which the caller closes the content.
    """
    return replace(_answer(exchange.headers, content, size, name, tag), is_head=exchange.wants_head_only)


def _answer(headers: Mapping[bytes, bytes], content: Content, size: int, name: str, tag: str) -> FileAnswer:
    etag = f'"{tag}"'.encode()
    shared: tuple[Header, ...] = ((b"etag", etag), (b"accept-ranges", b"bytes"))
    if _names(headers.get(b"if-none-match", b""), etag):
        return FileAnswer(304, b"", OCTETS, shared, content)
    shared += (disposition(name), HARMLESS)
    wanted = headers.get(b"range", b"")
    if b"if-range" in headers and headers[b"if-range"] != etag:
        wanted = b""
    part = _find_part(wanted, size)
    if part is None:
        return FileAnswer(200, b"", OCTETS, shared, content, 0, size)
    first, last = part
    shown = f"bytes {first}-{last}/{size}".encode()
    return FileAnswer(206, b"", OCTETS, (*shared, (b"content-range", shown)), content, first, last - first + 1)


def _names(given: bytes, etag: bytes) -> bool:
    """Whether a list of entity tags has this one; weak ones count, as nothing is written."""
    tags = [tag.strip().removeprefix(b"W/") for tag in given.split(b",")]
    return b"*" in tags or etag in tags


def _find_part(wanted: bytes, size: int) -> tuple[int, int] | None:
    """The first and the last byte that are wanted; None when it is the whole. Raises ``RangeNotSatisfiable``."""
    match = _RANGE.fullmatch(wanted.strip())
    if match is None or match.groups() == (b"", b""):
        return None
    start, end = match.groups()
    if not start:
        first, last = max(0, size - int(end)), size - 1
    else:
        first, last = int(start), min(int(end), size - 1) if end else size - 1
        if end and int(end) < first:
            return None
    if first > last:
        raise RangeNotSatisfiable(
            f"The part {wanted[:80].decode('latin-1')} begins after the end of the file, which has {size} bytes",
            {"size_bytes": size},
        )
    return first, last


def disposition(name: str) -> Header:
    """To be saved under this name, and never shown by a browser. Source: RFC 6266, RFC 8187."""
    plain = "".join(sign if sign.isascii() and sign.isprintable() and sign not in '"\\%' else "_" for sign in name)
    return b"content-disposition", f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}".encode()
