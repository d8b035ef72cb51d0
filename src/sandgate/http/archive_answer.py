"""A folder as an answer: an archive whose length nobody knows before its end."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.types import Receive, Send

from sandgate.core.files import ArchiveForm
from sandgate.environments.archives import OpenArchive
from sandgate.http.answer import Answer, Header
from sandgate.http.connection import while_connected
from sandgate.http.documentation import REQUEST_ID_HEADER
from sandgate.http.exchange import Exchange
from sandgate.http.file_answer import HARMLESS, disposition

SKIPPED = "X-Skipped-Entries"
_TYPES: Mapping[ArchiveForm, bytes] = {
    "tar": b"application/x-tar",
    "tar.gz": b"application/gzip",
    "zip": b"application/zip",
}
_BYTES: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}

ARCHIVE_CONTENT: dict[str, Any] = {
    "responses": {
        "200": {
            "content": {kind.decode(): _BYTES for kind in _TYPES.values()},
            "headers": {
                **REQUEST_ID_HEADER,
                SKIPPED: {
                    "description": "How much of the folder is no file, folder or link, or cannot be read or named.",
                    "schema": {"type": "integer"},
                },
            },
        }
    }
}
"""The document of an operation that answers an archive."""


@dataclass(frozen=True, slots=True)
class ArchiveAnswer(Answer):
    """An archive, as fast as the client takes it. It closes it when it has been sent, or cannot be."""

    archive: OpenArchive | None = None
    is_head: bool = False

    def head(self) -> list[Header]:
        """See ``Answer``."""
        return [(b"content-type", self.content_type), *self.headers]

    async def serve(self, receive: Receive, send: Send) -> None:
        """See ``Answer``. An archive that nobody receives any more is packed no further."""
        await while_connected(receive, self.send(send))

    async def send(self, send: Send) -> None:
        """See ``Answer``. Raises what breaks the archive, which cuts the connection off: a part is not the whole."""
        if self.archive is None:
            return
        try:
            await send({"type": "http.response.start", "status": self.status, "headers": self.head()})
            while not self.is_head and (part := await self.archive.read()):
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            self.archive.close()


def answer_archive(exchange: Exchange, archive: OpenArchive, name: str) -> ArchiveAnswer:
    """The answer that is the archive of a folder called ``name``."""
    skipped = SKIPPED.lower().encode(), str(archive.skipped).encode()
    headers = (disposition(f"{name}.{archive.form}"), HARMLESS, skipped)
    return ArchiveAnswer(200, b"", _TYPES[archive.form], headers, archive, is_head=exchange.wants_head_only)
