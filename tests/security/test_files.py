"""Ways around the file system: handles, links, mounts, set-uid, full disks, and files laid out as traps."""

import asyncio
import time

import pytest

from sandgate.core.limits import MIB, Limits
from sandgate.core.states import ExecutionStatus
from tests.runtime.hosts import until
from tests.runtime.kernel import numbers
from tests.security.siege import Siege

pytestmark = pytest.mark.needs_root_namespaces

SMALL = Limits(memory_bytes=64 * MIB, disk_bytes=32 * MIB, inodes=3000)


async def test_ways_to_the_hosts_files(siege: Siege) -> None:
    """No handle, no link of ``/proc`` and no descriptor leads out of the environment's own root."""
    n = numbers()
    code = (
        "root = os.open('/', os.O_RDONLY)\ninode = os.stat('/').st_ino, os.stat('/').st_dev\nanswer = []\n"
        "for path in ('/..', '/../../..', '/proc/self/root/..', '/proc/thread-self/root/..', '/proc/self/cwd/../..'):\n"
        "    answer.append((os.stat(path).st_ino, os.stat(path).st_dev) == inode)\n"
        "answer.append((os.stat('..', dir_fd=root).st_ino, os.stat('..', dir_fd=root).st_dev) == inode)\n"
        "handle = ctypes.create_string_buffer(struct.pack('Ii', 8, 1) + bytes(128))\n"
        f"calls = [call({n['name_to_handle_at']}, -100, b'/etc/passwd', handle, ctypes.byref(ctypes.c_int()), 0),\n"
        f"  call({n['open_by_handle_at']}, root, handle, 0), call({n['chroot']}, b'/tmp'),\n"
        f"  call({n['open_tree']}, -100, b'/', 1), call({n['move_mount']}, root, b'', root, b'', 4),\n"
        f"  call({n['mount']}, b'/', b'/tmp', b'', 4096, 0), call({n['mount']}, b'x', b'/tmp', b'overlay', 0, b''),\n"
        f"  call({n['mount']}, b'', b'/usr', b'', 32 | 4096, 0), call({n['umount2']}, b'/usr', 2),\n"
        f"  call({n['fsopen']}, b'overlay', 0), call({n['fspick']}, -100, b'/', 0), call({n['mount_setattr']}, 0)]\n"
        "answer = [answer, sorted(set(calls))]"
    )
    inside, refused = await siege.ask(code)
    assert set(inside) == {True}
    assert refused == ["EPERM"]


async def test_set_uid_and_attributes(siege: Siege) -> None:
    """A file that is made set-uid, or is given capabilities, brings nobody anything."""
    code = (
        "import shutil, subprocess\nshutil.copy('/usr/bin/id', 'id')\nos.chmod('id', 0o6777)\n"
        "answer = [subprocess.run(['./id', '-u'], capture_output=True, text=True).stdout.strip(),\n"
        "  fails(os.setxattr, 'id', 'security.capability', bytes.fromhex('0100000200000080' + '00' * 12)),\n"
        "  fails(os.setxattr, 'id', 'trusted.overlay.opaque', b'y'), fails(os.chown, 'id', 0, 0),\n"
        "  fails(os.chown, '/workspace', 0, -1), fails(os.mknod, 'null', 0o20666, 0x103),\n"
        "  fails(os.link, '/usr/bin/id', 'linked')]"
    )
    identity, *refused = await siege.ask(code)
    assert identity == "1000"
    assert set(refused) <= {"EPERM", "EXDEV", "ENOTSUP", "EINVAL"}


FILLERS = {
    "with bytes": "f = open('f', 'wb', buffering=0)\nwhile True: f.write(bytes(1 << 20))",
    "ahead": "f = open('f', 'wb')\nfor n in range(99): os.posix_fallocate(f.fileno(), n << 20, 1 << 20)",
    "with files": "for n in range(10**6): open(f'{n}', 'w').close()",
    "with folders": "for n in range(10**6): os.mkdir(f'{n}')",
    "with links": "for n in range(10**6): os.symlink('x' * 4000, f'{n}')",
    "with hard links": "open('f', 'w').close()\nfor n in range(10**6): os.link('f', f'{n}')",
    "with fifos": "for n in range(10**6): os.mkfifo(f'{n}')",
    "with sockets": "for n in range(10**6): s = socket.socket(socket.AF_UNIX); s.bind(f'{n}'); s.close()",
    "with attributes": "open('f', 'w').close()\nfor n in range(10**6): os.setxattr('f', f'user.{n}', bytes(60_000))",
    "in depth": "for n in range(10**6): os.mkdir('d' * 200); os.chdir('d' * 200)",
}


@pytest.mark.parametrize("how", FILLERS)
@pytest.mark.few_on_gvisor(how=["with bytes"])
async def test_full_disk(how: str, siege: Siege) -> None:
    """However it is filled, it is full for its own environment only, which still answers, and ends at once."""
    siege.attacker = await siege.bench.make(limits=SMALL)
    ran = await siege.run(
        f"try:\n    exec({FILLERS[how]!r})\nexcept OSError as e: os.write(1, errno.errorcode[e.errno].encode())", 60.0
    )
    if ran.status is ExecutionStatus.OUT_OF_MEMORY:
        assert ran.stdout == b""
    else:
        # What is not refused until it is done is more than there is room for.
        assert ran.status is ExecutionStatus.COMPLETED, ran
        assert ran.stdout in (b"ENOSPC", b"EDQUOT", b"ENOTSUP", b"EMLINK")
    assert await siege.bench.works(siege.attacker)
    started = time.perf_counter()
    await siege.bench.runtime.destroy(siege.attacker.environment_id)
    assert time.perf_counter() - started < 40


TRAPS = (
    "for name in ('workspace', 'etc', 'passwd', 'launcher.sock'):\n    os.symlink('/' + name, '/tmp/' + name)\n"
    "os.symlink('/proc/self/mem', 'mem')\nos.symlink('.', 'loop')\nos.symlink('/dev/zero', 'zero')\n"
    "os.mkfifo('/tmp/fifo')\nos.mkfifo('json.py')\nos.mkdir('\\udcff\\n\\t ' + 'x' * 200)\n"
    "s = socket.socket(socket.AF_UNIX)\ns.bind('sock')\ns.listen()\n"
    "os.mkdir('sub', 0)\nf = open('sparse', 'wb')\nf.truncate(200 << 20)\nanswer = 1"
)


async def test_traps_for_a_service_that_follows(siege: Siege) -> None:
    """Links, pipes and odd names for whoever comes from outside: counting and ending it goes as fast as ever."""
    await siege.ask(TRAPS)
    async with asyncio.timeout(40):
        used = await siege.attacker.usage()
        assert used.disk_bytes is None or used.disk_bytes < 32 * MIB
        await siege.bench.runtime.destroy(siege.attacker.environment_id)


async def test_clean_up_races(siege: Siege) -> None:
    """Files that are made, moved and removed while the environment is ended are no reason to wait, or to stay."""
    race = (
        "for _ in range(4): os.fork()\nme = str(os.getpid())\nwhile True:\n    try:\n        os.mkdir(me)\n"
        "        open(me + '/f', 'w').close()\n        os.rename(me, me + 'x')\n        os.remove(me + 'x/f')\n"
        "        os.rmdir(me + 'x')\n    except OSError: pass"
    )
    for _round in range(3):
        sandbox = await siege.bench.make()
        running = sandbox.execute(siege.bench.request("import os\n" + race))
        await asyncio.sleep(0.1)
        async with asyncio.timeout(40):
            await siege.bench.runtime.destroy(sandbox.environment_id)
        assert (await running.wait()).status is ExecutionStatus.LOST
    await until(lambda: siege.bench.count_groups() == 2)
