"""P13: how fast output reaches its client, how soon its first byte does, and what that costs in memory."""

import json
import socket
import subprocess
import time
from collections.abc import Iterator

from bench.context import Bench, refer
from bench.figures import Figure, Samples, Target, figure_of
from bench.p12_start import resident_mb
from bench.sandgate_server import Server, create

BLOCKS = 100
WRITE = f"import os\nblock = (b'x' * 79 + b'\\n') * 13107\nfor _ in range({BLOCKS}): os.write(1, block)"
OUTPUT_MB = BLOCKS * 13_107 * 80 / 1e6
STAMPS = "import time\nfor _ in range(40):\n    print(time.time())\n    time.sleep(0.01)"
_LAST = b"event: finished"


def measure(bench: Bench) -> list[Figure]:
    """Each round is a pipe on the host, then the same output through the API."""
    ours: list[float] = []
    theirs: list[float] = []
    with Server() as server, server.connect() as connection:
        environment = create(connection)
        gateway = max(server.listeners(), key=resident_mb)
        _stream_mb_s(server, environment)
        before = resident_mb(gateway)

        def alternate() -> float:
            for _ in range(bench.count(10, 2)):
                theirs.append(_pipe_mb_s(bench.interpreter.path))
                ours.append(_stream_mb_s(server, environment))
            return Samples.of(theirs).median

        reference = refer("python3.9 -c … | cat", alternate)
        grown = max(0.0, resident_mb(gateway) - before)
        late = [late_ms for _ in range(bench.count(3, 1)) for late_ms in _late_ms(server, environment)]
    rate = Target(at_least=100, ratio_at_least=0.3, either=True)
    first = Target(at_most=5)
    return [
        figure_of("P13", f"{OUTPUT_MB:.0f} MB of output streamed", "MB/s", Samples.of(ours), rate, reference),
        figure_of("P13 first", "from a write to its event at the client, p50", "ms", Samples.of(late), first),
        figure_of("P13 memory", "memory that the gateway grows by", "MB", Samples.of([grown]), Target(at_most=16)),
    ]


def _pipe_mb_s(interpreter: str) -> float:
    started = time.perf_counter()
    with subprocess.Popen([interpreter, "-c", WRITE], stdout=subprocess.PIPE) as writer:
        subprocess.run(["cat"], stdin=writer.stdout, stdout=subprocess.DEVNULL, check=True)
    return OUTPUT_MB / (time.perf_counter() - started)


def _stream_mb_s(server: Server, environment_id: str) -> float:
    started = time.perf_counter()
    tail, size = b"", 0
    for piece in _pieces(server, environment_id, WRITE):
        size += len(piece)
        tail = (tail + piece[-4096:])[-4096:]
    if _LAST not in tail or size < OUTPUT_MB * 1e6:
        raise ConnectionResetError("The server ended a stream before its end")
    return OUTPUT_MB / (time.perf_counter() - started)


def _late_ms(server: Server, environment_id: str) -> list[float]:
    """How long after each stamp was written it arrived."""
    late = []
    text = b""
    for piece in _pieces(server, environment_id, STAMPS):
        arrived = time.time()
        text += piece
        *blocks, text = text.split(b"\n\n")
        for block in blocks:
            if b"event: stdout" in block:
                stamps = json.loads(block.partition(b"data: ")[2])["text"].split()
                late += [(arrived - float(stamp)) * 1000 for stamp in stamps]
    return late


def _pieces(server: Server, environment_id: str, code: str) -> Iterator[bytes]:
    """The answer as it arrives, without a look at its form, which would cost more than the sending."""
    body = json.dumps({"code": code, "stream": True}).encode()
    head = (
        f"POST /api/v1/sandbox/environments/{environment_id}/execute HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        f"Authorization: Bearer {server.token}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(head.encode() + body)
        buffer = memoryview(bytearray(1 << 20))
        while length := connection.recv_into(buffer):
            yield bytes(buffer[:length])
