"""A terminal of an environment, over a web socket."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Self
from urllib.parse import urlencode

from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from sandgate import __version__
from sandgate.sdk.address import is_loopback
from sandgate.sdk.errors import ClientError, ServerUnreachable, UnexpectedAnswer
from sandgate.sdk.files import environment_path
from sandgate.sdk.transport import Transport, read_refusal

_PROTOCOL = "sandgate.terminal.v1"
_NORMAL = 1000
_LARGEST_MESSAGE = 16 * 1024 * 1024
_CLOSE_S = 2.0


class Terminal:
    """A shell, or a process with a terminal; a context manager. One thread may read while another one writes.

    Made by ``Client.open_terminal``. ``ending`` is what the server says of the end, as ``exited with 0``;
    empty before, and when it was left.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self.ending = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def pieces(self) -> Iterator[bytes]:
        """What the terminal shows, in UTF-8, until its process has ended or this was closed.

        Raises ``ServerUnreachable`` when the connection breaks, or the server goes away.
        """
        with _translated():
            try:
                while True:
                    piece = self._socket.recv()
                    yield piece.encode() if isinstance(piece, str) else piece
            except ConnectionClosed as closed:
                if closed.rcvd is None or closed.rcvd.code != _NORMAL:
                    why = "" if closed.rcvd is None else f": {closed.rcvd.reason}"
                    raise ServerUnreachable(f"The connection to the terminal was cut off{why}", sent=True) from closed
                self.ending = closed.rcvd.reason

    def send(self, typed: bytes) -> None:
        """Type something. For a process that has ended it is for nobody."""
        with _translated(), suppress(ConnectionClosed):
            self._socket.send(typed)

    def resize(self, rows: int, columns: int) -> None:
        """Give it another size."""
        with _translated(), suppress(ConnectionClosed):
            self._socket.send(f"\0{json.dumps({'resize': {'rows': rows, 'cols': columns}})}")

    def close(self) -> None:
        """Leave it: a process goes on, a shell that was opened with this ends."""
        self._socket.close()


def open_terminal(transport: Transport, environment_id: str, query: Mapping[str, str]) -> Terminal:
    """Open one. Raises ``ApiError``, ``ServerUnreachable``, ``UnexpectedAnswer``."""
    address = f"{transport.address}{environment_path(environment_id)}/terminal?{urlencode(query)}"
    with _translated():
        socket = connect(
            # "http" is the beginning of "https", too.
            f"ws{address.removeprefix('http')}",
            additional_headers=transport.authorization,
            subprotocols=[Subprotocol(_PROTOCOL)],
            compression=None,
            open_timeout=transport.timeout_s,
            close_timeout=_CLOSE_S,
            max_size=_LARGEST_MESSAGE,
            proxy=None if is_loopback(transport.address) else True,
            user_agent_header=f"sandgate/{__version__}",
        )
    return Terminal(socket)


@contextmanager
def _translated() -> Iterator[None]:
    """The one place that knows the exceptions of websockets."""
    try:
        yield
    except ClientError:
        raise
    except InvalidStatus as refused:
        answer = refused.response
        raise read_refusal(answer.status_code, bytes(answer.body or b""), answer.headers.raw_items()) from refused
    except (OSError, TimeoutError) as error:
        raise ServerUnreachable(
            f"The terminal cannot be reached: {error or type(error).__name__}", sent=False
        ) from error
    except ConnectionClosed as closed:
        raise ServerUnreachable("The connection to the terminal was cut off", sent=True) from closed
    except WebSocketException as error:
        raise UnexpectedAnswer(f"What answers speaks no web sockets: {error}") from error
