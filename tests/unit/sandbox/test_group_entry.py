"""A process comes into a control group without waiting for the whole machine."""

from pathlib import Path

from sandgate.sandbox.launcher.cgroup import Group
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
