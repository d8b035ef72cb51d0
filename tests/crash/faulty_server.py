"""``sandgate serve`` with a store that breaks on demand: ``python -m tests.crash.faulty_server serve``.

The variable ``FAULT_FILE`` names the file in which the test writes what is to go wrong next; see ``FileFaults``.
Nothing of the product reads it.
"""

import os
import sys
from pathlib import Path

from sandgate import assembly
from sandgate.cli import main, supervisor
from sandgate.config.settings import Settings
from sandgate.testing.faults import FileFaults
from sandgate.testing.faulty_store import FaultyStore

FAULT_FILE = "FAULT_FILE"


def run() -> None:
    """Serve. The gateway may die as often as the test likes."""
    make_store, faults = assembly.make_store, FileFaults(Path(os.environ[FAULT_FILE]))

    def make_faulty_store(settings: Settings, *, checkpoint: bool = True) -> FaultyStore:
        return FaultyStore(make_store(settings, checkpoint=checkpoint), faults)

    assembly.make_store = make_faulty_store  # type: ignore[assignment]
    supervisor._MOST_QUICK_DEATHS = sys.maxsize
    main.main()


if __name__ == "__main__":
    run()
