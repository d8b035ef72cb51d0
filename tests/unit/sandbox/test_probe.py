"""What the machine can do, found out by trying."""

import ctypes
import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sandgate.core.states import Isolation
from sandgate.sandbox import probe as probing
from sandgate.sandbox.probe import Ability, Machine, probe

SCRIPT = Path(probing.__file__).with_name("probe_process.py")


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that is run in the place of the one that tries."""
    monkeypatch.setattr(probing, "__file__", str(tmp_path / "probe.py"))
    return tmp_path / "probe_process.py"


def by_name(machine: Machine) -> dict[str, Ability]:
    """The abilities by their names."""
    return {ability.name: ability for ability in machine.abilities}


def test_every_ability_has_an_answer() -> None:
    """With what was found, what it is for and, when it is lacking, what brings it."""
    machine = probe()
    names = [ability.name for ability in machine.abilities]
    assert len(set(names)) == len(names) == 18
    for ability in machine.abilities:
        assert ability.found
        assert ability.needed_for
        assert bool(ability.mend) is not ability.ok


@pytest.mark.needs_root_namespaces
def test_this_machine_can_hold_the_standard_class() -> None:
    """Where all tests run, nothing is lacking; every finding was made and not skipped."""
    machine = probe()
    assert (machine.missing_for(Isolation.STANDARD), machine.can_hold_process) == ((), True)
    assert str(machine) == "nothing is lacking"


def test_nothing_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """No control group, no mount, no process."""
    # Others on this machine may be trying the same.
    mark = secrets.token_hex(6)
    monkeypatch.setattr(secrets, "token_hex", lambda _bytes: mark)

    def look() -> list[str]:
        groups = [folder for folder, _folders, _files in os.walk("/sys/fs/cgroup") if mark in folder]
        mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if mark in line]
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
        return [*groups, *mounts, children]

    before = look()
    probe()
    assert look() == before


@pytest.mark.needs_root
def test_without_root_it_says_so() -> None:
    """As another user: the launcher and the limits are lacking, and the mend is to become root."""
    # Over standard input: the checkout may be in a folder that only root can enter.
    program = (
        "import sys; sys.argv = ['x', 'sandgate-probe-test', '1'];"
        "exec(compile(sys.stdin.read(), 'probe', 'exec'), {'__name__': '__main__'})"
    )
    done = subprocess.run(
        ["/usr/bin/env", "-i", find_python(), "-I", "-S", "-c", program],
        input=SCRIPT.read_text(),
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
        user=65534,
        group=65534,
        extra_groups=[],
    )
    findings = {name: finding for line in done.stdout.encode().splitlines() for name, finding in [parse(line)]}
    assert findings["seccomp"][0]
    assert not findings["cgroup_memory"][0]
    assert "host_ids" not in findings


def find_python() -> str:
    """An interpreter that every user may run."""
    system = Path("/usr/bin/python3")
    if not system.exists():
        pytest.skip("no interpreter that another user may run")
    return str(system)


def parse(line: bytes) -> tuple[str, tuple[bool, str]]:
    """A finding, which has to be one."""
    finding = probing._parse(line)
    assert finding is not None
    return finding


@pytest.mark.needs_root_namespaces
def test_walls_that_are_forbidden_are_found_lacking() -> None:
    """Root without capabilities, as in a plain container: the first missing wall is named, the rest not reached."""
    drop_all = "import ctypes\nfor c in range(64): ctypes.CDLL(None).prctl(24, c, 0, 0, 0)\n"
    program = (
        drop_all + f"import os, sys\nos.execv(sys.executable, [sys.executable, '-I', '-S', {str(SCRIPT)!r}, 'x', '1'])"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, check=True)
    findings = dict(map(parse, done.stdout.splitlines()))
    assert findings["root_namespaces"] == (False, "unshare: Operation not permitted")
    assert "user_namespaces" not in findings


def test_what_was_not_reached_is_lacking(script: Path) -> None:
    """A program that says one thing, then nonsense, and dies."""
    script.write_text(
        "import os\n"
        'print(\'{"ability": "landlock", "ok": true, "found": "Landlock ABI 7"}\')\n'
        "print('nonsense'); print('[]'); print('{}'); print('null', flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    abilities = by_name(probe())
    assert abilities["landlock"].ok
    assert not abilities["overlayfs"].ok
    assert "could not be tried" in abilities["overlayfs"].found


def test_a_step_that_hangs_is_ended(script: Path, tmp_path: Path) -> None:
    """What came before counts, and what it started is killed with it."""
    script.write_text(
        "import os, sys, time\n"
        'print(\'{"ability": "seccomp", "ok": true, "found": "filters"}\', flush=True)\n'
        "pid = os.fork()\n"
        f"pid and open({str(tmp_path / 'pid')!r}, 'w').write(str(pid))\n"
        "time.sleep(1000)\n"
    )
    machine = probe(deadline_s=6.0)
    assert by_name(machine)["seccomp"].ok
    assert not machine.can_hold_standard
    child = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 30
    while _runs(child):
        # It was sent its signal; when it is scheduled to die is the kernel's affair.
        assert time.monotonic() < deadline


def _runs(pid: int) -> bool:
    try:
        return not Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith(("Z", "X"))
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_program_that_cannot_be_started_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then everything that it would have tried is lacking."""
    monkeypatch.setattr(sys, "executable", "/no/such/program")
    assert not probe().can_hold_standard


def machine_lacking(*names: str) -> Machine:
    """A machine that has everything else."""
    return Machine(
        tuple(
            Ability(name, name not in names, "found", "something", wanted.required_by, "mend it")
            for name, wanted in probing._TRIED.items()
        )
    )


@pytest.mark.parametrize(
    ("lacking", "standard", "process"),
    [
        ((), True, True),
        (("landlock", "cgroup_freezer"), True, True),
        (("overlayfs",), False, True),
        (("cgroup_pids",), False, True),
        (("user_namespaces", "namespaces"), False, True),
        (("seccomp",), False, True),
        (("libseccomp",), False, True),
    ],
)
def test_classes_need_what_they_need(lacking: tuple[str, ...], standard: bool, process: bool) -> None:
    """What is only better to have keeps no class from being held."""
    machine = machine_lacking(*lacking)
    assert (machine.can_hold_standard, machine.can_hold_process) == (standard, process)
    required = [name for name in lacking if name not in ("landlock", "cgroup_freezer")]
    assert list(machine.missing_for(Isolation.STANDARD)) == required
    assert all(f"{name}: found (mend it)" in str(machine) for name in required)


@pytest.mark.parametrize(
    ("path", "value", "command"),
    [
        ("user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=65536"),
        ("kernel/unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
        (
            "kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        ("none", "", "--privileged"),
    ],
)
def test_the_mend_names_the_setting_that_forbids(
    monkeypatch: pytest.MonkeyPatch, path: str, value: str, command: str
) -> None:
    """Instead of a guess, the command for what was found."""
    monkeypatch.setattr(probing, "_read", lambda read: value if str(read) == f"/proc/sys/{path}" else "")
    assert command in probing._find_mend("user_namespaces", probing._TRIED["user_namespaces"])


@pytest.mark.parametrize(
    ("name", "is_root", "mend"),
    [
        ("host_ids", False, "run as root"),
        ("cgroup_freezer", False, "run as root"),
        ("cgroup_memory", True, "--privileged"),
        ("libseccomp", False, "apt-get install libseccomp2"),
        ("overlayfs", False, "modprobe overlay"),
    ],
)
def test_the_mend_is_to_be_root_where_only_root_may(
    monkeypatch: pytest.MonkeyPatch, name: str, is_root: bool, mend: str
) -> None:
    """And something else where root lacks it too."""
    monkeypatch.setattr(os, "geteuid", lambda: 0 if is_root else 1000)
    assert mend in probing._find_mend(name, probing._TRIED[name])


def test_signals_of_the_caller_are_untouched() -> None:
    """The server probes at its start, and its own handlers stay."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)}
    probe()
    assert before == {number: signal.getsignal(number) for number in before}
    assert ctypes.CDLL(None).prctl(21, 0, 0, 0, 0) == 0  # PR_GET_SECCOMP: no filter was installed here.
