"""How a server that was started by root comes to a gateway without privileges.

The program itself may be installed where only root can go (a folder below ``/root``, say). The gateway then gets a
mount namespace of its own, in which such folders are replaced by empty ones that hold just what it needs.
"""

import grp
import os
import pwd
import stat
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from sandgate.core.errors import ConfigurationError
from sandgate_agent import system


def find_user(name: str, fallback: int) -> tuple[int, int]:
    """User and group id of a system user; ``fallback`` for both when there is no such user."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return fallback, fallback
    if entry.pw_uid == 0:
        raise ConfigurationError(f"The gateway must not run as root, and the user {name} is root; set SANDGATE_USER.")
    return entry.pw_uid, entry.pw_gid


def _admits_others(folder: Path) -> bool:
    return bool(folder.stat().st_mode & stat.S_IXOTH)


def find_closed(paths: Iterable[Path]) -> dict[Path, list[Path]]:
    """Folders that only their owner can pass, outermost first, and which of ``paths`` are below each."""
    closed: dict[Path, list[Path]] = {}
    for path in paths:
        for folder in reversed(path.parents):
            if not _admits_others(folder):
                closed.setdefault(folder, []).append(path)
                break
    return closed


def open_view(paths: Sequence[Path]) -> None:
    """Make ``paths`` reachable for an unprivileged process, in a mount namespace of this process's own."""
    closed = find_closed(paths)
    if not closed:
        return
    system.unshare(system.CLONE_NEWNS)
    system.mount("", "/", "", system.MS_REC | system.MS_PRIVATE)
    for folder, wanted in closed.items():
        held = {path: os.open(path, os.O_PATH | os.O_CLOEXEC) for path in dict.fromkeys(wanted)}
        system.mount("view", str(folder), "tmpfs", system.MS_NOSUID | system.MS_NODEV, "size=1m,mode=755")
        for path, descriptor in sorted(held.items()):
            if not path.exists():
                path.mkdir(mode=0o755, parents=True)
                system.mount(f"/proc/self/fd/{descriptor}", str(path), "", system.MS_BIND)
            os.close(descriptor)


def drop(user_id: int, group_id: int) -> None:
    """Become an ordinary user for good."""
    name = next((entry.pw_name for entry in pwd.getpwall() if entry.pw_uid == user_id), None)
    groups = [entry.gr_gid for entry in grp.getgrall() if name in entry.gr_mem] if name else []
    os.setgroups(groups)
    os.setresgid(group_id, group_id, group_id)
    os.setresuid(user_id, user_id, user_id)
    system.prctl(system.PR_SET_NO_NEW_PRIVS, 1)


def can_become(user_id: int, group_id: int) -> bool:
    """Whether this process may give files to another user and become that one; in many containers root may not."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.fchown(os.memfd_create("probe"), user_id, group_id)
            drop(user_id, group_id)
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1] == 0


def check_readable(paths: Iterable[Path]) -> None:
    """Raises ``ConfigurationError`` when this user cannot read the program that it is to run."""
    for path in paths:
        if not os.access(path, os.R_OK | os.X_OK):
            raise ConfigurationError(
                f"The gateway runs as an ordinary user, who cannot read {path}. Mend it with: chmod -R o+rX {path}"
            )


def give_folder(
    folder: Path,
    user_id: int,
    group_id: int,
    mode: int = 0o700,
    *,
    but: Sequence[Path] = (),
    closed: Sequence[Path] = (),
) -> None:
    """Make a folder that belongs to the gateway, or hand over one that a gateway of root's had, except for ``but``.

    Into ``closed`` nobody but the gateway writes: they may be large, and one that it has already is not looked through.
    """
    folder.mkdir(mode=mode, parents=True, exist_ok=True)
    folder.chmod(mode)
    if os.geteuid() != 0:
        return
    root = folder.resolve()
    kept, whole = ({path.relative_to(folder) for path in paths} for paths in (but, closed))
    last = []
    for path, folders, files, descriptor in os.fwalk(root):
        here = Path(path).relative_to(root)
        for name in [*folders, *files]:
            below = here / name
            if below in kept or (below in whole and _has(descriptor, name, user_id)):
                # What is in it is not looked at.
                folders[:] = [other for other in folders if other != name]
            elif below in whole:
                # Behind what is in it, so that whoever was interrupted begins again.
                last.append(root / below)
            else:
                _give(descriptor, name, user_id, group_id)
    for whole_folder in last:
        os.chown(whole_folder, user_id, group_id, follow_symlinks=False)
    os.chown(root, user_id, group_id)


def _has(parent: int, name: str, user_id: int) -> bool:
    return os.stat(name, dir_fd=parent, follow_symlinks=False).st_uid == user_id


def _give(parent: int, name: str, user_id: int, group_id: int) -> None:
    """What is a link stays what it is, also when it has become one just now; a file of several names may be others'."""
    with suppress(FileNotFoundError):
        found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        has_other_names = stat.S_ISREG(found.st_mode) and found.st_nlink > 1
        if found.st_uid != user_id and not has_other_names:
            os.chown(name, user_id, group_id, dir_fd=parent, follow_symlinks=False)
