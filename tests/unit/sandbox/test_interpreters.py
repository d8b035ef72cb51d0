"""Interpreters: looked for in order, believed only after they were run."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sandgate.sandbox import interpreters
from sandgate.sandbox.interpreters import find_interpreters

MINOR = f"{sys.version_info[0]}.{sys.version_info[1]}"


@pytest.fixture(autouse=True)
def _nothing_but_what_the_test_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No interpreter of the machine's is found, nothing is remembered from another test, and there is time enough."""
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    monkeypatch.setenv("UV_PYTHON_INSTALL_DIR", str(tmp_path / "uv"))
    monkeypatch.setattr(interpreters, "_known", {})
    monkeypatch.setattr(interpreters, "_SYSTEM_FOLDERS", ())
    monkeypatch.setattr(interpreters, "_DEADLINE_S", 60.0)


def place(path: Path, version: str, *, says: str | None = None, script: str | None = None) -> Path:
    """An executable that answers as an interpreter of this version would, unless it is told what to answer or do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    numbers = version.replace(".", ", ")
    prefix = path.parent.parent
    answer = (
        f'{{"version": [{numbers}], "prefix": "{prefix}", "flags": "", "name": "cpython", "executable": "{path}"}}'
        if says is None
        else says
    )
    path.write_text(script or f"#!/bin/sh\necho '{answer}'\n")
    path.chmod(0o755)
    return path


def found(*folders: Path) -> dict[str, str]:
    """Full versions and places by minor version."""
    return {name: f"{each.full_version} {each.place.split()[0]}" for name, each in find_interpreters(folders).items()}


def test_each_place_is_looked_at(tmp_path: Path) -> None:
    """The settings' folders in their three forms, uv's and pyenv's."""
    place(tmp_path / "prefix" / "bin" / "python3.8", "3.8.1")
    place(tmp_path / "bin" / "python3.9", "3.9.1")
    place(tmp_path / "prefixes" / "any" / "bin" / "python3.10", "3.10.1")
    place(tmp_path / "uv" / "cpython-3.11.1-linux-x86_64-gnu" / "bin" / "python3.11", "3.11.1")
    place(tmp_path / "pyenv" / "versions" / "3.12.1" / "bin" / "python3.12", "3.12.1")
    assert found(tmp_path / "prefix", tmp_path / "bin", tmp_path / "prefixes") == {
        "3.8": "3.8.1 interpreters",
        "3.9": "3.9.1 interpreters",
        "3.10": "3.10.1 interpreters",
        "3.11": "3.11.1 uv",
        "3.12": "3.12.1 pyenv",
    }


def test_the_system_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its folders hold executables, the first one wins."""
    place(tmp_path / "local" / "bin" / "python3.9", "3.9.2")
    place(tmp_path / "usr" / "bin" / "python3.9", "3.9.1")
    folders = (str(tmp_path / "local" / "bin"), str(tmp_path / "usr" / "bin"))
    monkeypatch.setattr(interpreters, "_SYSTEM_FOLDERS", folders)
    assert found() == {"3.9": "3.9.2 system"}
    place(tmp_path / "pyenv" / "versions" / "3.9.1" / "bin" / "python3.9", "3.9.1")
    assert found() == {"3.9": "3.9.1 pyenv"}


def test_the_order_of_places_goes_before_the_version(tmp_path: Path) -> None:
    """What the administrator names wins over what is newer elsewhere."""
    place(tmp_path / "named" / "bin" / "python3.9", "3.9.1")
    place(tmp_path / "uv" / "cpython-3.9.30" / "bin" / "python3.9", "3.9.30")
    assert found(tmp_path / "named") == {"3.9": "3.9.1 interpreters"}
    assert found() == {"3.9": "3.9.30 uv"}


def test_the_newest_patch_wins_within_a_place(tmp_path: Path) -> None:
    """By number, not by letter."""
    for patch in (2, 10, 9):
        place(tmp_path / "pyenv" / "versions" / f"3.9.{patch}" / "bin" / "python3.9", f"3.9.{patch}")
    assert found() == {"3.9": "3.9.10 pyenv"}


def test_shims_are_not_interpreters(tmp_path: Path) -> None:
    """pyenv's shims are not looked at."""
    place(tmp_path / "pyenv" / "shims" / "python3.9", "3.9.1")
    assert found() == {}


ANSWER = (
    '{{"version": [{version}], "prefix": "{prefix}", "flags": "{flags}", "name": "{name}", "executable": "{path}"}}'
)


@pytest.mark.parametrize(
    "changes",
    [
        {"version": "3, 10, 0"},
        {"name": "pypy"},
        {"flags": "t"},
        {"flags": "d"},
        {"path": "/elsewhere/python3.9"},
        {"prefix": "/"},
        {"version": '"x"'},
    ],
)
def test_what_it_says_is_checked(tmp_path: Path, changes: dict[str, str]) -> None:
    """Another version, another implementation, another build, an executable outside of its prefix."""
    path = tmp_path / "versions" / "3.9.1" / "bin" / "python3.9"
    fields = {
        "version": "3, 9, 1", "prefix": str(path.parent.parent), "flags": "", "name": "cpython", "path": str(path),
    }  # fmt: skip
    place(path, "3.9.1", says=ANSWER.format(**fields))
    assert found(tmp_path / "versions")
    place(path, "3.9.1", says=ANSWER.format(**{**fields, **changes}))
    assert found(tmp_path / "versions") == {}


@pytest.mark.parametrize(
    "script",
    [
        "#!/bin/sh\nexit 1\n",
        "#!/bin/sh\necho no interpreter\n",
        "#!/no/such/program\n",
        "not a program at all",
        "#!/bin/sh\necho '[]'\n",
        "#!/bin/sh\necho '{}'\n",
        "#!/bin/sh\nkill -9 $$\n",
        "#!/bin/sh\nexec yes\n",
    ],
)
def test_the_next_one_takes_the_place_of_a_broken_one(tmp_path: Path, script: str) -> None:
    """Broken, endless, none at all: the next best is tried."""
    place(tmp_path / "pyenv" / "versions" / "3.9.9" / "bin" / "python3.9", "3.9.9", script=script)
    place(tmp_path / "pyenv" / "versions" / "3.9.1" / "bin" / "python3.9", "3.9.1")
    assert found() == {"3.9": "3.9.1 pyenv"}


def _runs(pid: int) -> bool:
    try:
        return not Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith(("Z", "X"))
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_one_that_hangs_holds_nobody_up_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are found all the same, it is killed with what it started, and is tried again the next time."""
    monkeypatch.setattr(interpreters, "_DEADLINE_S", 4.0)
    slow = tmp_path / "pyenv" / "versions" / "3.9.1" / "bin" / "python3.9"
    place(slow, "3.9.1", script="#!/bin/sh\nsleep 1000 &\necho $! > $0.pid\nwait\n")
    place(tmp_path / "pyenv" / "versions" / "3.8.1" / "bin" / "python3.8", "3.8.1")
    began = time.monotonic()
    assert found() == {"3.8": "3.8.1 pyenv"}
    assert time.monotonic() - began < 60
    sleeper = int(Path(f"{slow}.pid").read_text())
    deadline = time.monotonic() + 30
    while _runs(sleeper):
        # It was sent its signal; when it is scheduled to die is the kernel's affair.
        assert time.monotonic() < deadline
    place(slow, "3.9.1")
    monkeypatch.setattr(interpreters, "_DEADLINE_S", 60.0)
    assert found() == {"3.8": "3.8.1 pyenv", "3.9": "3.9.1 pyenv"}


@pytest.mark.parametrize("kind", ["folder", "plain", "writable", "dangling"])
def test_only_executables_that_nobody_else_writes_are_run(tmp_path: Path, kind: str) -> None:
    """Root runs them: a file that everybody may change is not one to run."""
    path = tmp_path / "pyenv" / "versions" / "3.9.1" / "bin" / "python3.9"
    path.parent.mkdir(parents=True)
    if kind == "folder":
        path.mkdir()
    elif kind == "dangling":
        path.symlink_to("nowhere")
    else:
        place(path, "3.9.1", script=f"#!/bin/sh\ntouch {tmp_path}/was-run\n")
        path.chmod(0o757 if kind == "writable" else 0o644)
    assert found() == {}
    assert not (tmp_path / "was-run").exists()


def test_a_file_is_run_once(tmp_path: Path) -> None:
    """What is known is remembered until the file changes."""
    path = tmp_path / "pyenv" / "versions" / "3.9.1" / "bin" / "python3.9"
    place(path, "3.9.1")
    assert found() == found() == {"3.9": "3.9.1 pyenv"}
    runs = len(interpreters._known)
    place(path, "3.9.12")
    assert found() == {"3.9": "3.9.12 pyenv"}
    assert len(interpreters._known) == runs + 1


def test_links_are_followed(tmp_path: Path) -> None:
    """Sandboxes see the prefix at its own place, so the executable is named without links."""
    path = place(tmp_path / "pyenv" / "versions" / "3.9.1" / "bin" / "python3.9", "3.9.1")
    (tmp_path / "pyenv" / "versions" / "latest").symlink_to("3.9.1")
    interpreter = find_interpreters()["3.9"]
    assert (interpreter.executable, interpreter.prefix) == (str(path), str(path.parent.parent))


def test_a_virtual_environment_leads_to_its_base(tmp_path: Path) -> None:
    """A real interpreter: of a virtual environment the one that it was made from is taken."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    interpreter = find_interpreters([tmp_path / "venv"])[MINOR]
    assert interpreter.prefix == os.path.realpath(sys.base_prefix)
    assert not interpreter.executable.startswith(str(tmp_path))
    assert interpreter.full_version == ".".join(map(str, sys.version_info[:3]))


def test_missing_folders_are_no_error(tmp_path: Path) -> None:
    """A setting may name what is not there yet."""
    assert find_interpreters([tmp_path / "none", Path("/dev/null")]) == {}
