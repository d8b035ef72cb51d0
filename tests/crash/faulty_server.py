"""``sandgate serve`` with a store that breaks on demand: ``python -m tests.crash.faulty_server serve``.

The variable ``FAULT_FILE`` names the file in which the test writes what is to go wrong next; see ``FileFaults``. With
``CLOCK_SKEW_S`` its wall clock is wrong by so many seconds, and by as many more as the file ``CLOCK_FILE`` says.
``LAUNCHER_PATIENCE_S`` is how long the launcher may take to make a sandbox. Nothing of the product reads any of them.
"""

import os
import signal
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sandgate import assembly
from sandgate.cli import main, supervisor
from sandgate.config.settings import Settings
from sandgate.core.clock import SystemClock
from sandgate.sandbox import zygote_runtime
from sandgate.store.artifact_files import ArtifactFiles, PackWriter
from sandgate.testing.faults import FileFaults
from sandgate.testing.faulty_store import FaultyStore

FAULT_FILE = "FAULT_FILE"
CLOCK_SKEW = "CLOCK_SKEW_S"
CLOCK_FILE = "CLOCK_FILE"
LAUNCHER_PATIENCE = "LAUNCHER_PATIENCE_S"


class SkewedClock(SystemClock):
    """A wall clock that somebody has set wrong."""

    def now(self) -> datetime:
        """See ``Clock``."""
        return super().now() + timedelta(seconds=float(os.environ.get(CLOCK_SKEW, "0")) + self._jumped())

    @staticmethod
    def _jumped() -> float:
        """By how much somebody sets it while the server runs."""
        try:
            return float(Path(os.environ[CLOCK_FILE]).read_text(encoding="ascii"))
        except (KeyError, FileNotFoundError):
            return 0.0


def kill_around(owner: type, method: str, point: str, faults: FileFaults) -> None:
    """Let a method that threads call have two points, at which the process may be killed."""
    do: Callable[..., Any] = getattr(owner, method)

    def die(where: str) -> None:
        if faults.take(f"{point}.{where}") is not None:
            os.kill(os.getpid(), signal.SIGKILL)

    def doing(*arguments: Any) -> Any:
        die("before")
        answer = do(*arguments)
        die("after")
        return answer

    setattr(owner, method, doing)


def run() -> None:
    """Serve. The gateway may die as often as the test likes."""
    make_store, faults = assembly.make_store, FileFaults(Path(os.environ[FAULT_FILE]))

    def make_faulty_store(settings: Settings, *, checkpoint: bool = True) -> FaultyStore:
        return FaultyStore(make_store(settings, checkpoint=checkpoint), faults)

    assembly.make_store = make_faulty_store  # type: ignore[assignment]
    assembly.SystemClock = SkewedClock  # type: ignore[attr-defined]
    kill_around(ArtifactFiles, "create", "packs.create", faults)
    kill_around(PackWriter, "write", "packs.write", faults)
    kill_around(PackWriter, "finish", "packs.finish", faults)
    supervisor._MOST_QUICK_DEATHS = sys.maxsize
    patience_s = os.environ.get(LAUNCHER_PATIENCE)
    zygote_runtime._CREATE_LIMIT_S = float(patience_s) if patience_s else zygote_runtime._CREATE_LIMIT_S
    main.main()


if __name__ == "__main__":
    run()
