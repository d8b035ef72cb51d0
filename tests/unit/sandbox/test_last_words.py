"""What a gateway said before it went is heard, however it went."""

import os
import socket

import pytest

from sandgate.core.ids import make_environment_id
from sandgate.sandbox import descriptors
from sandgate.sandbox.launcher import protocol
from sandgate.sandbox.launcher.last_words import has_spoken, last_words


@pytest.mark.parametrize("leaves_unread", [False, True])
def test_what_was_to_be_kept_is_heard(leaves_unread: bool) -> None:
    """Also when the gateway left something unread, which the kernel tells before all that it had sent."""
    gateway, launcher = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    launcher.setblocking(False)
    environment_id = make_environment_id()
    end, other = os.pipe()
    with launcher:
        with gateway:
            if leaves_unread:
                launcher.send(b"an answer")
            say = {"environment_id": environment_id, "tag": "one"}
            kept = {"slot": 0, "child": 1, "kills": 0, "lifetime_s": 60.0}
            gateway.send(protocol.pack({"number": 0, "verb": "list"}))
            gateway.send(b"nonsense")
            descriptors.send(gateway, protocol.pack({"number": 0, "verb": "keep", **say, **kept}), [end])
            gateway.send(protocol.pack({"number": 0, "verb": "let_go", **say}))
        heard = list(last_words(launcher))
    assert [type(request) for _number, request, _received in heard] == [protocol.Keep, protocol.LetGo]
    assert [len(received) for _number, _request, received in heard] == [1, 0]
    for descriptor in [end, other, *heard[0][2]]:
        os.close(descriptor)


def test_who_only_looks_has_not_spoken() -> None:
    """Neither before it goes nor afterwards."""
    looking, launcher = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    launcher.setblocking(False)
    with launcher:
        assert not has_spoken(launcher)
        looking.close()
        assert not has_spoken(launcher)
