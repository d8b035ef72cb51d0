"""A whole answer, ready to be sent."""

from dataclasses import dataclass

from starlette.types import Send

Header = tuple[bytes, bytes]

JSON = b"application/json"


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

    async def send(self, send: Send) -> None:
        """Send it as ASGI messages."""
        await send({"type": "http.response.start", "status": self.status, "headers": self.head()})
        await send({"type": "http.response.body", "body": self.body})
