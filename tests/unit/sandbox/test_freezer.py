"""Where groups can be frozen, as far as that needs no kernel."""

from pathlib import Path

import pytest

from sandgate.sandbox.launcher.freezer import Freezer, FreezerPlace, find_freezers

MOUNTS = """\
30 25 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu
31 25 0:27 / /sys/fs/cgroup/my\\040freezer rw - cgroup cgroup rw,freezer
32 25 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
33 odd line
"""


def test_version_2_is_preferred() -> None:
    """Because what stands still there can be killed."""
    unified, frozen = (
        FreezerPlace(2, Path("/sys/fs/cgroup/unified")),
        FreezerPlace(1, Path("/sys/fs/cgroup/my freezer")),
    )
    assert find_freezers(MOUNTS) == [unified, frozen]
    assert find_freezers("") == []


def _pids(_part: str) -> set[int]:
    return set()


def test_the_first_place_that_can_be_used(tmp_path: Path) -> None:
    """One without the switch is left as it was; with none there is no frost."""
    old, new = tmp_path / "old", tmp_path / "new"
    for folder in (old, new):
        folder.mkdir()
    (new / "t").mkdir()
    (new / "t" / "freezer.state").write_text("THAWED")
    freezer = Freezer([FreezerPlace(2, tmp_path / "missing"), FreezerPlace(2, old), FreezerPlace(1, new)], "t")
    freezer.make()
    assert freezer.is_there
    assert list(old.iterdir()) == []
    assert freezer.frost("g", _pids) is not None
    assert freezer.names() == set()
    none = Freezer([FreezerPlace(2, old)], "t")
    none.make()
    assert not none.is_there
    assert none.frost("g", _pids) is None
    assert none.remove()


def test_what_cannot_be_gathered_goes_on(tmp_path: Path) -> None:
    """A process that never comes to be inside: everything is let go on, and the caller is told."""
    place = tmp_path / "t"
    place.mkdir()
    (place / "cgroup.freeze").write_text("0")
    group = place / "g"
    group.mkdir()
    for name in ("cgroup.freeze", "cgroup.procs"):
        (group / name).write_text("")
    freezer = Freezer([FreezerPlace(2, tmp_path)], "t")
    freezer.make()
    # What is written stays in this file, which is no control group: another process takes the first one's place.
    numbers = iter(range(10**6, 10**7))
    frost = freezer.frost("g", lambda _part: {next(numbers)})
    assert frost is not None
    with pytest.raises(OSError, match="gathered"):
        frost.freeze()
    assert (group / "cgroup.freeze").read_text() == "0"
