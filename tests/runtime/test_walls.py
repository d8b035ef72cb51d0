"""What code in an environment sees and reaches: its own files, its own processes, and nothing of anybody else's."""

import asyncio
import os
import secrets
import socket
from pathlib import Path

import pytest

from sandgate.core.execution import ExecutionRequest
from sandgate.core.states import ExecutionStatus
from tests.runtime.hosts import Bench, available_versions, find_templates, until

pytestmark = [pytest.mark.needs_root_namespaces, pytest.mark.attack]

# Defines ``fails``: the name of the error that a call ends with, None when it succeeds.
FAILS = """
import errno, os, socket, struct
def fails(call, *arguments):
    try: call(*arguments)
    except OSError as error: return errno.errorcode[error.errno]
def no_new_privs():
    import ctypes
    return ctypes.CDLL(None).prctl(39, 0, 0, 0, 0)
"""
REFUSED = {"EPERM", "EACCES", "EROFS", "ENOENT", "EINVAL", "ETXTBSY", "ENOTSUP"}


def prefix() -> str:
    """Where the interpreter of the sandboxes is installed."""
    return find_templates()[-1].prefix


async def test_root(walled: Bench) -> None:
    """The root holds what is listed here, and of the host's own folders only the way to the interpreter."""
    code = (
        "import os\nanswer = {d: sorted(os.listdir(d)) for d in ('/', '/home', '/run', '/var', '/workspace', '/tmp')}"
    )
    found = await walled.ask(await walled.make(), code)
    links = {name for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32") if name in os.listdir("/")}
    way = {Path(prefix()).parts[1]}
    expected = {"dev", "etc", "home", "proc", "run", "tmp", "usr", "var", "workspace"} | links | way
    assert set(found["/"]) == expected
    assert found["/run"] == ["shm"]
    assert found["/var"] == ["empty", "tmp"]
    assert found["/home"] == ["user"]
    assert found["/workspace"] == found["/tmp"] == []


async def test_etc_is_synthetic(walled: Bench) -> None:
    """No account, key, name or address of the host's is in ``/etc``."""
    sandbox = await walled.make()
    listed = await walled.ask(sandbox, "import os\nanswer = os.listdir('/etc')")
    assert not {"shadow", "gshadow", "hostname", "machine-id", "fstab", "ssh", "sudoers", "environment"} & set(listed)
    names = await walled.ask(sandbox, "answer = [l.split(':')[0] for l in open('/etc/passwd')]")
    assert names == ["root", "user", "nobody"]
    assert await walled.ask(
        sandbox, "import socket\nanswer = [socket.gethostname(), *__import__('os').uname()[1:2]]"
    ) == [
        "sandbox",
        "sandbox",
    ]


async def test_files_of_the_host(walled: Bench, tmp_path: Path) -> None:
    """A file of the host's is not there, by whatever way."""
    secret = tmp_path / "secret"
    secret.write_text("planted")
    secret.chmod(0o666)
    code = FAILS + (
        f"path = {str(secret)!r}\nbases = ['', '/proc/self/root', '/proc/1/root', '/proc/thread-self/root', "
        "'/proc/self/cwd/../../../..', '/proc/self/root/../../..', '/dev/fd/0/../../..', '/proc/self/task/../root']\n"
        "bases += [f'/proc/self/fd/{fd}/../..' for fd in os.listdir('/proc/self/fd')]\n"
        "answer = [fails(open, base + path) for base in bases]"
    )
    for error in await walled.ask(await walled.make(), code):
        assert error in {"ENOENT", "ENOTDIR", "EACCES"}


EMPTY = ["/proc/acpi", "/proc/asound", "/proc/driver", "/proc/pressure", "/proc/scsi"]


async def test_mounts(walled: Bench) -> None:
    """Every mount is of a listed kind, honours no set-uid file, and can be written where the user's files are only."""
    rows = await walled.ask(await walled.make(), "answer = [l.split() for l in open('/proc/self/mountinfo')]")
    for row in rows:
        place, flags, kind = row[4], set(row[5].split(",")), row[row.index("-") + 1]
        assert kind in (
            {"tmpfs", "9p", "devpts", "proc"} if walled.on_gvisor else {"tmpfs", "overlay", "devpts", "proc"}
        )
        # gVisor tells of few flags, and asks its own for whether a set-uid file counts: test_set_uid_and_attributes.
        assert "nosuid" in flags or walled.on_gvisor
        if kind == "overlay":
            assert {"ro", "nodev"} <= flags
        if "rw" in flags:
            assert place in {"/", "/dev/shm", "/dev/pts", "/proc", *EMPTY}
        if place != "/dev" and kind != "tmpfs" and not walled.on_gvisor:
            assert "nodev" in flags or kind == "devpts"


WRITES = [
    "/x", "/usr/x", "/usr/bin/env", "/etc/passwd", "/etc/x", "/dev/x", "/dev/shm/../x", "/bin/sh", "/home/x", "/run/x",
    "/var/x", "/proc/driver/x", "/proc/irq/default_smp_affinity", "/proc/self/ns/user", "/proc/self/exe",
    "/proc/sys/kernel/hostname", "/proc/sys/kernel/core_pattern", "/proc/sys/vm/drop_caches",
    "/proc/self/uid_map", "/proc/1/oom_score_adj",
]  # fmt: skip


async def test_nothing_of_a_template_can_be_written(walled: Bench) -> None:
    """Neither the interpreter nor the system's files nor the kernel's switches, by no kind of change."""
    code = FAILS + (
        f"paths = {WRITES!r} + [os.path.realpath(__import__('sys').executable), os.__file__, {prefix()!r} + '/x']\n"
        "def write(p): os.write(os.open(p, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), b'0 0 1')\n"
        "answer = {p: fails(write, p) for p in paths}\n"
        # A kernel that has it shows the null device in its place.
        "p = '/proc/sysrq-trigger'\n"
        "if os.path.exists(p): answer[p] = os.stat(p).st_rdev == os.stat('/dev/null').st_rdev and 'EACCES'\n"
        "for p in ('/usr/bin/env', os.__file__, '/etc/passwd'):\n"
        "    for call in (os.chmod, os.rename, os.link, os.symlink, os.truncate):\n"
        "        args = {os.chmod: (p, 0o777), os.truncate: (p, 0)}.get(call, (p, p + 'x'))\n"
        "        answer[p + call.__name__] = fails(call, *args)\n"
        "    answer[p + 'unlink'] = fails(os.unlink, p)\n    answer[p + 'utime'] = fails(os.utime, p)\n"
        "    answer[p + 'setxattr'] = fails(os.setxattr, p, 'user.x', b'1')\n"
    )
    found = await walled.ask(await walled.make(), code)
    allowed = {path: error for path, error in found.items() if error not in REFUSED}
    assert not allowed


async def test_identity(walled: Bench) -> None:
    """An ordinary user without groups, capabilities, or a way to any."""
    code = FAILS + (
        "status = dict(l.split(':', 1) for l in open('/proc/self/status').read().splitlines())\n"
        "answer = {'ids': [*os.getresuid(), *os.getresgid()], 'groups': os.getgroups(),\n"
        "  'caps': {k: int(v, 16) for k, v in status.items() if k.startswith('Cap')},\n"
        "  'privs': no_new_privs(), 'seccomp': status['Seccomp'].strip(),\n"
        "  'change': [fails(os.setuid, 0), fails(os.setgid, 0), fails(os.setgroups, [0])],\n"
        "  'session': os.getsid(0) == os.getpid(), 'umask': os.umask(0o77)}"
    )
    found = await walled.ask(await walled.make(), code)
    assert found["ids"] == [1000] * 6
    assert found["groups"] == []
    assert set(found["caps"].values()) == {0}
    assert len(found["caps"]) == (4 if walled.on_gvisor else 5)
    assert (found["privs"], found["seccomp"]) == (1, "2")
    assert set(found["change"]) == {"EPERM"}
    assert found["session"] is True
    assert found["umask"] == 0o22


@pytest.mark.not_on_gvisor("its ids are those of its processes on the host: test_gvisor.py")
async def test_no_two_environments_share_an_id(walled: Bench) -> None:
    """Each has ids of the host's of its own, and none is one of the host's accounts."""
    sandboxes = [await walled.make() for _each in range(3)]
    look = "answer = [int(l.split()[1]) for l in open('/proc/self/uid_map')]"
    ids = [number for each in sandboxes for number in await walled.ask(each, look)]
    assert len(set(ids)) == 6
    assert min(ids) >= walled.host.config.host_id_base


async def test_descriptors_and_environment_variables(walled: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the host's is inherited: no descriptor, no variable, no signal that is ignored."""
    code = "import os\nnames = os.listdir('/proc/self/fd')\n" + (
        "answer = [{n: os.readlink('/proc/self/fd/' + n) for n in names if os.path.lexists('/proc/self/fd/' + n)}, "
        "dict(os.environ), open('/proc/self/environ', 'rb').read().decode()]"
    )
    sandbox = await walled.make()
    descriptors, variables, environ = await walled.ask(sandbox, code)
    assert set(descriptors) == {"0", "1", "2", "63"}
    assert descriptors["0"] == "/dev/null"
    assert all(target.startswith(("pipe:", "socket:", "/dev/null", "host:")) for target in descriptors.values())
    assert set(variables) == {"HOME", "LANG", "LOGNAME", "PATH", "PIP_BREAK_SYSTEM_PACKAGES", "PWD", "USER"}
    assert {row.partition("=")[0] for row in environ.split("\0") if row} <= set(variables)
    ignored = await walled.ask(
        sandbox, "answer = [l.split()[1] for l in open('/proc/self/status') if l.startswith(('SigIgn', 'SigBlk'))]"
    )
    # An interpreter ignores SIGPIPE and SIGXFSZ by itself. Old versions of gVisor do not tell.
    assert walled.on_gvisor or [int(mask, 16) for mask in ignored] == [0, 1 << 12 | 1 << 24]


async def test_network(walled: Bench) -> None:
    """There is a loopback device that works, and no way out of it."""
    code = FAILS + (
        "import threading\nserver = socket.create_server(('127.0.0.1', 0))\n"
        "client = socket.create_connection(('localhost', server.getsockname()[1]))\nclient.sendall(b'x')\n"
        "def datagram(family, address): socket.socket(family, socket.SOCK_DGRAM).connect((address, 9))\n"
        "answer = {'got': server.accept()[0].recv(1).decode(), 'devices': socket.if_nameindex(),\n"
        "  'out': [fails(datagram, socket.AF_INET, a) for a in ('192.0.2.1', '10.0.0.1', '169.254.169.254')],\n"
        "  'out6': [fails(datagram, socket.AF_INET6, a) for a in ('2001:db8::1', 'fd00::1')],\n"
        "  'routes': len(open('/proc/net/route').readlines())}"
    )
    found = await walled.ask(await walled.make(), code)
    assert found["got"] == "x"
    assert found["devices"] == [[1, "lo"]]
    assert set(found["out"] + found["out6"]) <= {"ENETUNREACH", "EHOSTUNREACH", "EADDRNOTAVAIL"}
    assert found["routes"] == 1


async def test_listeners_of_the_host(walled: Bench, tmp_path: Path) -> None:
    """What listens on the host's loopback, or under an abstract or a path's name, cannot be reached."""
    name = "sandgate-test-" + secrets.token_hex(8)
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as abstract:
        abstract.bind("\0" + name)
        abstract.listen()
        path = walled.host.config.socket_path
        code = FAILS + (
            "def unix(address, kind): socket.socket(socket.AF_UNIX, kind).connect(address)\n"
            f"answer = [fails(socket.create_connection, ('127.0.0.1', {tcp.getsockname()[1]})),\n"
            f"  fails(unix, '\\0{name}', socket.SOCK_STREAM), fails(unix, {str(path)!r}, socket.SOCK_SEQPACKET)]"
        )
        assert await walled.ask(await walled.make(), code) == ["ECONNREFUSED", "ECONNREFUSED", "ENOENT"]


async def test_listeners_of_a_neighbour(walled: Bench) -> None:
    """Environments have loopback devices and names of their own; executions of one environment share them."""
    listen = (
        "import socket, time\nserver = socket.create_server(('127.0.0.1', 7777))\n"
        "name = socket.socket(socket.AF_UNIX)\nname.bind('\\0name')\nname.listen()\n"
        "open('ready', 'w').close()\nserver.accept()"
    )
    sandbox, neighbour = await walled.make(), await walled.make()
    listening = sandbox.execute(ExecutionRequest(listen, 60))
    connect = FAILS + (
        "def unix(): socket.socket(socket.AF_UNIX).connect('\\0name')\n"
        "answer = [fails(unix), fails(socket.create_connection, ('127.0.0.1', 7777))]"
    )
    await walled.run(sandbox, "import os, time\nwhile not os.path.exists('ready'): time.sleep(0.005)")
    assert await walled.ask(neighbour, connect) == ["ECONNREFUSED", "ECONNREFUSED"]
    assert await walled.ask(sandbox, connect) == [None, None]
    assert (await listening.wait()).status is ExecutionStatus.COMPLETED


async def test_processes(walled: Bench) -> None:
    """Nobody sees a process but those of its own execution; signals reach no one else."""
    sandbox, neighbour = await walled.make(), await walled.make()
    sleep = "import os, time\nopen('pid', 'w').write(str(os.getpid()))\ntime.sleep(30)"
    others = [each.execute(ExecutionRequest(sleep, 60)) for each in (sandbox, neighbour)]
    code = FAILS + (
        "import signal, sys\nif os.fork() == 0: signal.pause()\n"
        "pids = {n for n in os.listdir('/proc') if n.isdigit()}\n"
        "answer = {'seen': len(pids), 'me': str(os.getpid()) in pids, 'one': os.path.exists('/proc/1'),\n"
        "  'signals': [fails(os.kill, 1, s) for s in (0, 9, 15, 19)], 'far': fails(os.kill, 99999, 9),\n"
        "  'rest': [fails(os.setpriority, os.PRIO_PROCESS, 1, 19), fails(os.sched_setaffinity, 1, {0})],\n"
        "  'files': [fails(open, '/proc/1/' + n) for n in ('mem', 'environ', 'maps', 'status', 'root', 'fd')]}\n"
        "os.kill(-1, signal.SIGKILL)\nanswer['gone'] = os.waitpid(-1, 0)[1]"
    )
    for _round in range(2):
        found = await walled.ask(sandbox, code)
        # That process 1 is there is no secret in gVisor.
        assert (found["one"], found["seen"]) == ((True, 3) if walled.on_gvisor else (False, 2))
        assert (found["me"], found["gone"]) == (True, 9)
        assert set(found["signals"]) == {"EPERM"}
        assert found["far"] == "ESRCH"
        # gVisor lets them be called, and does nothing.
        assert set(found["rest"]) <= ({"EPERM", None} if walled.on_gvisor else {"EPERM"})
        memory, *_told, root, _descriptors = found["files"]
        assert (memory, root) == ("EACCES", "EACCES") if walled.on_gvisor else set(found["files"]) == {"ENOENT"}
    await asyncio.sleep(0)
    for other in others:
        other.cancel()
        assert (await other.wait()).status is ExecutionStatus.CANCELLED


MASKED = [
    "kcore", "keys", "key-users", "kallsyms", "kmsg", "timer_list", "sched_debug", "interrupts", "slabinfo",
    "vmallocinfo", "pagetypeinfo", "kpagecount", "kpageflags", "kpagecgroup", "latency_stats", "sysrq-trigger",
    "timer_stats", "locks",
]  # fmt: skip


async def test_masks(walled: Bench) -> None:
    """Files that tell of the kernel and of others are empty or refused, and there is no ``/sys``."""
    code = FAILS + (
        f"def read(name):\n    with open('/proc/' + name, 'rb') as f: assert f.read(10) == b'', name\n"
        f"answer = {{n: fails(read, n) for n in {MASKED!r}}}\n"
        "answer['sys'] = os.path.exists('/sys') or os.path.exists('/proc/acpi/x')\n"
        f"answer['folders'] = [os.listdir(n) for n in {EMPTY!r} if os.path.exists(n)]\n"
        "answer['groups'] = sorted({l.strip().split(':')[2] for l in open('/proc/self/cgroup')})\n"
    )
    found = await walled.ask(await walled.make(), code)
    assert found.pop("sys") is False
    assert not any(found.pop("folders"))
    assert found.pop("groups") == ([] if walled.on_gvisor else ["/"])
    assert set(found.values()) <= {None, "ENOENT", "EACCES", "EPERM"}


LOCK = """
import fcntl, struct
held = open("locked", "w")
fcntl.fcntl(held, 37, struct.pack("hhqqixxxx", fcntl.F_WRLCK, 0, 73914, 1, 0))
answer = 0
time.sleep(60)
"""


async def test_locks_are_no_letters(standard: Bench) -> None:
    """A lock of an open file belongs to no process, and so the kernel shows it, and where in the file, to everybody."""
    ours, theirs = await standard.make(), await standard.make()
    waits = ours.execute(standard.request(f"import time\n{LOCK.replace('answer = 0', 'print(1, flush=True)')}"))
    read = "try:\n    answer = open('/proc/locks').read()\nexcept OSError:\n    answer = ''"
    await until(lambda: "73914" in Path("/proc/locks").read_text())
    assert await standard.ask(theirs, read) == ""
    waits.cancel()


async def test_devices(walled: Bench) -> None:
    """The listed devices and no others, which can neither be made nor opened in another way."""
    code = FAILS + (
        "import stat\nanswer = {'names': sorted(os.listdir('/dev')), 'tty': fails(open, '/dev/tty'),\n"
        "  'made': [fails(os.mknod, 'x', 0o600 | k, 0x103) for k in (stat.S_IFCHR, stat.S_IFBLK)],\n"
        "  'zero': open('/dev/zero', 'rb').read(3).hex(),\n"
        "  'full': fails(os.write, os.open('/dev/full', os.O_WRONLY), b'x')}\n"
        "leader, follower = os.openpty()\nos.write(leader, b'x\\n')\nanswer['pty'] = os.read(follower, 9).decode()\n"
        "import fcntl\nanswer['typed'] = [fails(fcntl.ioctl, follower, r, b'x') for r in (0x5412, 0x541C)]\n"
        "answer['others'] = sorted(os.listdir('/dev/pts'))\n"
        "def fill():\n    while True: os.openpty()\nanswer['most'] = fails(fill)"
    )
    found = await walled.ask(await walled.make(), code)
    names = [
        "fd",
        "full",
        "null",
        "ptmx",
        "pts",
        "random",
        "shm",
        "stderr",
        "stdin",
        "stdout",
        "tty",
        "urandom",
        "zero",
    ]
    assert found["names"] == names
    assert found["made"] == ["EPERM", "EPERM"]
    assert found["tty"] in ("ENXIO", "EIO")
    number, ptmx = found["others"]
    # gVisor counts on from terminals that others had in there before.
    assert (number == "0" or (walled.on_gvisor and number.isdigit()), ptmx) == (True, "ptmx")
    # In gVisor only descriptors run out.
    assert found["most"] == ("EMFILE" if walled.on_gvisor else "ENOSPC")
    assert (found["zero"], found["full"], found["pty"]) == ("000000", "ENOSPC", "x\n")
    assert found["typed"] == ["EPERM", "EPERM"]


async def test_own_files_stay_and_are_the_users(walled: Bench) -> None:
    """Files persist from one execution to the next, in each folder of the user's, and are nobody else's."""
    sandbox, neighbour = await walled.make(), await walled.make()
    places = ["/workspace/f", "/home/user/f", "/tmp/f", "/var/tmp/f", "/dev/shm/f"]
    await walled.ask(sandbox, f"for p in {places}: open(p, 'w').write('kept')\nanswer = 1")
    look = f"import os\nanswer = [os.path.exists(p) and open(p).read() for p in {places}]"
    assert await walled.ask(sandbox, look) == ["kept"] * 5
    assert await walled.ask(neighbour, look) == [False] * 5
    assert await walled.ask(sandbox, "import os\nanswer = [os.getcwd(), os.path.expanduser('~')]") == [
        "/workspace",
        "/home/user",
    ]


async def test_strange_files(walled: Bench) -> None:
    """Whatever kinds of files an environment is full of, it ends as quickly as any other."""
    code = (
        "import os, socket\nos.symlink('/etc/passwd', 'link'); os.symlink('loop', 'loop'); os.mkfifo('fifo')\n"
        "socket.socket(socket.AF_UNIX).bind('socket')\nos.mkdir('closed', 0)\n"
        "os.truncate(os.open('sparse', os.O_CREAT | os.O_WRONLY), 1 << 27)\n"
        "for i in range(300):\n    os.mkdir('deep' * 20); os.chdir('deep' * 20)\nanswer = 1"
    )
    sandbox = await walled.make()
    before = len(walled.host.groups())
    await walled.ask(sandbox, code)
    assert await walled.works(sandbox)
    await walled.runtime.destroy(sandbox.environment_id)
    assert len(walled.host.groups()) == before - 1


@pytest.mark.parametrize("version", available_versions())
@pytest.mark.few_on_gvisor(version=[available_versions()[0], available_versions()[-1]])
async def test_every_version_is_confined(version: str, walled: Bench) -> None:
    """The walls are the same around every version of Python."""
    code = FAILS + (
        "status = dict(l.split(':', 1) for l in open('/proc/self/status').read().splitlines())\n"
        "answer = [os.getuid(), int(status['CapEff'], 16), status['Seccomp'].strip(), no_new_privs(),\n"
        "  fails(open, '/usr/x', 'w'), os.path.exists('/proc/1'), os.path.exists('/sys')]"
    )
    expected = [1000, 0, "2", 1, "EACCES" if walled.on_gvisor else "EROFS", walled.on_gvisor, False]
    assert await walled.ask(await walled.make(version), code) == expected
