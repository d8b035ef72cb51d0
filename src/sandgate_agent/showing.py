"""Volumes as slots of a container of gVisor's see them: mounts of process 1's in the root of each.

Code of the user's may have laid links and moved folders on the way to where one has to be, and process 1 has powers
that code has not. So nothing is mounted at a path: the way is gone step by step, following no link and entering no
other mount, and what is mounted upon is the folder that was found.
"""

import errno
import os
from typing import List, Tuple

from sandgate_agent import system

# Where the launcher attaches them, each at a number; of those for reading nothing can be changed.
_PLACES, _PLACES_TO_READ = "/sandgate/volumes", "/sandgate/volumes-to-read"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Volumes:
    """Those of a sandbox."""

    def __init__(self) -> None:
        self._shown: List[Tuple[int, bool, str]] = []

    def add(self, number: int, read_only: bool, path: str, roots: List[str]) -> None:
        """Show one in these roots, and in all that come. Raises ``OSError``."""
        for root in roots:
            _show(root, number, read_only, path)
        self._shown.append((number, read_only, path))

    def show(self, root: str) -> None:
        """Show a new root what the others have. Raises ``OSError``."""
        for each in self._shown:
            _show(root, *each)


def _show(root: str, number: int, read_only: bool, path: str) -> None:
    folder = _open_way(root, path)
    try:
        if os.listdir(folder):
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))
        # The folder itself, wherever it may have been moved to meanwhile.
        os.fchdir(folder)
        place = "{}/{}".format(_PLACES_TO_READ if read_only else _PLACES, number)
        system.mount(place, ".", "", system.MS_BIND)
    finally:
        os.chdir("/")
        os.close(folder)


def _open_way(root: str, path: str) -> int:
    """The folder at a path of a root, made with all above it where it is missing. Raises ``OSError``."""
    folder = os.open(root, _FOLDER)
    device = os.fstat(folder).st_dev
    for name in path.strip("/").split("/"):
        above = folder
        try:
            system.make_folder(name, above)
            folder = os.open(name, _FOLDER, dir_fd=above)
        finally:
            os.close(above)
        if os.fstat(folder).st_dev != device:
            os.close(folder)
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
    return folder
