"""What comes out of a build is laid out on the host: nothing that it says reaches anything else."""

import asyncio
import errno
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from sandgate.core.built import BuildFailed, LayerSize
from sandgate.sandbox.layer_unpacker import unpack
from sandgate.sandbox.layers import LayerFolders, _settle
from sandgate_agent import landlock
from sandgate_agent.file_worker import OperationRefused

MOST_BYTES, MOST_FILES = 10_000, 20


def _member(
    name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0, mode: int = 0o644
) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size, member.mode, member.mtime = kind, link, size, mode, 1_000_000_000
    return member


def _tar(*members: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(b"x" * member.size))
    return buffer.getvalue()


FOLDER = tarfile.DIRTYPE
LINK = tarfile.SYMTYPE


def test_files_folders_and_links_are_laid_out(tmp_path: Path) -> None:
    """With when they were changed, and whether they are programs; no bit beyond that."""
    archive = _tar(
        _member("./", FOLDER), _member("a", FOLDER, mode=0o700), _member("a/f", size=3),
        _member("a/run", size=5, mode=0o6711), _member("a/away", LINK, "/etc/shadow"),
    )  # fmt: skip
    done = unpack(io.BytesIO(archive), tmp_path, MOST_BYTES, MOST_FILES)
    assert done == {"files": 4, "size_bytes": 8}
    assert (tmp_path / "a/f").read_bytes() == b"xxx"
    assert {name: os.lstat(tmp_path / name).st_mode & 0o7777 for name in ("a", "a/f", "a/run")} == {
        "a": 0o755, "a/f": 0o644, "a/run": 0o755,
    }  # fmt: skip
    assert os.stat(tmp_path / "a/f").st_mtime == 1_000_000_000
    assert os.readlink(tmp_path / "a/away") == "/etc/shadow"


@pytest.mark.parametrize(
    "members",
    [
        [_member("../out", size=1)],
        [_member("/out", size=1)],
        [_member("a", FOLDER), _member("a/../../out", size=1)],
        [_member("a", LINK, ".."), _member("a/out", size=1)],
        [_member("a", LINK, ".."), _member("a", FOLDER), _member("a/out", size=1)],
        [_member("a", LINK, "/tmp/sandgate-out"), _member("a", size=1)],
        [_member("a", FOLDER), _member("a", LINK, ".."), _member("a/out", size=1)],
        [_member("a", size=1), _member("a/b", size=1)],
        [_member("a", size=1), _member("a", size=1)],
        [_member("a", size=1), _member("b", tarfile.LNKTYPE, "a")],
        [_member("b", tarfile.LNKTYPE, "/etc/passwd")],
        [_member("pipe", tarfile.FIFOTYPE)],
        [_member("disk", tarfile.BLKTYPE)],
        [_member("tty", tarfile.CHRTYPE)],
        [_member("a" * 300, size=1)],
        [_member("a/" * 70, FOLDER)],
        [_member("big", size=MOST_BYTES + 1)],
        [_member(f"big{number}", size=MOST_BYTES // 4) for number in range(5)],
        [_member(f"f{number}") for number in range(MOST_FILES + 1)],
        [_member("nul\0l", size=1), _member("nul", FOLDER), _member("nul", FOLDER)],
    ],
    ids=lambda members: "+".join(f"{member.name[:12]}".replace("\0", "0") for member in members[:3]),
)
def test_what_would_reach_elsewhere_is_refused(members: list[tarfile.TarInfo], tmp_path: Path) -> None:
    """And nothing is written outside, or through a link, or over something."""
    inside = tmp_path / "inside"
    inside.mkdir()
    with pytest.raises(OperationRefused):
        unpack(io.BytesIO(_tar(*members)), inside, MOST_BYTES, MOST_FILES)
    assert os.listdir(tmp_path) == ["inside"]
    assert not os.path.lexists("/tmp/sandgate-out")


def test_a_file_of_less_than_nothing_is_refused(tmp_path: Path) -> None:
    """It would make room for others beyond the bound."""
    member = _member("less")
    head = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    head[124:136] = b"\xff" * 11 + b"\x01"  # -255, in the base of 256.
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    with pytest.raises(OperationRefused, match="less than nothing"):
        unpack(io.BytesIO(bytes(head) + bytes(1024)), tmp_path, MOST_BYTES, MOST_FILES)
    assert os.listdir(tmp_path) == []


def test_a_folder_that_was_not_told_of_is_made(tmp_path: Path) -> None:
    """And counts like one that was."""
    assert unpack(io.BytesIO(_tar(_member("a/b/f", size=1))), tmp_path, MOST_BYTES, MOST_FILES)["files"] == 3
    with pytest.raises(OperationRefused, match="more than 2"):
        unpack(io.BytesIO(_tar(_member("c/d/f", size=1))), tmp_path, MOST_BYTES, 2)


_TRIES = """
import json, os, pathlib, signal, socket, sys
from sandgate.sandbox.layer_unpacker import fence

def ends(act):
    try:
        act()
    except OSError as error:
        return type(error).__name__
    return "done"

folder, outside = pathlib.Path(sys.argv[1]), sys.argv[2]
address = socket.create_server(("127.0.0.1", 0)).getsockname()
fence(folder, needed=False)
print(json.dumps([
    ends(lambda: (folder / "inside").write_text("x")),
    ends(lambda: open(outside).close()),
    ends(lambda: os.symlink("/", outside + "-link")),
    ends(lambda: os.truncate(outside, 0)),
    ends(lambda: socket.create_connection(address)),
    ends(lambda: os.kill(os.getppid(), 0)),
]))
"""


def test_what_unpacks_reaches_nothing_else(tmp_path: Path) -> None:
    """No file outside its folder, nobody on the network and no other process, as far as the kernel can see to that."""
    folder, outside = tmp_path / "folder", tmp_path / "outside"
    folder.mkdir()
    outside.write_text("kept")
    arguments = [sys.executable, "-c", _TRIES, str(folder), str(outside)]
    ended = subprocess.run(arguments, capture_output=True, text=True, check=True)
    version = landlock.find_version()
    refused = ["PermissionError" if version >= since else "done" for since in (1, 1, 3, 4, 6)]
    assert json.loads(ended.stdout) == ["done", *refused]


# A number that no kernel has a call for.
_WITHOUT = """
import pathlib, sys
from sandgate_agent import landlock
landlock._CREATE_RULESET = 9999
from sandgate.sandbox import layer_unpacker, root_unpacker
folder = pathlib.Path(sys.argv[2])
if sys.argv[1] == "layer":
    sys.exit(layer_unpacker.main(folder, 10_000, 9))
sys.exit(root_unpacker.main(folder, 10_000, 9, []))
"""


@pytest.mark.parametrize(("unpacker", "lacks"), [("layer", False), ("root", True)])
def test_a_kernel_that_shuts_nobody_in(unpacker: str, lacks: bool, tmp_path: Path) -> None:
    """What holds by itself goes on without the fence; what follows links for itself says what it needs, and stops."""
    arguments = [sys.executable, "-c", _WITHOUT, unpacker, str(tmp_path)]
    archive = _tar(_member("etc", FOLDER), _member("etc/a", size=3))
    ended = subprocess.run(arguments, input=archive, capture_output=True, check=False)
    assert (ended.returncode, b"no Landlock (boot with lsm=landlock" in ended.stderr) == (int(lacks), lacks)
    assert (os.listdir(tmp_path) == []) == lacks


def test_a_fence_that_cannot_be_put_up_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for one without looking is not told that it is there."""
    monkeypatch.setattr(landlock, "_CREATE_RULESET", 9999)
    assert landlock.find_version() == 0
    assert landlock.restrict([("/", landlock.ALL)], network=True) < 0


async def _pieces(archive: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(archive), 700):
        yield archive[start : start + 700]


def _layers(folder: Path) -> LayerFolders:
    return LayerFolders(folder / "layers", most_bytes=MOST_BYTES, most_files=MOST_FILES)


async def test_that_nothing_shuts_in_what_unpacks_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the log, with what brings it."""
    layers = _layers(tmp_path)
    monkeypatch.setattr(landlock, "find_version", lambda: 0)
    with capture_logs() as logs:
        for name in ("tpl-one", "tpl-two"):
            await layers.keep(name, _pieces(_tar(_member("a", FOLDER))))
    assert [(line["log_level"], "no Landlock" in line["event"], line["mend"]) for line in logs] == [
        ("warning", True, landlock.MEND)
    ]


async def test_a_layer_is_kept_dropped_and_swept(tmp_path: Path) -> None:
    """By a process that can reach no other file; what is swept is all but what is named."""
    layers = _layers(tmp_path)
    archive = _tar(_member("a", FOLDER), _member("a/f", size=3))
    for name in ("tpl-one", "tpl-two"):
        assert await layers.keep(name, _pieces(archive)) == LayerSize(2, 3)
        assert layers.has(name)
    assert (tmp_path / "layers/tpl-one/a/f").read_bytes() == b"xxx"
    await layers.drop("tpl-one")
    await layers.drop("tpl-never")
    assert os.listdir(tmp_path / "layers") == ["tpl-two"]
    (tmp_path / "layers" / "tpl-three.part").mkdir()
    await layers.sweep(["tpl-two"])
    assert os.listdir(tmp_path / "layers") == ["tpl-two"]
    await layers.sweep([])
    assert not layers.has("tpl-two")


async def test_a_layer_has_its_name_when_the_machine_loses_its_power(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not said to be there before that is on the disk."""
    synced: list[tuple[str, list[str]]] = []

    def note(descriptor: int) -> None:
        folder = os.readlink(f"/proc/self/fd/{descriptor}")
        synced.append((folder, os.listdir(folder)))

    monkeypatch.setattr(os, "fsync", note)
    await _layers(tmp_path).keep("tpl-one", _pieces(_tar(_member("a", FOLDER))))
    assert synced == [(str(tmp_path / "layers"), ["tpl-one"])]


async def test_a_name_that_does_not_get_to_the_disk_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is told that it failed finds nothing there."""

    def fail(_descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output error"):
        await _layers(tmp_path).keep("tpl-one", _pieces(_tar(_member("a", FOLDER))))
    assert os.listdir(tmp_path / "layers") == []


@pytest.mark.parametrize(
    "archive", [_tar(_member("../out", size=1)), b"no archive" * 99, _tar(_member("a", size=9))[:700]]
)
async def test_what_cannot_be_kept_leaves_nothing(archive: bytes, tmp_path: Path) -> None:
    """And the reason is for who built it."""
    with pytest.raises(BuildFailed, match="What was built cannot be kept"):
        await _layers(tmp_path).keep("tpl-one", _pieces(archive))
    assert os.listdir(tmp_path / "layers") == []
    assert os.listdir(tmp_path) == ["layers"]


async def test_a_source_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    """Neither a folder nor a process."""

    async def broken() -> AsyncIterator[bytes]:
        yield _tar(_member("a", size=9))[:600]
        raise BuildFailed("the sandbox is gone")

    with pytest.raises(BuildFailed, match="the sandbox is gone"):
        await _layers(tmp_path).keep("tpl-one", broken())
    assert os.listdir(tmp_path / "layers") == []


@pytest.mark.parametrize("is_named", [False, True])
async def test_a_build_that_is_cancelled_at_its_very_end(
    is_named: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Just before what it has made gets its name, or just after, more than once: there is nothing of it."""
    at_work, goes_on, settle = threading.Event(), threading.Event(), _settle

    def settle_slowly(staging: Path, folder: Path) -> None:
        if is_named:
            settle(staging, folder)
        at_work.set()
        goes_on.wait(60)
        if not is_named:
            settle(staging, folder)

    monkeypatch.setattr("sandgate.sandbox.layers._settle", settle_slowly)
    keeping = asyncio.ensure_future(_layers(tmp_path).keep("tpl-one", _pieces(_tar(_member("a", FOLDER)))))
    try:
        assert await asyncio.to_thread(at_work.wait, 60)
        for _time in range(2):
            keeping.cancel()
            done, _pending = await asyncio.wait([keeping], timeout=0.05)
            assert not done
    finally:
        goes_on.set()
    with pytest.raises(asyncio.CancelledError):
        await keeping
    assert os.listdir(tmp_path / "layers") == []
