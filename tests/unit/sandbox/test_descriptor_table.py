"""The kernel's table of a process's descriptors is long before there are threads."""

import subprocess
import sys

# What the kernel has room for, and what is open, before and after; with what limit, told by the caller.
_CODE = """
import os, resource, sys
from sandgate.sandbox import descriptors
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
def look():
    lines = open("/proc/self/status").read().splitlines()
    size = next(int(line.split()[1]) for line in lines if line.startswith("FDSize:"))
    return size, len(os.listdir("/proc/self/fd"))
before = look()
descriptors.expect_many()
after = look()
print(before[0] >= limit, after[0] >= min(limit, 16_384), after[0] < 2 * max(before[0], 16_384), before[1] == after[1])
"""


def _ask(limit: int) -> str:
    return subprocess.run(
        [sys.executable, "-c", _CODE, str(limit)], capture_output=True, text=True, check=True, timeout=60
    ).stdout.strip()


def test_it_is_made_long_at_once() -> None:
    """And nothing more is open than before."""
    assert _ask(20_000) == "False True True True"


def test_it_is_no_longer_than_may_be() -> None:
    """A process that may have few descriptors is left as it is."""
    assert _ask(1024).split()[1:] == ["True", "True", "True"]
    assert _ask(8).split()[3] == "True"
