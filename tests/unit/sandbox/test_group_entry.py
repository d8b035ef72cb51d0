"""A process comes into a control group without waiting for the whole machine."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from sandgate.sandbox.launcher.cgroup import Group
from sandgate.sandbox.launcher.entering import has_entered, open_entries
from sandgate.sandbox.launcher.hierarchies import Hierarchy


def test_a_process_enters_a_group_itself(tmp_path: Path) -> None:
    """On version 1 as the one thread that it has, for which the kernel waits for nobody; on version 2 as a process."""
    places = []
    for version in (1, 2):
        folder = tmp_path / str(version)
        folder.mkdir()
        for name in ("cgroup.procs", "tasks")[: 3 - version]:
            (folder / name).write_text("")
        places.append((Hierarchy(version, tmp_path, frozenset()), folder))
    Group(places).enter()
    first, second = (folder for _hierarchy, folder in places)
    assert ((first / "tasks").read_text(), (first / "cgroup.procs").read_text()) == ("0", "")
    assert (second / "cgroup.procs").read_text() == "0"


def _places(tmp_path: Path, versions: Sequence[int], made: int = 9) -> list[tuple[Hierarchy, str]]:
    folders = []
    for number, version in enumerate(versions):
        folder = tmp_path / str(number) / "group"
        folder.mkdir(parents=True)
        if number < made:
            (folder / "tasks").write_text("")
        folders.append((Hierarchy(version, tmp_path / str(number), frozenset({f"c{number}"}), "/root"), str(folder)))
    return folders


def test_who_is_to_enter_is_given_the_files(tmp_path: Path, no_leak: None) -> None:
    """One for each hierarchy, for writing; none at all where the other version would have the machine wait anyhow."""
    entries = open_entries(_places(tmp_path / "one", (1, 1)))
    for entry in entries:
        os.write(entry, b"0")
        os.close(entry)
    assert [(tmp_path / "one" / name / "group/tasks").read_text() for name in "01"] == ["0", "0"]
    assert open_entries(_places(tmp_path / "mixed", (1, 2))) == []
    with pytest.raises(FileNotFoundError):
        open_entries(_places(tmp_path / "torn", (1, 1), made=1))


@pytest.mark.parametrize(
    ("text", "entered"),
    [
        ("2:c1:/root/group\n1:c0:/root/group\n0::/\n", True),
        ("2:x,c1:/root/group\n1:c0,y:/root/group\n", True),
        ("2:c1:/root/group\n1:c0:/root\n", False),
        ("2:c1:/root/group\n1:c0:/root/group/part\n", False),
        ("2:c1:/group\n1:c0:/group\n", False),
        ("2:c1:/root/group\n", False),
        ("nonsense\n", False),
        ("", False),
        (None, False),
    ],
)
def test_it_is_looked_at_whether_it_has_entered(tmp_path: Path, text: str | None, entered: bool) -> None:
    """In every hierarchy, by what the kernel says of the process."""
    if text is not None:
        (tmp_path / "7").write_text(text)
    assert has_entered(_places(tmp_path / "places", (1, 1)), 7, f"{tmp_path}/{{}}") is entered


def test_a_folder_that_is_elsewhere_is_none_to_be_in(tmp_path: Path) -> None:
    """Whoever cannot tell says no, and the process is moved."""
    (tmp_path / "7").write_text("1:c0:/root/group\n")
    places = [(Hierarchy(1, Path("/other"), frozenset({"c0"}), "/root"), str(tmp_path / "group"))]
    assert not has_entered(places, 7, f"{tmp_path}/{{}}")
