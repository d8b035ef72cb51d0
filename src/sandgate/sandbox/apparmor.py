"""Ubuntu's limit on user namespaces, and the profile that lifts it for zygotes alone.

From 23.10 on, AppArmor there takes all powers from a user namespace that a process without powers makes, unless the
process is under a profile that allows it. Zygotes have none, so that they get such a profile, which allows this and
forbids nothing. Source: AppArmor wiki, "unprivileged_userns_restriction".
"""

import os
import subprocess
from pathlib import Path

from sandgate.core.errors import MechanismFault

PROFILE = "sandgate-zygote"
_SWITCH = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
_PARSER = "apparmor_parser"
_LIMIT_S = 10.0


def is_restricted(switch: Path = _SWITCH) -> bool:
    """Whether this kernel limits user namespaces so."""
    try:
        return switch.read_text().strip() == "1"
    except OSError:
        return False


def load(name: str = PROFILE) -> None:
    """Make a profile of this name known to the kernel until the next boot. Raises ``MechanismFault``."""
    _parse("--replace", name)


def unload(name: str) -> None:
    """Forget the profile. Raises ``MechanismFault``."""
    _parse("--remove", name)


def _parse(action: str, name: str) -> None:
    text = f"abi <abi/4.0>,\nprofile {name} flags=(unconfined) {{\n  userns,\n}}\n"
    path = os.pathsep.join((os.environ.get("PATH", "/usr/bin:/bin"), "/usr/sbin", "/sbin"))
    try:
        subprocess.run(  # noqa: S603 - a program of the system, with arguments of our own
            [_PARSER, action, "--quiet"],
            input=text,
            env={"PATH": path},
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        said = error.stderr if isinstance(error, subprocess.CalledProcessError) else error
        raise MechanismFault(
            f"AppArmor limits user namespaces here, and a profile that allows them could not be loaded: {said}"
        ) from error


def enter_at_exec() -> None:
    """Let the program that this process becomes next be under the profile. Raises ``OSError``."""
    descriptor = os.open("/proc/thread-self/attr/apparmor/exec", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, f"exec {PROFILE}".encode())
    finally:
        os.close(descriptor)
