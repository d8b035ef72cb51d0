"""Cleans up after a launcher that died: what its death did not take along by itself."""

import os
import signal
import time
from contextlib import suppress

from sandgate.core.errors import MechanismFault
from sandgate.sandbox.launcher import processes
from sandgate.sandbox.launcher.cgroup import Tree
from sandgate.sandbox.launcher.config import LauncherConfig
from sandgate.sandbox.launcher.freezer import find_freezers
from sandgate.sandbox.launcher.hierarchies import find_hierarchies
from sandgate.sandbox.launcher.log import log
from sandgate.sandbox.launcher.removal import remove_tree

_LIMIT_S = 10.0
_PAUSE_S = 0.005


def remove_groups(tree: Tree) -> None:
    """Kill what is left in any group of the tree and remove the groups."""
    deadline = time.monotonic() + _LIMIT_S
    names = tree.names()
    while names and time.monotonic() < deadline:
        for name in sorted(names):
            group = tree.group(name)
            for pid in group.pids():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if group.frost is not None:
                group.frost.let_die()
            with suppress(OSError):
                if group.remove():
                    names.discard(name)
        if names:
            time.sleep(_PAUSE_S)
    if names:
        log(f"could not remove the control groups {', '.join(sorted(names))}")


def remove_traces(config: LauncherConfig) -> None:
    """Take away what a launcher that died has left, when no other one is to come. Raises ``MechanismFault``."""
    config.socket_path.unlink(missing_ok=True)
    if config.standard:
        with open("/proc/self/mountinfo") as mounts:
            mountinfo = mounts.read()
        tree = Tree(find_hierarchies(mountinfo), config.tree_name, find_freezers(mountinfo))
        remove_groups(tree)
        tree.remove()


def remove_empty_tree(name: str) -> bool:
    """Remove the control groups of a server that is gone for good; False when something is still there.

    Nothing is killed: a tree in which there is a process is not touched, and what one comes into meanwhile stays.
    """
    try:
        with open("/proc/self/mountinfo") as mounts:
            mountinfo = mounts.read()
        tree = Tree(find_hierarchies(mountinfo), name, find_freezers(mountinfo))
        groups = [tree.group(each) for each in tree.names()]
        if any(group.pids() for group in groups):
            return False
        # Once more for those that have had parts.
        return all(group.remove() or group.remove() for group in groups) and tree.remove()
    except MechanismFault:
        # Where there are no groups nobody has left any.
        return True
    except OSError as error:
        log(f"the control groups of {name} could not be removed: {error.strerror}")
        return False


def prepare_folder(config: LauncherConfig) -> None:
    """The launcher's own folder, empty of what an earlier one left."""
    config.run_folder.mkdir(parents=True, exist_ok=True)
    remove_tree(config.run_folder / "sandboxes")
    (config.run_folder / "jail").mkdir(exist_ok=True)
    if not config.standard:
        (config.run_folder / "sandboxes").mkdir(exist_ok=True)


def kill_strays(known: set[int]) -> None:
    """Kill and bury processes that outlived their sandbox and were handed to this process by the kernel.

    ``known`` are those that it has started itself.
    """
    strays = {pid for pid, parent in processes.parents().items() if parent == os.getpid()} - known
    for pid in strays:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
