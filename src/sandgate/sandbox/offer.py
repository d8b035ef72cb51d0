"""A socket and two pipes for a child where no descriptor comes out: made out here, and their inner ends given away."""

import os
import socket
from dataclasses import dataclass

from sandgate.sandbox import descriptors
from sandgate_agent import wire


@dataclass(frozen=True, slots=True)
class Offer:
    """The outer ends. None of them blocks."""

    channel: socket.socket
    stdout: int
    stderr: int

    def numbers(self) -> list[int]:
        """All three, in the order in which they are sent."""
        return [self.channel.fileno(), self.stdout, self.stderr]

    def close(self) -> None:
        """Let go of them."""
        self.channel.close()
        os.close(self.stdout)
        os.close(self.stderr)


def make_offer(control: socket.socket, number: int) -> Offer:
    """Ask the forker behind ``control`` for a child. Raises ``OSError``, and then nothing was made."""
    made: list[int] = []
    channel, inner = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with inner:
            # All that a child may have to say fits its side of the socket, whether or not anybody reads.
            inner.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, wire.ANSWER_LIMIT)
            for _stream in ("stdout", "stderr"):
                made += os.pipe2(os.O_CLOEXEC)
            stdout, inner_stdout, stderr, inner_stderr = made
            for descriptor in (stdout, stderr):
                os.set_blocking(descriptor, False)
                # The launcher makes some for the gateway, and one gateway for the next, which opens them by name.
                os.fchmod(descriptor, 0o666)
            message = wire.pack_numbered(wire.ENDS, number)
            descriptors.send(control, message, [inner.fileno(), inner_stdout, inner_stderr])
    except OSError:
        channel.close()
        for descriptor in made:
            os.close(descriptor)
        raise
    os.close(inner_stdout)
    os.close(inner_stderr)
    return Offer(channel, stdout, stderr)
