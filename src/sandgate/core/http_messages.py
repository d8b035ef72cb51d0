"""What whoever passes on messages of HTTP/1.1 has to know of them. Source: RFC 9110, section 7.6.1."""

from collections.abc import Sequence
from typing import NamedTuple

import h11

from sandgate.core.byte_stream import PIECE_BYTES

Header = tuple[bytes, bytes]

_MOST_CHUNKS = 256

# What is about one connection only, and what a client says to a proxy.
_HOP = frozenset(
    {
        b"connection", b"expect", b"http2-settings", b"keep-alive", b"proxy-authenticate", b"proxy-authentication-info",
        b"proxy-authorization", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade",
    }
)  # fmt: skip


def end_to_end(headers: Sequence[Header]) -> list[Header]:
    """The headers that are not about one connection only, names in lower case."""
    named = {
        word.strip().lower() for name, value in headers if name.lower() == b"connection" for word in value.split(b",")
    }
    # What decides where a message ends, and for whom it is, is nobody's to take away.
    dropped = (_HOP | named) - {b"content-length", b"host"}
    return [(name.lower(), value) for name, value in headers if name.lower() not in dropped]


def answer_headers(response: h11.Response) -> list[Header]:
    """The headers of an answer to be passed on: of two statements about its length the one that was followed."""
    headers = end_to_end(response.headers)
    if any(name == b"transfer-encoding" for name, _ in response.headers):
        return [header for header in headers if header[0] != b"content-length"]
    return headers


class BodyPart(NamedTuple):
    """A part of a body. ``is_dry``: there is no more of it before more has arrived."""

    data: bytes
    is_end: bool
    is_dry: bool


def take_body(connection: h11.Connection) -> BodyPart:
    """What has arrived of a body, up to a piece. Raises ``h11.ProtocolError``.

    Together, because whoever sends may do so in chunks of one byte; but not too many of those without a pause.
    """
    parts: list[bytes] = []
    size = 0
    for _event in range(_MOST_CHUNKS):
        match connection.next_event():
            case h11.Data(data=data):
                parts.append(bytes(data))
                size += len(data)
            case h11.EndOfMessage():
                return BodyPart(b"".join(parts), is_end=True, is_dry=True)
            case h11.NEED_DATA:
                return BodyPart(b"".join(parts), is_end=False, is_dry=True)
            case _:
                # It would say the same for ever, whatever arrives.
                raise h11.RemoteProtocolError("what goes on is no body of a message")
        if size >= PIECE_BYTES:
            break
    return BodyPart(b"".join(parts), is_end=False, is_dry=False)
