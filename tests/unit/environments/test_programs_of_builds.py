"""Programs that builds bring along, and root file systems in which they do not start."""

import subprocess
import sys
from pathlib import Path

import pytest

from sandgate.environments.builds.inside import CAN_RUN


def _can_run(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", CAN_RUN.format(program=program)], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip()


@pytest.mark.parametrize(("content", "is_run"), [("#!/bin/sh\nexit 0\n", "True"), ("#!/bin/sh\nexit 3\n", "False")])
def test_a_program_says_that_it_runs(tmp_path: Path, content: str, is_run: str) -> None:
    """By its exit code."""
    program = tmp_path / "program"
    program.write_text(content)
    program.chmod(0o755)
    assert _can_run(str(program)) == is_run


def test_a_program_whose_loader_is_missing_does_not_run(tmp_path: Path) -> None:
    """As that of one for glibc where there is musl; the kernel says the same of a script's."""
    program = tmp_path / "program"
    program.write_text("#!/there/is/none\n")
    program.chmod(0o755)
    assert _can_run(str(program)) == "False"
