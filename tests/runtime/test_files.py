"""Files of a sandbox, with code in it that lays traps for whoever works on them."""

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
from sandgate.core.principal import Principal, Role
from sandgate.environments.files import FileService
from sandgate.environments.lifecycle import Lifecycle
from sandgate.environments.lookup import Lookup
from tests.runtime.file_client import ask, begin, read, write
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


async def test_no_path_leads_out(standard: Bench, tmp_path: Path) -> None:
    """Links, the proc file system and steps upwards end within the walls; what is no file is refused at once."""
    secret = tmp_path / "secret"
    secret.write_text("of the host")
    os.chmod(tmp_path, 0o755)
    sandbox = await standard.make()
    assert (await standard.run(sandbox, TRAPS.format(secret=str(secret)))).stderr == b""
    for path in ("to-host", "through-proc", "to-root" + str(secret), "../../../.." + str(secret)):
        with pytest.raises(FileMissing):
            await read(sandbox, path)
    assert b"nologin" in await read(sandbox, "to-root/etc/passwd")
    assert await read(sandbox, "odd \udcff\nname") == b"odd"
    refusals: dict[str, Any] = {
        "fifo": FileConflict,
        "/dev/zero": FileConflict,
        "/proc/kcore": (FileConflict, FileForbidden, FileMissing),
        "/proc/1/root/etc/passwd": (FileForbidden, FileMissing),
        "/proc/1/environ": (FileForbidden, FileMissing),
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


async def test_what_is_written_is_the_code_s_own(standard: Bench) -> None:
    """Its user's, through a link to where that leads, with the permissions that were there."""
    sandbox = await standard.make()
    make = "import os\nopen('real', 'w').close()\nos.chmod('real', 0o750)\nos.symlink('real', 'link')"
    await standard.run(sandbox, make)
    await write(sandbox, "link", b"new")
    look = "import os\ns = os.stat('real')\nanswer = [s.st_uid, s.st_mode & 0o777, os.readlink('link')]"
    assert await standard.ask(sandbox, look) == [1000, 0o750, "real"]
    assert await read(sandbox, "real") == b"new"


async def test_a_full_disk_keeps_what_was_there(standard: Bench) -> None:
    """And nothing of what did not fit."""
    sandbox = await standard.make(limits=Limits(disk_bytes=MIB))
    await write(sandbox, "a", b"before")
    with pytest.raises(DiskFull):
        await write(sandbox, "a", bytes(2 * MIB))
    assert await read(sandbox, "a") == b"before"
    look = "import os\nanswer = [os.listdir('.'), os.statvfs('.').f_bavail > 200]"
    assert await standard.ask(sandbox, look) == [["a"], True]


async def test_a_sparse_terabyte_is_begun_and_let_go(standard: Bench) -> None:
    """It comes as fast as it is read, and its reader can stop."""
    sandbox = await standard.make(limits=Limits(file_size_bytes=1 << 41))
    await standard.run(sandbox, "import os\nos.truncate(os.open('s', os.O_CREAT | os.O_WRONLY), 1 << 40)")
    started = time.perf_counter()
    assert not any(await read(sandbox, "s", most=4 * MIB))
    assert time.perf_counter() - started < 5
    assert await standard.works(sandbox)


async def test_trees_that_change_under_the_worker(standard: Bench, tmp_path: Path) -> None:
    """Folders that become links to elsewhere and back lead nobody out of the walls."""
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "kept").write_text("kept")
    sandbox = await standard.make()
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
    assert await standard.works(sandbox)


async def test_a_worker_is_killed_with_its_operation(standard: Bench) -> None:
    """Nothing goes on when nobody reads its answer."""
    sandbox = await standard.make()
    await standard.run(sandbox, "import os\nfor n in range(3000): open(f'{n}', 'w').close()")
    channel = begin(sandbox, "copy", source=".", target="/tmp/copy", overwrite=True)
    channel.close()
    await standard.quiet()
    assert parse_entry((await ask(sandbox, "stat", path="0"))["entry"]).kind == "file"


async def test_no_code_runs_where_no_execution_does(standard: Bench) -> None:
    """What packages of the user's have run at each start waits for an execution, and is none of a file operation's."""
    sandbox = await standard.make()
    leave = (
        "import os, site\nos.makedirs(site.getusersitepackages())\n"
        "with open(site.getusersitepackages() + '/own.pth', 'w') as own:\n"
        "    own.write('import os; os.mkdir(\"/tmp/ran\")')"
    )
    assert (await standard.run(sandbox, leave)).exit_code == 0
    for _each in range(2):
        with pytest.raises(FileMissing):
            await ask(sandbox, "stat", path="/tmp/ran")
    assert (await standard.run(sandbox, "import os\nprint(os.path.isdir('/tmp/ran'))")).stdout == b"True\n"


async def test_what_is_not_the_user_s_to_remove_keeps_what_is_in_it(standard: Bench) -> None:
    """The work folder itself, and the target of a link that is named like a folder."""
    sandbox = await standard.make()
    await write(sandbox, "in/a", b"a")
    assert (await standard.run(sandbox, "import os; os.symlink('in', 'link')")).exit_code == 0
    for path, refusal in (("/workspace", FileForbidden), ("/", PathInvalid), ("link/", FileConflict)):
        with pytest.raises(refusal):
            await ask(sandbox, "delete", path=path, recursive=True)
    assert await read(sandbox, "in/a") == b"a"


async def test_a_write_waits_for_its_turn_as_long_as_other_operations(standard: Bench) -> None:
    """Not until whatever runs in the environment has ended; then nothing is written any more."""
    sandbox = await standard.make(limits=Limits(concurrent_executions=1))
    busy = sandbox.execute(ExecutionRequest("import time; time.sleep(60)", 60))
    live = SimpleNamespace(get_sandbox=lambda: sandbox, row=SimpleNamespace(limits=Limits()))
    lookup = create_autospec(Lookup, instance=True)
    lookup.get_live.return_value = live
    service = FileService(lookup, create_autospec(Lifecycle, instance=True), Settings(file_operation_timeout_s=0.3))
    caller = Principal(UserId("user-1"), "u", Role.USER)

    async def body() -> AsyncIterator[bytes]:
        yield b"late"

    with pytest.raises(FilesUnavailable):
        await service.write(caller, sandbox.environment_id, "late", body(), overwrite=True, mode=None)
    busy.cancel()
    with pytest.raises(FileMissing):
        await ask(sandbox, "stat", path="late")
    await service.write(caller, sandbox.environment_id, "late", body(), overwrite=True, mode=None)
    assert await read(sandbox, "late") == b"late"
