"""Runs one program under ``runsc``, as a process of its own that leaves nothing behind.

``python gvisor_trial.py RUNSC PLATFORM SECONDS``, as root, ends with 0 when the program ran. Some platforms hang on
some machines, and a sandbox that hangs outlives the command that has started it: so all of it is in a process
namespace, and killed with that.
"""

import os
import signal
import sys
import tempfile
import time

_CLONE_NEWNS, _CLONE_NEWPID, _CLONE_NEWNET = 0x00020000, 0x20000000, 0x40000000
_MS_PRIVATE = 0x4000 | 0x40000
_PAUSE_S = 0.005


def _run(path: str, platform: str, state: str) -> None:
    """As process 1 of the namespaces; never returns."""
    import ctypes

    library = ctypes.CDLL(None)
    library.mount(b"", b"/", b"", _MS_PRIVATE, None)
    library.mount(b"proc", b"/proc", b"proc", 0, None)
    options = [f"--root={state}", f"--platform={platform}", "--network=none", "--ignore-cgroups"]
    os.execve(path, ["runsc", *options, "do", "/bin/true"], {"PATH": "/usr/bin:/bin"})  # noqa: S606 - there is no shell


def _unshare() -> None:
    import ctypes

    if ctypes.CDLL(None).unshare(_CLONE_NEWNS | _CLONE_NEWPID | _CLONE_NEWNET) != 0:
        raise OSError("no namespaces can be made")


def main(path: str, platform: str, limit_s: float) -> int:
    """0 when it ran within the limit."""
    with tempfile.TemporaryDirectory(prefix="sandgate-probe-") as state:
        _unshare()
        pid = os.fork()
        if pid == 0:
            try:
                _run(path, platform, state)
            finally:
                os._exit(1)
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            time.sleep(_PAUSE_S)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
