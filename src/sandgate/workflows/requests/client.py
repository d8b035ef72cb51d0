"""One request over one connection to one address. Nothing is taken from the environment: no proxy, no credentials."""

import asyncio
import ssl
from collections.abc import Sequence
from dataclasses import dataclass

import h11

from sandgate.workflows.requests.egress import Egress
from sandgate.workflows.requests.problems import RequestProblem
from sandgate.workflows.requests.target import Target

Header = tuple[str, str]

CONNECT_LIMIT_S = 10.0
_MOST_HEAD_BYTES = 32 * 1024
_CHUNK_BYTES = 64 * 1024
_MOST_INTERIM = 16


@dataclass(frozen=True, slots=True)
class Message:
    """What is sent."""

    method: str
    headers: Sequence[Header]
    body: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back; names of headers are in lower case."""

    status: int
    headers: Sequence[Header]
    body: bytes

    def find(self, name: str) -> str | None:
        """The first header of a name."""
        return next((value for key, value in self.headers if key == name), None)


class Client:
    """Connects only where ``egress`` allows it; reads at most ``most_bytes`` of a body."""

    def __init__(self, egress: Egress, most_bytes: int, tls: ssl.SSLContext | None = None) -> None:
        self._egress = egress
        self._most_bytes = most_bytes
        self._tls = tls

    async def send(self, target: Target, message: Message) -> Reply:
        """Raises ``RequestProblem``. When it is cancelled, the connection is closed."""
        reader, writer = await self._connect(target)
        try:
            return await self._exchange(target, message, reader, writer)
        except h11.RemoteProtocolError:
            raise RequestProblem("BadReply", f"{target.origin} did not answer in HTTP") from None
        except OSError:
            raise RequestProblem("ConnectionLost", f"The connection to {target.origin} was lost") from None
        finally:
            writer.transport.abort()

    async def _connect(self, target: Target) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        tls = await self._get_tls() if target.scheme == "https" else None
        why = "it did not answer in time"
        try:
            async with asyncio.timeout(CONNECT_LIMIT_S):
                for address in await self._egress.resolve(target.host, target.port):
                    try:
                        return await asyncio.open_connection(
                            address, target.port, ssl=tls, server_hostname=target.host if tls else None
                        )
                    except ssl.SSLError as error:
                        raise _untrusted(target, error) from None
                    except OSError as error:
                        why = error.strerror or "it cannot be reached"
        except TimeoutError:
            pass
        raise RequestProblem("ConnectionFailed", f"There is no connection to {target.origin}: {why}")

    async def _get_tls(self) -> ssl.SSLContext:
        if self._tls is None:
            # Reads the certificates of the system from disk.
            self._tls = await asyncio.to_thread(ssl.create_default_context)
        return self._tls

    async def _exchange(
        self, target: Target, message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Reply:
        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MOST_HEAD_BYTES)
        headers = [("Host", target.authority), ("Connection", "close"), *message.headers]
        request = h11.Request(method=message.method, target=target.path, headers=headers)
        for event in (request, h11.Data(data=message.body), h11.EndOfMessage()):
            writer.write(connection.send(event) or b"")
        await writer.drain()
        response: h11.Response | None = None
        interim = 0
        body = bytearray()
        while True:
            match connection.next_event():
                case h11.NEED_DATA:
                    connection.receive_data(await reader.read(_CHUNK_BYTES))
                case h11.Response() as response:
                    pass
                case h11.InformationalResponse() if (interim := interim + 1) > _MOST_INTERIM:
                    raise RequestProblem("BadReply", f"{target.origin} sends interim answers without end")
                case h11.Data(data=data):
                    body += data
                    if len(body) > self._most_bytes:
                        raise _too_large(target, self._most_bytes)
                case h11.EndOfMessage() if response is not None:
                    return Reply(response.status_code, _decode(response), bytes(body))
                case h11.ConnectionClosed() | h11.PAUSED:
                    raise RequestProblem("ConnectionLost", f"{target.origin} closed the connection")


def _decode(response: h11.Response) -> Sequence[Header]:
    return [(name.decode("ascii").lower(), value.decode("latin-1")) for name, value in response.headers]


def _untrusted(target: Target, error: ssl.SSLError) -> RequestProblem:
    why = getattr(error, "verify_message", "") or error.reason or "TLS failed"
    return RequestProblem("TlsFailed", f"{target.origin} cannot be trusted: {why}")


def _too_large(target: Target, most_bytes: int) -> RequestProblem:
    return RequestProblem("ReplyTooLarge", f"{target.origin} answers with more than {most_bytes} bytes", "output_limit")
