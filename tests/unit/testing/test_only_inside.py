"""Attacks stop when they see that they are on the host."""

import subprocess
import sys

import pytest

from tests.runtime.only_inside import ONLY_INSIDE
from tests.security.siege import TOOLS


@pytest.mark.parametrize("head", [ONLY_INSIDE, TOOLS])
def test_nothing_is_done_outside(head: str) -> None:
    """Whoever runs one by itself is told so."""
    ran = subprocess.run(
        [sys.executable, "-c", f"{head}\nprint('done')"], capture_output=True, check=False, timeout=120
    )
    assert (ran.returncode, ran.stdout) == (86, b"")
    assert b"this is no sandbox" in ran.stderr
