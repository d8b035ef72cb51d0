"""Run the whole suite as two runs of pytest at the same time: ``python -m tests.side_by_side [arguments of pytest]``.

Tests of the real runtime wait most of the time, and one after the other they would take too long. What the two leave
behind is looked for here, since neither can tell what is the other's.
"""

import os
import signal
import subprocess
import sys
import tempfile
from typing import IO

from tests.leaks import LeftBehind, nothing_is_left_behind

# Two parts that take about as long as each other.
_MOVED = "tests/e2e/test_fuzz.py"
FIRST = ("tests/e2e", "tests/runtime", f"--ignore={_MOVED}")
SECOND = (_MOVED, "tests/unit", "tests/repository", "tests/contract", "tests/crash", "tests/security")
# Tells a run of pytest that it is one of two.
SIDE_BY_SIDE = "SIDE_BY_SIDE_TESTS"


def _start(folders: tuple[str, ...], output: IO[bytes] | None = None) -> subprocess.Popen[bytes]:
    # What pytest remembers about failures would be written by both.
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *sys.argv[1:], *folders]
    environment = {**os.environ, SIDE_BY_SIDE: "1"}
    return subprocess.Popen(command, stdout=output, stderr=output and subprocess.STDOUT, env=environment)


def _run_both() -> int:
    """The status of the one that failed, 0 when none did; the second is shown when it is over."""
    with tempfile.TemporaryFile() as output:
        runs = [_start(FIRST), _start(SECOND, output)]
        try:
            return max([run.wait() for run in runs], key=abs)
        finally:
            for run in runs:
                # Not the end that SIGTERM would be: what the tests have started has to be taken down.
                run.send_signal(signal.SIGINT)
            # Whoever ends this one because it takes too long may not wait for that.
            shown = _show(output, 0)
            for run in runs:
                run.wait()
            _show(output, shown)


def _show(output: IO[bytes], start: int) -> int:
    """Print what has been written since; where to go on."""
    text = os.pread(output.fileno(), os.fstat(output.fileno()).st_size - start, start)
    sys.stdout.flush()
    sys.stdout.buffer.write(text)
    sys.stdout.flush()
    return start + len(text)


def _end(_number: int, _frame: object) -> None:
    raise SystemExit(130)


def main() -> int:
    """Run both and look for what is left; returns the status to exit with."""
    signal.signal(signal.SIGTERM, _end)
    # What a shell starts in the background ignores it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    status = 1
    try:
        with nothing_is_left_behind():
            status = _run_both()
    except LeftBehind as left:
        sys.stderr.write(f"{left}\n")
        return status or 1
    return status


if __name__ == "__main__":
    sys.exit(main())
