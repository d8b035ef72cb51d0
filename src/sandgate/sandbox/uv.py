"""The program that fetches interpreters and installs packages."""

import shutil
import sys
from pathlib import Path


def find_uv() -> str | None:
    """The program ``uv``: the one that was installed with sandgate, or one on the path."""
    beside = Path(sys.executable).with_name("uv")
    return str(beside) if beside.exists() else shutil.which("uv")
