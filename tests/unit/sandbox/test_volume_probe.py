"""Whether volumes can be held, found out by trying."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from sandgate.sandbox import volume_probe
from sandgate.sandbox.volume_probe import probe_volumes

_HOST_ID = 1_700_000_000


@pytest.mark.needs_root_namespaces
def test_this_machine_holds_volumes() -> None:
    """Where all tests run, they can be held; nothing is left of the trial."""
    # A folder of these tests' own: elsewhere others may be trying the same.
    folder = tempfile.gettempdir()
    before = set(os.listdir(folder))
    found = probe_volumes(_HOST_ID)
    assert (found.ok, found.found, found.mend) == (True, "ext4 on loop devices", "")
    assert {name for name in set(os.listdir(folder)) - before if name.startswith("sandgate-probe-")} == set()


@pytest.mark.needs_root
def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what brings it."""
    monkeypatch.setattr(shutil, "which", lambda *_arguments, **_named: None)
    found = probe_volumes(_HOST_ID)
    assert (found.ok, found.mend) == (False, "apt-get install e2fsprogs")


@pytest.mark.needs_root
def test_a_trial_that_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its words are told, whatever became of it."""
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nprintf 'no volume can be made: no loop device is free'\n")
    program.chmod(0o755)
    monkeypatch.setattr(volume_probe.sys, "executable", str(program))  # type: ignore[attr-defined]
    found = probe_volumes(_HOST_ID)
    assert (found.ok, found.found) == (False, "no volume can be made: no loop device is free")
    assert "Linux 5.12" in found.mend
    program.write_text("#!/bin/sh\nexit 3\n")
    assert probe_volumes(_HOST_ID).found == "it could not be tried"


@pytest.mark.needs_root
def test_an_ordinary_user_is_told() -> None:
    """To become root."""
    code = (
        "import os; os.setresuid(65534, 65534, 65534);"
        f"from sandgate.sandbox.volume_probe import probe_volumes; print(probe_volumes({_HOST_ID}).mend)"
    )
    code = f"from sandgate.sandbox import volume_probe; {code}"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "run as root\n"
