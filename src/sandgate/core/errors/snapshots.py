"""Refusals about snapshots of environments."""

from sandgate.core.errors.base import Conflict, MechanismFault, NotFound, RequestRefused, TooManyRequests
from sandgate.core.errors.requests import PayloadTooLarge


class SnapshotNotFound(NotFound):
    """No snapshot of the caller has this id."""

    code = "SNAPSHOT_NOT_FOUND"


class SnapshotElsewhere(Conflict):
    """The snapshot is on another server that shares the database; ``details`` has ``server_id``."""

    code = "SNAPSHOT_ELSEWHERE"


class SnapshotUnfit(RequestRefused):
    """An environment like this cannot be started from the snapshot; the message says why, ``details`` what it has."""

    code = "SNAPSHOT_UNFIT"


class SnapshotUnavailable(RequestRefused):
    """Environments of this isolation class have no snapshots and no copies; ``details`` has ``isolation``."""

    code = "SNAPSHOT_UNAVAILABLE"


class SnapshotTooLarge(PayloadTooLarge):
    """The files of the environment are more than a snapshot, or what is left to the user, may hold."""

    code = "SNAPSHOT_TOO_LARGE"


class TooManySnapshots(TooManyRequests):
    """The user has as many snapshots, or as much in them, as is allowed; ``details`` has limit and used."""

    code = "TOO_MANY_SNAPSHOTS"


class SnapshotUnreadable(MechanismFault):
    """The file of a snapshot is gone from the server's disk, or is not what was written there."""

    code = "SNAPSHOT_UNREADABLE"
