"""What makes changes of a folder last over a machine that loses its power."""

import os
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """See to it that what was made, renamed or removed in it stays so. Raises ``OSError``."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
