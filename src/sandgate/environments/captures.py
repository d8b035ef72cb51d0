"""What has been read of an environment's files, and why that may not be possible."""

from collections.abc import Callable
from dataclasses import dataclass

from sandgate.core.errors import SnapshotTooLarge, StoreUnavailable
from sandgate.store.base import SnapshotSink

# All that code can change. Everything else in a sandbox is the same for all of its template, and can only be read.
TOPS = ("home/user", "workspace", "tmp", "var/tmp", "run/shm")


@dataclass(frozen=True, slots=True)
class Captured:
    """What has been read. ``size_bytes`` was counted out here, the rest was told."""

    size_bytes: int
    disk_bytes: int
    files: int
    skipped: int
    is_consistent: bool


@dataclass(frozen=True, slots=True)
class Capture:
    """What has been read, and where to it was written."""

    told: Captured
    sink: SnapshotSink


def make_sink(sinks: Callable[[], SnapshotSink]) -> SnapshotSink:
    """At once, so that nobody who is cancelled leaves one behind."""
    try:
        return sinks()
    except OSError as error:
        raise cannot_write(error) from error


def too_large(limit: int) -> SnapshotTooLarge:
    """The refusal of a snapshot that would be larger."""
    return SnapshotTooLarge(
        f"The environment's files take more than {limit} bytes as a snapshot; delete some, or snapshots that you have",
        {"limit_bytes": limit},
    )


def cannot_write(error: OSError) -> StoreUnavailable:
    """The server's own disk is in trouble."""
    return StoreUnavailable(f"The snapshot could not be written: {error.strerror}; ask again later")
