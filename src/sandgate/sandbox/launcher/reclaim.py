"""Cleans up after a launcher that died: what its death did not take along by itself."""

import os
import shutil
import signal
import sys
import time
from contextlib import suppress

from sandgate.sandbox.launcher import processes
from sandgate.sandbox.launcher.cgroup import Tree, find_hierarchies
from sandgate.sandbox.launcher.config import LauncherConfig

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
            with suppress(OSError):
                if group.remove():
                    names.discard(name)
        if names:
            time.sleep(_PAUSE_S)
    if names:
        sys.stderr.write(f"launcher: could not remove the control groups {', '.join(sorted(names))}\n")


def remove_traces(config: LauncherConfig) -> None:
    """Take away what a launcher that died has left, when no other one is to come. Raises ``MechanismFault``."""
    config.socket_path.unlink(missing_ok=True)
    if config.standard:
        with open("/proc/self/mountinfo") as mounts:
            tree = Tree(find_hierarchies(mounts.read()), config.tree_name)
        remove_groups(tree)
        tree.remove()


def prepare_folder(config: LauncherConfig) -> None:
    """The launcher's own folder, empty of what an earlier one left."""
    config.run_folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(config.run_folder / "sandboxes", ignore_errors=True)
    (config.run_folder / "jail").mkdir(exist_ok=True)
    if not config.standard:
        (config.run_folder / "sandboxes").mkdir(exist_ok=True)


def kill_strays(known: set[int]) -> None:
    """Kill and bury processes that outlived their sandbox and were handed to this process by the kernel."""
    strays = {pid for pid, parent in processes.parents().items() if parent == os.getpid()} - known
    for pid in strays:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
