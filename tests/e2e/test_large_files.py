"""Files beyond a gibibyte on a real server: up, in parts and down, without the memory of anybody."""

import http.client
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.sandgate_server import Server
from sandgate.sdk.client import Client
from sandgate.sdk.volumes import Mount

pytestmark = pytest.mark.needs_root_namespaces
MIB = 1 << 20
_PARTS = 1126
_SIZE = _PARTS * MIB
_MOST_GROWTH_BYTES = 32 * MIB
_TIMEOUT_S = 300


def _head(number: int) -> bytes:
    """What a part begins with."""
    return number.to_bytes(8, "big")


def _parts() -> Iterator[bytes]:
    rest = bytes(range(1, 256)) * 4200
    for number in range(_PARTS):
        yield _head(number) + rest[: MIB - 8]


class _Gateway:
    """The memory of the process that answers."""

    def __init__(self, server: Server) -> None:
        processes = [Path(f"/proc/{pid}") for pid in server.listeners()]
        (self._process,) = (each for each in processes if (each / "comm").read_text() == "sg-gateway\n")
        # From now on the most is counted anew. Source: proc(5), "/proc/pid/clear_refs".
        (self._process / "clear_refs").write_text("5")
        self._before = self._read("VmRSS")

    def _read(self, name: str) -> int:
        lines = (self._process / "status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

    def growth(self) -> int:
        """By how many bytes it was larger than at the beginning, at the most."""
        return self._read("VmHWM") - self._before


def _count(answer: http.client.HTTPResponse) -> int:
    """Read parts to the end and throw them away; how many were as they were written."""
    part, good = bytearray(MIB), 0
    while True:
        there = 0
        while there < MIB and (got := answer.readinto(memoryview(part)[there:])):
            there += got
        if there < MIB:
            return good if not there else -1
        good += part[:8] == _head(good)


@pytest.mark.needs_python39
def test_a_file_of_more_than_a_gibibyte(either: Server) -> None:
    """On a volume that has room for it: written, read at its end and as a whole, and written on by code inside."""
    with Client(f"http://127.0.0.1:{either.port}", either.token) as client:
        volume = client.create_volume("large", size_mb=_PARTS + 130)
        made = client.create_environment("large", "python-3.9", volumes=[Mount("large", "/data")])
        client.execute(made.environment_id, "")
        path = f"/api/v1/sandbox/environments/{made.environment_id}/files//data/large"
        gateway = _Gateway(either)
        connection = http.client.HTTPConnection("127.0.0.1", either.port, timeout=_TIMEOUT_S)
        own: dict[str, Any] = {"Authorization": f"Bearer {either.token}"}

        connection.request("PUT", path, _parts(), {**own, "Content-Length": str(_SIZE)})
        written = connection.getresponse()
        assert (written.status, b"large" in written.read()) == (200, True)
        connection.request("GET", path, headers={**own, "Range": f"bytes={_SIZE - MIB}-{_SIZE - MIB + 7}"})
        end = connection.getresponse()
        assert (end.status, end.read()) == (206, _head(_PARTS - 1))
        connection.request("GET", path, headers=own)
        assert _count(connection.getresponse()) == _PARTS
        connection.close()
        assert gateway.growth() < _MOST_GROWTH_BYTES

        code = "import os; open('/data/large', 'ab').write(b'more'); print(os.path.getsize('/data/large'))"
        assert client.execute(made.environment_id, code).stdout == f"{_SIZE + 4}\n"
        client.delete_volume(volume.volume_id, force=True)
