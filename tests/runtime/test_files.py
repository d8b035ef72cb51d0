"""Files of a sandbox, with code in it that lays traps for whoever works on them."""

import asyncio
import gzip
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import create_autospec

import pytest

from sandgate.config.settings import Settings
from sandgate.core.errors import DiskFull, FileConflict, FileForbidden, FileMissing, FilesUnavailable, PathInvalid
from sandgate.core.execution import ExecutionRequest
from sandgate.core.files import parse_entry
from sandgate.core.ids import UserId
from sandgate.core.limits import MIB, Limits
from sandgate.core.outlet import Outlet
from sandgate.core.principal import Principal, Role
from sandgate.environments.files import FileService
from sandgate.environments.lifecycle import Lifecycle
from sandgate.environments.lookup import Lookup
from sandgate.environments.tasks import TaskOwner
from tests.archive_files import read_archive, tar
from tests.runtime.file_client import ask, begin, list_folder, pack, read, unpack, write
from tests.runtime.hosts import Bench

pytestmark = pytest.mark.needs_root_namespaces

TRAPS = """
import os
os.symlink({secret!r}, 'to-host')
os.symlink('/', 'to-root')
os.symlink('/proc/self/root' + {secret!r}, 'through-proc')
os.symlink('loop', 'loop')
os.mkfifo('fifo')
os.mkdir('locked', 0)
open(b'odd \\xff\\nname', 'w').write('odd')
deep = os.open('.', os.O_RDONLY)
for _ in range(40):
    os.mkdir('d' * 200, dir_fd=deep)
    deep = os.open('d' * 200, os.O_RDONLY, dir_fd=deep)
"""


async def test_no_path_leads_out(walled: Bench, tmp_path: Path) -> None:
    """Links, the proc file system and steps upwards end within the walls; what is no file is refused at once."""
    secret = tmp_path / "secret"
    secret.write_text("of the host")
    os.chmod(tmp_path, 0o755)
    sandbox = await walled.make()
    assert (await walled.run(sandbox, TRAPS.format(secret=str(secret)))).stderr == b""
    for path in ("to-host", "through-proc", "to-root" + str(secret), "../../../.." + str(secret)):
        # An old gVisor ends a path where a link leads to the root.
        with pytest.raises((FileMissing, FileConflict) if walled.on_gvisor else FileMissing):
            await read(sandbox, path)
    if not walled.on_gvisor:
        assert b"nologin" in await read(sandbox, "to-root/etc/passwd")
    assert await read(sandbox, "odd \udcff\nname") == b"odd"
    refusals: dict[str, Any] = {
        "fifo": FileConflict,
        "/dev/zero": FileConflict,
        "/proc/kcore": (FileConflict, FileForbidden, FileMissing),
        "/proc/1/root/etc/passwd": (FileForbidden, FileMissing),
        "/proc/1/mem": (FileForbidden, FileMissing),
        "loop": PathInvalid,
        "x" * 300: PathInvalid,
        "x/" * 2048 + "x": PathInvalid,
        "locked/a": FileForbidden,
    }
    for path, kind in refusals.items():
        with pytest.raises(kind):
            await read(sandbox, path)
    for path in ("/etc/passwd", "/usr/x", "/proc/sys/kernel/hostname", "fifo"):
        with pytest.raises((FileForbidden, FileConflict)):
            await write(sandbox, path, b"x")
    assert secret.read_text() == "of the host"


async def test_what_is_written_is_the_code_s_own(walled: Bench) -> None:
    """Its user's, through a link to where that leads, with the permissions that were there."""
    sandbox = await walled.make()
    make = "import os\nopen('real', 'w').close()\nos.chmod('real', 0o750)\nos.symlink('real', 'link')"
    await walled.run(sandbox, make)
    await write(sandbox, "link", b"new")
    look = "import os\ns = os.stat('real')\nanswer = [s.st_uid, s.st_mode & 0o777, os.readlink('link')]"
    assert await walled.ask(sandbox, look) == [1000, 0o750, "real"]
    assert await read(sandbox, "real") == b"new"


async def test_a_full_disk_keeps_what_was_there(walled: Bench) -> None:
    """And nothing of what did not fit."""
    sandbox = await walled.make(limits=Limits(disk_bytes=MIB))
    await write(sandbox, "a", b"before")
    with pytest.raises(DiskFull):
        await write(sandbox, "a", bytes(2 * MIB))
    assert await read(sandbox, "a") == b"before"
    look = "import os\nanswer = [os.listdir('.'), os.statvfs('.').f_bavail > 200]"
    assert await walled.ask(sandbox, look) == [["a"], True]


async def test_a_sparse_terabyte_is_begun_and_let_go(walled: Bench) -> None:
    """It comes as fast as it is read, and its reader can stop."""
    sandbox = await walled.make(limits=Limits(file_size_bytes=1 << 41))
    await walled.run(sandbox, "import os\nos.truncate(os.open('s', os.O_CREAT | os.O_WRONLY), 1 << 40)")
    started = time.perf_counter()
    assert not any(await read(sandbox, "s", most=4 * MIB))
    assert time.perf_counter() - started < 30
    assert await walled.works(sandbox)


@pytest.mark.not_on_gvisor("slow; the worker is the same, and is led by the same links")
async def test_trees_that_change_under_the_worker(walled: Bench, tmp_path: Path) -> None:
    """Folders that become links to elsewhere and back lead nobody out of the walls."""
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "kept").write_text("kept")
    sandbox = await walled.make()
    race = f"""
import os, time
os.makedirs('t/a'); os.symlink({str(victim)!r}, 't/b')
end = time.time() + 1.0
while time.time() < end:
    try:
        os.rename('t/a', 't/c'); os.rename('t/b', 't/a'); os.rename('t/c', 't/b')
    except OSError:
        os.makedirs('t/a', exist_ok=True)
"""
    racing = sandbox.execute(ExecutionRequest(race, 20))
    for number in range(40):
        for path in ("t/a", "t/b"):
            try:
                await write(sandbox, f"{path}/{number}", b"x")
                await ask(sandbox, "delete", path=path, recursive=number % 2 == 0)
            except (FileConflict, FileMissing, FileForbidden, PathInvalid):
                continue
    racing.cancel()
    assert os.listdir(victim) == ["kept"]
    assert await walled.works(sandbox)


async def test_a_worker_is_killed_with_its_operation(walled: Bench) -> None:
    """Nothing goes on when nobody reads its answer."""
    sandbox = await walled.make()
    await walled.run(sandbox, "import os\nfor n in range(3000): open(f'{n}', 'w').close()")
    channel = begin(sandbox, "copy", source=".", target="/tmp/copy", overwrite=True)
    channel.close()
    await walled.quiet()
    assert parse_entry((await ask(sandbox, "stat", path="0"))["entry"]).kind == "file"


async def test_no_code_runs_where_no_execution_does(walled: Bench) -> None:
    """What packages of the user's have run at each start waits for an execution, and is none of a file operation's."""
    sandbox = await walled.make()
    leave = (
        "import os, site\nos.makedirs(site.getusersitepackages())\n"
        "with open(site.getusersitepackages() + '/own.pth', 'w') as own:\n"
        "    own.write('import os; os.mkdir(\"/tmp/ran\")')"
    )
    assert (await walled.run(sandbox, leave)).exit_code == 0
    for _each in range(2):
        with pytest.raises(FileMissing):
            await ask(sandbox, "stat", path="/tmp/ran")
    assert (await walled.run(sandbox, "import os\nprint(os.path.isdir('/tmp/ran'))")).stdout == b"True\n"


async def test_what_is_not_the_user_s_to_remove_keeps_what_is_in_it(walled: Bench) -> None:
    """The work folder itself, and the target of a link that is named like a folder."""
    sandbox = await walled.make()
    await write(sandbox, "in/a", b"a")
    assert (await walled.run(sandbox, "import os; os.symlink('in', 'link')")).exit_code == 0
    for path, refusal in (("/workspace", FileForbidden), ("/", PathInvalid), ("link/", FileConflict)):
        with pytest.raises(refusal):
            await ask(sandbox, "delete", path=path, recursive=True)
    assert await read(sandbox, "in/a") == b"a"


@pytest.mark.not_on_gvisor("the turns are taken outside")
async def test_a_write_waits_for_its_turn_as_long_as_other_operations(walled: Bench) -> None:
    """Not until whatever runs in the environment has ended; then nothing is written any more."""
    sandbox = await walled.make(limits=Limits(concurrent_executions=1))
    busy = sandbox.execute(ExecutionRequest("import time; time.sleep(60)", 60))
    live = SimpleNamespace(get_sandbox=lambda: sandbox, row=SimpleNamespace(largest_disk_bytes=MIB))
    lookup = create_autospec(Lookup, instance=True)
    lookup.get_live.return_value = live
    service = FileService(
        lookup, create_autospec(Lifecycle, instance=True), Settings(file_operation_timeout_s=0.3), TaskOwner()
    )
    caller = Principal(UserId("user-1"), "u", Role.USER)

    async def body() -> AsyncIterator[bytes]:
        yield b"late"

    with pytest.raises(FilesUnavailable):
        await service.write(caller, sandbox.environment_id, "late", body(), overwrite=True, mode=None)
    busy.cancel()
    service._settings = Settings(file_operation_timeout_s=20)
    with pytest.raises(FileMissing):
        await ask(sandbox, "stat", path="late")
    await service.write(caller, sandbox.environment_id, "late", body(), overwrite=True, mode=None)
    assert await read(sandbox, "late") == b"late"


async def test_an_archive_that_does_not_fit_leaves_nothing(walled: Bench) -> None:
    """One large file, or many; what was there stays, and there is room as before."""
    sandbox = await walled.make(limits=Limits(disk_bytes=MIB))
    await write(sandbox, "in/a", b"before")
    for archive in (tar(("a", b"new"), ("b", bytes(2 * MIB))), tar(*((f"d/{n}", bytes(4096)) for n in range(500)))):
        for form, content in (("tar", archive), ("tar.gz", gzip.compress(archive))):
            with pytest.raises(DiskFull):
                await unpack(sandbox, "in", form, content)
    assert [entry["path"] for entry in (await list_folder(sandbox, "."))[0]] == ["in"]
    assert [entry["path"] for entry in (await list_folder(sandbox, "in"))[0]] == ["in/a"]
    assert await read(sandbox, "in/a") == b"before"
    await unpack(sandbox, "in", "tar", tar(("b", bytes(MIB // 2))))


async def test_what_a_killed_gateway_left_half_laid_out(walled: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is removed by the next archive for the same folder; what is still at work, or called otherwise, stays."""
    sandbox = await walled.make()
    lay = """
import fcntl, os, time
for name in ("." + "unpack-" + "0" * 16, "in/.unpack-" + "1" * 16, "in/.unpack-" + "2" * 16, "in/.unpack-mine"):
    os.makedirs(name + "/deep")
    open(name + "/deep/file", "w").close()
held = os.open("in/.unpack-" + "2" * 16, os.O_RDONLY)
fcntl.flock(held, fcntl.LOCK_EX)
os.mkdir("held")
time.sleep(100)
"""
    working = sandbox.execute(walled.request(lay, 100.0))
    while "held" not in [entry["path"] for entry in (await list_folder(sandbox, "."))[0]]:
        pass
    await unpack(sandbox, "in", "tar", tar(("x", b"x")))
    paths = [entry["path"] for entry in (await list_folder(sandbox, "in"))[0]]
    assert paths == ["in/.unpack-" + "2" * 16, "in/.unpack-mine", "in/x"]
    # It answers when all of it is dead, however long the kernel takes.
    monkeypatch.setattr("sandgate.sandbox.execution._CONFIRM_S", 20.0)
    working.cancel()
    await working.wait()
    await unpack(sandbox, "in", "tar", tar(("y", b"y")))
    paths = [entry["path"] for entry in (await list_folder(sandbox, "in"))[0]]
    assert paths == ["in/.unpack-mine", "in/x", "in/y"]


async def test_what_code_may_not_read_is_left_out_and_counted(walled: Bench) -> None:
    """Files and folders that are closed; places that are not the code's own take no archive."""
    sandbox = await walled.make()
    lay = (
        "import os\nos.makedirs('in/closed')\nopen('in/closed/x', 'w').close()\nopen('in/secret', 'w').close()\n"
        "open('in/open', 'w').close()\nos.chmod('in/closed', 0)\nos.chmod('in/secret', 0)"
    )
    assert (await walled.run(sandbox, lay)).exit_code == 0
    channel = begin(sandbox, "pack", path="in", form="tar", most_entries=99, most_bytes=MIB)
    assert (await channel.answer())["skipped"] == 2
    channel.close()
    assert read_archive("tar", await pack(sandbox, "in", "tar")) == {"open": b""}
    assert "passwd" in read_archive("tar", await pack(sandbox, "/etc", "tar"))
    for place in ("/etc", "/usr/new", "/"):
        with pytest.raises(FileForbidden):
            await unpack(sandbox, place, "tar", tar(("x", b"x")))


async def test_search_and_watch_are_ended_with_who_asked(walled: Bench) -> None:
    """Their place is another's at once, whatever they were at."""
    sandbox = await walled.make(limits=Limits(concurrent_executions=1))
    await write(sandbox, "a", b"a" * 5000 + b"!")
    asked: dict[str, Any] = {"path": ".", "name": None, "limit": 9, "after": ["", 0], "timeout_s": 60}
    options = {"regex": True, "ignore_case": False}
    operations: dict[str, dict[str, Any]] = {
        "search": {"content": "(a+)+$", "options": options, **asked},
        "watch": {"path": ".", "recursive": True, "most_entries": 99, "most_changes": 9},
    }
    for operation, arguments in operations.items():
        channel = begin(sandbox, operation, Outlet(), **arguments)
        await channel.answer()
        channel.close()
        async with asyncio.timeout(30):
            assert (await walled.run(sandbox, "print(1)")).stdout == b"1\n"
