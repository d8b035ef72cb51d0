"""Whether this machine can hold volumes, found out by making one."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from sandgate.core.states import Isolation
from sandgate.sandbox.launcher.images import PROGRAMS
from sandgate.sandbox.probe import Ability

_LIMIT_S = 20.0
_PURPOSE = "volumes, and environment_disk=image"
_NEITHER: frozenset[Isolation] = frozenset()


def probe_volumes(host_id: int) -> Ability:
    """Try it, in a folder that is gone afterwards; ``host_id`` is one that sandboxes would use. Never raises."""
    if os.geteuid() != 0:
        return _lacking(f"user {os.geteuid()}", "run as root")
    if shutil.which("mkfs.ext4", path=PROGRAMS) is None:
        return _lacking("mkfs.ext4 was not found", "apt-get install e2fsprogs")
    if not Path("/dev/loop-control").exists():
        return _lacking("no /dev/loop-control", "modprobe loop; in a container: give it the host's loop devices")
    with tempfile.TemporaryDirectory(prefix="sandgate-probe-") as folder:
        said = _try(Path(folder) / "volumes", host_id)
    if said:
        return _lacking(said, "use Linux 5.12 or newer with loop devices and ext4; in a container: run it --privileged")
    return Ability("volumes", True, "ext4 on loop devices", _PURPOSE, _NEITHER, "")


def _lacking(found: str, mend: str) -> Ability:
    return Ability("volumes", False, found, _PURPOSE, _NEITHER, mend)


def _try(folder: Path, host_id: int) -> str:
    command = [sys.executable, "-m", "sandgate.sandbox.volume_trial", str(folder), str(host_id)]
    try:
        ran = subprocess.run(  # noqa: S603 - our own interpreter and module
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_LIMIT_S, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        return f"it could not be tried: {error}"
    return ran.stdout or ("" if ran.returncode == 0 else "it could not be tried")
