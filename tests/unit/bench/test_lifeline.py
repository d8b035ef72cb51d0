"""What was started does not outlive a run that is killed."""

import os
import select
import signal
import subprocess
import sys

from bench.lifeline import Lifeline

LIMIT_S = 60
SLEEPER = [sys.executable, "-c", "print('up', flush=True); import time; time.sleep(100)  # sandgate"]
STARTER = f"""
import subprocess, sys
from bench.lifeline import Lifeline
child = subprocess.Popen({SLEEPER!r}, stdout=subprocess.DEVNULL)
line = Lifeline(child.pid)
print(child.pid, flush=True)
sys.stdin.read()
"""


def _ends(pidfd: int) -> bool:
    return bool(select.select([pidfd], [], [], LIMIT_S)[0])


def test_a_kill_ends_what_was_started() -> None:
    """SIGKILL leaves no time to clean up, and still the process that was started is ended."""
    command, pipe = [sys.executable, "-c", STARTER], subprocess.PIPE
    with subprocess.Popen(command, text=True, stdin=pipe, stdout=pipe) as starter:
        assert starter.stdout is not None
        pidfd = os.pidfd_open(int(starter.stdout.readline()))
        starter.kill()
        assert _ends(pidfd)
        os.close(pidfd)


def test_a_line_that_was_cut_ends_nothing() -> None:
    """After an ordinary stop nobody is signalled."""
    with subprocess.Popen(SLEEPER, stdout=subprocess.PIPE) as sleeper:
        assert sleeper.stdout is not None
        assert sleeper.stdout.readline() == b"up\n"
        Lifeline(sleeper.pid).cut()
        sleeper.send_signal(signal.SIGINT)
        assert sleeper.wait(LIMIT_S) == -signal.SIGINT
