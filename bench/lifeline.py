"""Nothing that is started for a measurement or a test outlives it, however it ends."""

import subprocess


class Lifeline:
    """Ends a process politely when this one is gone, killed or not, unless the line was cut before."""

    def __init__(self, pid: int) -> None:
        # Its number may be another process's by then.
        end = f"read _; grep -aq sandgate /proc/{pid:d}/cmdline && kill -TERM {pid:d}"
        # In a session of its own, so that what ends this process does not end the watcher first.
        self._watcher = subprocess.Popen(["/bin/sh", "-c", end], stdin=subprocess.PIPE, start_new_session=True)

    def cut(self) -> None:
        """The process may live on."""
        self._watcher.kill()
        self._watcher.communicate()
