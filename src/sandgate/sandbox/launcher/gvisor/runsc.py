"""The ``runsc`` of this machine: where it is, how old it is, which platforms it has."""

import re
import shutil
import subprocess
from dataclasses import dataclass
from datetime import date
from pathlib import Path

# To say its version, on a machine that is busy with other things, too.
_DEADLINE_S = 15.0
# By preference. KVM is not among them: it hangs on some virtual machines, and needs the host's /dev/kvm.
PREFERRED = ("systrap", "ptrace")
AUTOMATIC = "auto"
PLATFORMS = ("systrap", "ptrace", "kvm")
_RELEASE = re.compile(r"release-(\d{4})(\d\d)(\d\d)|0\.0~(\d{4})(\d\d)(\d\d)|\b(20\d\d)(\d\d)(\d\d)\b")


@dataclass(frozen=True, slots=True)
class Runsc:
    """``released`` is None where the version does not tell; ``platform`` is the one to use, empty where it has none."""

    path: str
    version: str
    released: date | None
    platforms: tuple[str, ...]
    platform: str


def find_runsc(path: str = "", platform: str = AUTOMATIC) -> Runsc | None:
    """The ``runsc`` at ``path``, or on the path of programs when that is empty; None when it cannot be run."""
    found = path or shutil.which("runsc", path="/usr/local/bin:/usr/bin:/usr/local/sbin:/usr/sbin")
    version = _ask(found, "--version") if found else ""
    if not found or not version.startswith("runsc version"):
        return None
    platforms = tuple(word for word in _ask(found, "help", "platforms").split() if word in PLATFORMS)
    shown = version.splitlines()[0].removeprefix("runsc version").strip()
    chosen = next((name for name in (PREFERRED if platform == AUTOMATIC else (platform,)) if name in platforms), "")
    return Runsc(str(Path(found).resolve()), shown, _parse_release(shown), platforms, chosen)


def _parse_release(version: str) -> date | None:
    match = _RELEASE.search(version)
    if match is None:
        return None
    year, month, day = (int(part) for part in match.groups() if part)
    try:
        return date(year, month, day)
    except ValueError:
        return None


def _ask(path: str, *arguments: str) -> str:
    """What it prints; nothing when it cannot be run or takes too long."""
    try:
        ran = subprocess.run(  # noqa: S603 - the program that the administrator has installed
            [path, *arguments], stdin=subprocess.DEVNULL, capture_output=True, timeout=_DEADLINE_S, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return ran.stdout.decode(errors="replace")


def arguments(platform: str, bundle: str, state: str) -> list[str]:
    """The command line that runs the bundle to its end, in namespaces that were made for it.

    Its own control groups and network are not used: the launcher has made both.
    """
    return [
        "runsc",
        f"--root={state}",
        f"--platform={platform}",
        "--network=none",
        "--ignore-cgroups",
        "run",
        f"--bundle={bundle}",
        "sandbox",
    ]
