"""What the launcher says before it serves."""

import subprocess
import sys
from pathlib import Path

import pytest

from sandgate.sandbox.launcher.config import LauncherConfig

# A number that no kernel has a call for; and what would serve is not there.
_WITHOUT = """
import sys
from sandgate.core.errors import MechanismFault
from sandgate.sandbox.launcher import main
from sandgate_agent import landlock

def refuse(self):
    raise MechanismFault("no more of this")

main.Launcher.open = refuse
if sys.argv[1] == "lacking":
    landlock._CREATE_RULESET = 9999
sys.exit(main.main())
"""


@pytest.mark.parametrize(("standard", "kernel", "said"), [(False, "lacking", True), (True, "lacking", False)])
def test_that_nothing_keeps_files_from_code_is_said(tmp_path: Path, standard: bool, kernel: str, said: bool) -> None:
    """In the class that has no other walls; once, with the reason."""
    config = LauncherConfig(tmp_path, "t", 1, 2, 3, standard, ())
    arguments = [sys.executable, "-c", _WITHOUT, kernel]
    ended = subprocess.run(arguments, input=config.to_json(), capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr.count("this kernel has no Landlock") == int(said)
