"""Whether this machine can hold the ``gvisor`` class, beyond what the ``standard`` class needs.

Standard library only.
"""

import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from sandgate.core.states import Isolation
from sandgate.sandbox.launcher.gvisor.runsc import AUTOMATIC, PREFERRED, Runsc, find_runsc
from sandgate.sandbox.probe import Ability

_TRIAL_S = 5.0
# What it may take beside the trial to end what hangs.
_GRACE_S = 5.0
_OLD = timedelta(days=2 * 365)
_GVISOR = frozenset({Isolation.GVISOR})
_NEITHER: frozenset[Isolation] = frozenset()
_NEWER = "as https://gvisor.dev/docs/user_guide/install/ says"
_INSTALL = f"apt-get install runsc, or a newer one {_NEWER}"


def runs(runsc: Runsc, platform: str, limit_s: float = _TRIAL_S) -> bool:
    """Whether a program runs on the platform, in time. As root only; leaves nothing behind."""
    trial = str(Path(__file__).with_name("gvisor_trial.py"))
    try:
        ran = subprocess.run(  # noqa: S603 - our own interpreter and file
            [sys.executable, "-I", "-S", trial, runsc.path, platform, str(limit_s)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=limit_s + _GRACE_S,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return ran.returncode == 0


def probe_gvisor(path: str = "", platform: str = AUTOMATIC, *, limit_s: float = _TRIAL_S) -> Sequence[Ability]:
    """Try it: a second where it works, ``limit_s`` for each platform that hangs. Changes nothing and never raises."""
    runsc = find_runsc(path, platform)
    if runsc is None:
        return (Ability("runsc", False, "not found", "the gvisor class", _GVISOR, _INSTALL),)
    named = f"{runsc.version} at {runsc.path}"
    found = Ability("runsc", True, named, "the gvisor class", _GVISOR, "")
    return found, _try_platforms(runsc, platform, limit_s), _judge_age(runsc, datetime.now(UTC).date())


def _try_platforms(runsc: Runsc, platform: str, limit_s: float) -> Ability:
    wanted = PREFERRED if platform == AUTOMATIC else (platform,)
    there = [name for name in wanted if name in runsc.platforms]
    working = next((name for name in there if runs(runsc, name, limit_s)), None)
    purpose = "running gVisor's kernel"
    if working == runsc.platform and working:
        return Ability("gvisor_platform", True, working, purpose, _GVISOR, "")
    listed = ", ".join(runsc.platforms) or "none"
    if working:
        # A server takes the first without a trial.
        mend = f"set SANDGATE_GVISOR_PLATFORM={working}"
        return Ability("gvisor_platform", False, f"{runsc.platform} runs nothing here", purpose, _GVISOR, mend)
    tried = f"none of {', '.join(there) or 'the wanted'} runs a program within {limit_s:g} s; it has {listed}"
    mend = "run as root, let processes be traced (kernel.yama.ptrace_scope below 3), or set SANDGATE_GVISOR_PLATFORM"
    return Ability("gvisor_platform", False, tried, purpose, _GVISOR, mend)


def _judge_age(runsc: Runsc, today: date) -> Ability:
    """Old ones have faults that are known; what they keep apart is less than what is promised of the newest."""
    purpose = "walls without known holes"
    if runsc.released is None:
        return Ability("runsc_recent", True, "of a version that tells no date", purpose, _NEITHER, "")
    recent = today - runsc.released < _OLD
    found = f"released {runsc.released:%Y-%m-%d}"
    return Ability("runsc_recent", recent, found, purpose, _NEITHER, "" if recent else f"install a newer one, {_NEWER}")
