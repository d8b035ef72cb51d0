"""Volumes of a real server: what lasts over environments and restarts, by curl and by the client."""

from contextlib import suppress
from pathlib import Path

import pytest

from bench.sandgate_server import Server
from sandgate.sdk.client import Client
from sandgate.sdk.volumes import Mount
from tests.abilities import ABILITIES
from tests.crash.server_process import GATEWAY, LAUNCHER, CrashServer, until
from tests.e2e.documents import Shell, commands

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.needs_root_namespaces, pytest.mark.needs_python39]


@pytest.mark.needs_curl
def test_the_guide_to_volumes_can_be_followed(either: Server, tmp_path: Path) -> None:
    """Every command of docs/volumes.md succeeds; what one environment wrote the next one reads."""
    shell = Shell(f"http://127.0.0.1:{either.port}", tmp_path, {"TOKEN": either.token})
    made, writer, wrote, _gone, reader, read, file, listed, seen, deleted = (
        shell.run(each) for each in commands(ROOT / "docs/volumes.md")
    )
    assert (made["size_mb"], made["used_bytes"]) == (64, 0)
    assert writer["volumes"][0]["path"] == "/data"
    assert (wrote["status"], wrote["stdout"]) == ("completed", "5\n")
    assert (read["status"], read["stdout"], file) == ("completed", "kept\n\n", {"text": "kept\n"})
    assert listed["volumes"] == [seen]
    assert (seen["environment_ids"], seen["used_bytes"] > 0) == ([reader["environment_id"]], True)
    assert deleted["ended_environment_ids"] == [reader["environment_id"]]


_WRITE = "import os; f = open('/data/{name}', 'w'); f.write('kept'); f.flush(); os.fsync(f.fileno())"
_LOOK = "import os; print({name: open('/data/' + name).read() for name in sorted(os.listdir('/data'))})"
CLASSES = ["standard"] + [each for each in ["gvisor"] if not ABILITIES["needs_gvisor"].find_lack()]
_WRITTEN = f"{dict.fromkeys(sorted(CLASSES), 'kept')}\n"


def _devices(server: Server, folder: str = "volumes") -> list[str]:
    """The images of a server's that a loop device has, which it has for as long as a mount is there."""
    found = []
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(OSError):
            found.append(backing.read_text())
    return [path for path in found if str(server.state / folder) in path]


def _read(client: Client) -> set[str]:
    """What an environment of each class finds."""
    return {_read_in(client, isolation) for isolation in CLASSES}


def _read_in(client: Client, isolation: str) -> str:
    mount = Mount("data", "/data", read_only=True)
    made = client.create_environment("reader", "python-3.9", isolation=isolation, volumes=[mount])
    read = client.execute(made.environment_id, _LOOK)
    client.delete_environment(made.environment_id)
    return read.stdout


def test_volumes_outlive_their_server() -> None:
    """And each of its processes, whatever happens to that, in each class; nothing stays mounted that nobody has."""
    with CrashServer() as server, Client(f"http://127.0.0.1:{server.port}", server.token) as client:
        volume = client.create_volume("data", size_mb=16)
        mount = Mount("data", "/data")
        made = [
            client.create_environment("writer", "python-3.9", isolation=each, volumes=[mount]).environment_id
            for each in CLASSES
        ]
        for name, each in zip(CLASSES, made, strict=True):
            assert client.execute(each, _WRITE.format(name=name)).status == "completed"
        assert len(_devices(server)) == 1

        server.kill(GATEWAY)
        server.until_ready().close()
        assert {client.execute(each, _LOOK).stdout for each in made} == {_WRITTEN}

        server.kill(LAUNCHER)
        until(lambda: not _devices(server), "nothing is mounted")
        until(lambda: {client.get_environment(each).status for each in made} == {"failed"}, "their ends are known")
        assert _read(client) == {_WRITTEN}

        client.create_environment("holder", "python-3.9", isolation=CLASSES[-1], volumes=[mount])
        server.stop_process()
        until(lambda: not _devices(server), "nothing is mounted")
        server.start()
        assert _read(client) == {_WRITTEN}
        seen = client.get_volume(volume.volume_id)
        assert (list(seen.environment_ids), bool(seen.used_bytes)) == ([], True)
        client.delete_volume(volume.volume_id)
        assert list((server.state / "volumes").iterdir()) == []


def test_snapshots_and_copies_leave_volumes_alone(either: Server) -> None:
    """A snapshot holds nothing of them, and laying it out takes nothing out of one that is at the same place."""
    with Client(f"http://127.0.0.1:{either.port}", either.token) as client:
        volume = client.create_volume("beside", size_mb=16)
        mount = Mount("beside", "/workspace/deep/data")
        first = client.create_environment("first", "python-3.9", volumes=[mount])
        write = "open('deep/data/kept', 'w').write('kept'); open('deep/own', 'w').write('own')"
        assert client.execute(first.environment_id, write).status == "completed"
        snapshot = client.create_snapshot(first.environment_id, name="s")
        assert snapshot.files == 1
        look = "import os; print(sorted(os.listdir('deep')), os.listdir('deep/data'), os.path.ismount('deep/data'))"
        with_it = client.create_environment("with", snapshot_id=snapshot.snapshot_id, volumes=[mount])
        without = client.create_environment("without", snapshot_id=snapshot.snapshot_id)
        (copy,) = client.fork_environment(first.environment_id, count=1)
        said = [client.execute(each.environment_id, look).stdout for each in (with_it, without, copy)]
        assert said == [
            "['data', 'own'] ['kept'] True\n", "['data', 'own'] [] False\n", "['data', 'own'] ['kept'] True\n",
        ]  # fmt: skip
        client.delete_snapshot(snapshot.snapshot_id)
        client.delete_volume(volume.volume_id, force=True)
        client.delete_environment(without.environment_id)


def test_files_on_the_disk_by_setting() -> None:
    """They are no memory of the environment's, volumes are beside them, and nothing of them is left."""
    with CrashServer({"SANDGATE_ENVIRONMENT_DISK": "image", "SANDGATE_SPARE_SANDBOXES": "1"}) as server:
        with Client(f"http://127.0.0.1:{server.port}", server.token) as client:
            client.create_volume("data", size_mb=16)
            limits = {"memory_mb": 64, "disk_mb": 96}
            made = client.create_environment("e", "python-3.9", limits=limits, volumes=[Mount("data", "/data")])
            code = (
                "f = open('x', 'wb')\nfor _ in range(80): f.write(b'x' * (1 << 20))\nprint(open('/proc/mounts').read())"
            )
            ran = client.execute(made.environment_id, code)
            assert (ran.status, " / ext4 " in ran.stdout, " /data ext4 " in ran.stdout) == ("completed", True, True)
            metrics = client.get_metrics(made.environment_id)
            assert metrics.memory.limit_bytes == 64 << 20
            assert (metrics.disk.current_bytes or 0) >= 80 << 20
        folder = server.state / "disks"
        assert (folder.stat().st_uid, folder.stat().st_mode & 0o777) == (0, 0o700)
        assert _devices(server, "disks")
        server.stop_process()
        until(lambda: not _devices(server, "disks"), "nothing is mounted")
        assert all(path.name.startswith("blank-") for path in folder.iterdir())
