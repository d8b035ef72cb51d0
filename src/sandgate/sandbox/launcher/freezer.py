"""Keeps all processes of a group from the processor until they are let go on.

Version 2 of control groups is preferred wherever it is mounted, with controllers or without: what stands still there
can be killed. On version 1 it has to be let go on to die. Source: cgroup-v2, "cgroup.freeze"; cgroup-v1,
"freezer-subsystem".
"""

import errno
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sandgate.sandbox.launcher.hierarchies import folders_in, remove_folder, unescape, write_file

# Each round moves what the last one has not seen because it was forked meanwhile; what was moved forks no more.
_MOST_ROUNDS = 1000
_GATHER_LIMIT_S = 2.0
# The part of all that is in no other.
_STILL = "still"


@dataclass(frozen=True, slots=True)
class FreezerPlace:
    """Where groups can be frozen, perhaps."""

    version: int
    mount: Path


def find_freezers(mountinfo: str) -> list[FreezerPlace]:
    """The places to try, best first, from the text of ``/proc/self/mountinfo``."""
    found = []
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        kind, _source, options = [*right.split(" "), "", "", ""][:3]
        version = 2 if kind == "cgroup2" else 1 if kind == "cgroup" and "freezer" in options.split(",") else 0
        if version and left.count(" ") >= 4:
            mount = unescape(left.split(" ")[4])
            found.append(FreezerPlace(version, Path(mount)))
    return sorted(found, key=lambda place: -place.version)


class Frost:
    """One group's folder in the freezer, which is made when it is needed.

    ``pids(part)`` is what the group holds, or a part of it. ``is_shared`` when the folder is the group's own, with
    parts in it that are frozen along.
    """

    def __init__(self, version: int, folder: Path, pids: Callable[[str], set[int]], *, is_shared: bool = False) -> None:
        self._version = version
        self._folder = folder
        self._pids = pids
        self._is_shared = is_shared
        self._targets = [folder]

    def freeze(self, but: str | None = None) -> None:
        """Order all of the group to stand still; what sleeps in the kernel does so before it runs on.

        ``but`` a part of it, which goes on; none of it has been frozen before. Raises ``OSError``, and then nothing
        stands still.
        """
        if but is not None and not self._pids(but):
            raise OSError(errno.ENOTSUP, "the part that is to go on cannot be told from the rest")
        self._folder.mkdir(exist_ok=True)
        self._targets = [self._folder]
        if but is not None and self._is_shared:
            # What is frozen as a whole has no part that goes on: each other part is, and one for all that is in none.
            still = self._folder / _STILL
            still.mkdir(exist_ok=True)
            self._targets = [still, *(part for part in folders_in(self._folder) if part.name not in (but, _STILL))]
        try:
            # First, so that what is moved stands still at once and forks no more.
            self._order(frozen=True)
            self._gather(but)
        except OSError:
            self.thaw()
            raise

    def _gather(self, but: str | None) -> None:
        # A process whose first thread has ended while others go on is listed in a group of version 1, and in none of
        # version 2, though it is in both: what was moved is not looked for again.
        moved: set[int] = set()
        until = time.monotonic() + _GATHER_LIMIT_S
        for _round in range(_MOST_ROUNDS):
            outside = self._pids("") - self._inside() - moved - self._gone_on(but)
            if not outside:
                return
            for pid in outside:
                # One that ends meanwhile is none of the group's any more.
                with suppress(ProcessLookupError):
                    write_file(self._targets[0] / "cgroup.procs", str(pid))
            moved |= outside
            if time.monotonic() > until:
                break
        raise OSError(errno.EAGAIN, "its processes cannot be gathered")

    def _inside(self) -> set[int]:
        # The group may have parts, where it is frozen in its own folder.
        files = (file for target in self._targets for file in (target, *folders_in(target)))
        return {int(pid) for file in files for pid in _read(file / "cgroup.procs").split()}

    def _gone_on(self, but: str | None) -> set[int]:
        return set() if but is None else self._pids(but)

    @property
    def is_settled(self) -> bool:
        """Whether every process stands still by now."""
        if self._version == 2:
            there = [each for each in self._targets if each.exists()]
            return all("frozen 1" in _read(each / "cgroup.events").splitlines() for each in there)
        return _read(self._folder / "freezer.state").strip() == "FROZEN"

    def thaw(self) -> None:
        """Let all go on. Raises ``OSError``."""
        self._order(frozen=False)

    def let_die(self) -> None:
        """Let what has been killed die, where it could not while it stands still."""
        if self._version == 1:
            with suppress(OSError):
                self.thaw()

    def remove(self) -> bool:
        """Remove the folder; False when the kernel has not let go of it yet."""
        return remove_folder(self._folder)

    def _order(self, *, frozen: bool) -> None:
        if self._version == 2:
            write_file(self._targets[0] / "cgroup.freeze", "1" if frozen else "0")
            for part in self._targets[1:]:
                # It may have ended meanwhile.
                with suppress(FileNotFoundError):
                    write_file(part / "cgroup.freeze", "1" if frozen else "0")
        else:
            write_file(self._folder / "freezer.state", "FROZEN" if frozen else "THAWED")


class Freezer:
    """This server's folder in the first of the places that can be used; there may be none."""

    def __init__(self, places: Sequence[FreezerPlace], name: str) -> None:
        self._roots = [(place.version, place.mount / name) for place in places]

    def make(self) -> None:
        """Choose the place and make the folder."""
        for version, folder in self._roots:
            if _is_usable(version, folder):
                self._roots = [(version, folder)]
                return
            with suppress(OSError):
                remove_folder(folder)
        self._roots = []

    @property
    def is_there(self) -> bool:
        """Whether groups can be frozen."""
        return bool(self._roots)

    def frost(self, name: str, pids: Callable[[str], set[int]], folders: Collection[Path] = ()) -> Frost | None:
        """The frost of the group of this name, which has these folders elsewhere."""
        for version, folder in self._roots:
            own = folder / name
            return Frost(version, own, pids, is_shared=own in folders)
        return None

    def names(self) -> set[str]:
        """The groups that have been frozen, and are not removed."""
        return {child.name for _version, folder in self._roots for child in folders_in(folder)}

    def remove(self) -> bool:
        """Remove the folder, which must hold no groups any more."""
        removed = [remove_folder(folder) for _version, folder in self._roots]
        return all(removed)


def _is_usable(version: int, folder: Path) -> bool:
    try:
        folder.mkdir(exist_ok=True)
    except OSError:
        # It may be mounted for reading only.
        return False
    # On version 2 since Linux 5.2.
    return (folder / ("cgroup.freeze" if version == 2 else "freezer.state")).exists()


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
