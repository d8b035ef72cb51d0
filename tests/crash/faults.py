"""A server whose database breaks where a test says."""

import os
import sys
from pathlib import Path

from tests.crash.faulty_server import FAULT_FILE
from tests.crash.server_process import CrashServer, until

ROOT = Path(__file__).resolve().parents[2]


class FaultyServer(CrashServer):
    """``sandgate serve`` on a faulty store."""

    @property
    def fault_file(self) -> Path:
        """Where the next fault stands until it happens."""
        return self.state / "fault"

    def arm(self, *faults: str) -> None:
        """Let something go wrong at the next write of its point; of several one after the other."""
        # The gateway removes it, and is not root; a rename, so that it never reads half of it.
        draft = self.fault_file.with_suffix(".new")
        draft.write_text("\n".join(faults), encoding="utf-8")
        draft.rename(self.fault_file)

    def disarm(self) -> None:
        """Nothing more is to go wrong."""
        self.fault_file.unlink(missing_ok=True)

    @property
    def has_fired(self) -> bool:
        """Whether what was armed has happened."""
        return not self.fault_file.exists()

    def until_fired(self, limit_s: float = 90.0) -> None:
        """Wait until all that was armed has happened."""
        until(lambda: self.has_fired, "the fault has happened", limit_s)

    def _command(self) -> list[str]:
        # The folder's name says whose process it is, by which it is ended when the tests are killed.
        return [sys.executable, "-m", "tests.crash.faulty_server", "serve", "--state", str(self.state)]

    def _environ(self) -> dict[str, str]:
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        return super()._environ() | {FAULT_FILE: str(self.fault_file), "PYTHONPATH": path}
