"""Two runs of pytest at the same time: both are told of, and either one's failure is the whole's."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests import side_by_side

_PASSES = "def test_passes():\n    pass\n"
_FAILS = "def test_fails():\n    assert not 'this fails'\n"


@pytest.mark.parametrize(
    ("first", "second", "status"), [(_PASSES, _PASSES, 0), (_FAILS, _PASSES, 1), (_PASSES, _FAILS, 1)]
)
def test_the_worse_status_is_the_whole_s(tmp_path: Path, first: str, second: str, status: int) -> None:
    """And what both printed is there."""
    for name, text in (("first", first), ("second", second)):
        (tmp_path / f"test_{name}_half.py").write_text(text)
    code = (
        "import contextlib, sys\nfrom tests import side_by_side\n"
        # What others leave meanwhile on this machine is theirs.
        "side_by_side.nothing_is_left_behind = contextlib.nullcontext\n"
        f"side_by_side.FIRST = ('{tmp_path}/test_first_half.py',)\n"
        f"side_by_side.SECOND = ('{tmp_path}/test_second_half.py',)\n"
        "sys.exit(side_by_side.main())\n"
    )
    root = Path(side_by_side.__file__).parent.parent
    command = [sys.executable, "-c", code, "--rootdir", str(tmp_path), "-c", "/dev/null"]
    ended = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert ended.returncode == status, ended.stdout + ended.stderr
    assert "test_first_half.py" in ended.stdout
    assert "test_second_half.py" in ended.stdout


def test_every_test_is_in_one_of_the_two() -> None:
    """A folder that is in neither would never be run."""
    root = Path(side_by_side.__file__).parent.parent
    given = [argument for argument in (*side_by_side.FIRST, *side_by_side.SECOND) if not argument.startswith("--")]
    folders = {f"tests/{file.relative_to(root / 'tests').parts[0]}" for file in (root / "tests").rglob("test_*.py")}
    assert sorted(name for name in given if not name.endswith(".py")) == sorted(folders)
    moved = [name for name in given if name.endswith(".py")]
    assert moved == [
        option.removeprefix("--ignore=") for option in side_by_side.FIRST if option.startswith("--ignore=")
    ]
    assert all((root / name).is_file() for name in moved)
