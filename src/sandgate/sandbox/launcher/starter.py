"""Starts the launcher, or finds the one that an earlier server left running."""

import os
import select
import subprocess
import sys
import time
from pathlib import Path

from sandgate.core.errors import MechanismFault
from sandgate.sandbox import apparmor
from sandgate.sandbox.launcher import protocol
from sandgate.sandbox.launcher.address import connect
from sandgate.sandbox.launcher.config import LauncherConfig

_START_LIMIT_S = 15.0
_LOG_KEPT_BYTES = 4 * 1024 * 1024


def is_running(config: LauncherConfig) -> bool:
    """Whether a launcher listens."""
    try:
        connect(config.socket_path).close()
    except OSError:
        return False
    return True


def _open_log(path: Path) -> int:
    """The launcher's log; started anew when it has grown large."""
    if path.exists() and path.stat().st_size > _LOG_KEPT_BYTES:
        path.replace(path.with_suffix(".log.old"))
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


def start(config: LauncherConfig, log_path: Path, user_id: int | None = None) -> subprocess.Popen[str]:
    """Start a launcher and wait until it listens. Raises ``MechanismFault`` with its last words.

    It is in a session of its own and holds nothing of the caller's, so that it outlives it; ``user_id`` is whom a
    launcher of plain processes runs as when the caller is root.
    """
    if config.standard and apparmor.is_restricted():
        apparmor.load()
    log = _open_log(log_path)
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "sandgate.sandbox.launcher.main"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd="/",
            env={"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LANG": "C.UTF-8"},
            start_new_session=True,
            user=user_id,
            group=user_id,
            extra_groups=[] if user_id is not None else None,
        )
    finally:
        os.close(log)
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("subprocess gave no pipes")
    process.stdin.write(config.to_json())
    process.stdin.close()
    readable, _, _ = select.select([process.stdout], [], [], _START_LIMIT_S)
    word = process.stdout.readline() if readable else ""
    process.stdout.close()
    if word != "ready\n":
        process.kill()
        process.wait()
        raise MechanismFault(f"The launcher could not be started: {_last_line(log_path)}")
    return process


def _last_line(log_path: Path) -> str:
    lines = log_path.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def shut_down(config: LauncherConfig, limit_s: float) -> bool:
    """End a launcher with all that it has made, whoever started it; False when one still listens after the limit."""
    try:
        with connect(config.socket_path) as connection:
            connection.send(protocol.pack({"verb": "shutdown", "number": 0}))
            return wait_until_gone(config, limit_s)
    except OSError:
        return True


def wait_until_gone(config: LauncherConfig, limit_s: float) -> bool:
    """Wait until no launcher listens any more; False when one still does."""
    deadline = time.monotonic() + limit_s
    while is_running(config):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
