"""Makes a small volume, mounts it as a sandbox would have it, and takes it away again; as a process of its own.

``python -m sandgate.sandbox.volume_trial FOLDER``, as root, says nothing when that works, and what does not otherwise.
"""

import os
import sys
from pathlib import Path

from sandgate.sandbox.launcher import mounts, processes
from sandgate.sandbox.launcher.images import Shelf
from sandgate_agent import system

_VOLUME = "vol-000000000000trial"
_SIZE_BYTES = 16 * 1024 * 1024


def _try_owner(mount: int, host_id: int) -> None:
    """Whether its files can be shown to another user as that one's own. Raises ``OSError``."""
    waits, ends = os.pipe()
    pid = system.clone(system.CLONE_NEWUSER)
    if pid == 0:
        os.close(ends)
        os.read(waits, 1)
        os._exit(0)
    os.close(waits)
    try:
        processes.map_ids(pid, {0: host_id, 1000: host_id + 1})
        namespace = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        try:
            mounts.confine(mount, read_only=False, user_namespace=namespace)
        finally:
            os.close(namespace)
    finally:
        os.close(ends)
        os.waitpid(pid, 0)


def main(folder: Path, host_id: int) -> str:
    """What does not work; empty when everything does."""
    shelf = Shelf(folder)
    try:
        shelf.make(_VOLUME, _SIZE_BYTES)
    except OSError as error:
        return f"no volume can be made: {error.strerror}"
    try:
        mount = shelf.mount(_VOLUME, _SIZE_BYTES)
        try:
            _try_owner(mount, host_id)
        finally:
            os.close(mount)
    except OSError as error:
        return f"none can be given to a user inside: {error.strerror}"
    finally:
        shelf.remove(_VOLUME)
    return ""


if __name__ == "__main__":
    sys.stdout.write(main(Path(sys.argv[1]), int(sys.argv[2])))
