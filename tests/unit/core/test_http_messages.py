"""What goes on after the head of a message."""

import h11
import pytest

from sandgate.core.http_messages import take_body


def test_what_is_no_message_any_more() -> None:
    """After CONNECT there is no body: whoever asks for one is told so, and does not ask for ever."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="CONNECT", target="/x", headers=[("host", "x")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(b"HTTP/1.1 200 OK\r\n\r\nanything")
    assert isinstance(connection.next_event(), h11.Response)
    with pytest.raises(h11.RemoteProtocolError):
        take_body(connection)
