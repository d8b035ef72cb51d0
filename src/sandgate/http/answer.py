"""A whole answer, ready to be sent."""

from dataclasses import dataclass

from starlette.types import Receive, Send

Header = tuple[bytes, bytes]

JSON = b"application/json"

PIECE_BYTES = 64 * 1024
"""What is handed over to a connection at a time. The next piece follows once most of the last one has been read."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, body and the headers that are not the same for all answers."""

    status: int
    body: bytes
    content_type: bytes = JSON
    headers: tuple[Header, ...] = ()

    def head(self) -> list[Header]:
        """The headers with those that describe the body."""
        return [
            (b"content-type", self.content_type),
            (b"content-length", str(len(self.body)).encode()),
            *self.headers,
        ]

    async def serve(self, receive: Receive, send: Send) -> None:  # noqa: ARG002 - for answers that take a while
        """Send it as the answer to a request that has been read. Raises ``ClientGone``."""
        await self.send(send)

    async def send(self, send: Send) -> None:
        """Send it as ASGI messages, at the pace of who reads it."""
        await send({"type": "http.response.start", "status": self.status, "headers": self.head()})
        rest = self.body
        if len(rest) > PIECE_BYTES:
            last = (len(rest) - 1) // PIECE_BYTES * PIECE_BYTES
            for offset in range(0, last, PIECE_BYTES):
                piece = rest[offset : offset + PIECE_BYTES]
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            rest = rest[last:]
        await send({"type": "http.response.body", "body": rest})
