"""Snapshots and copies of environments: how many, how large, how long."""

from sandgate.config.groups.row import Group, setting


class SnapshotSettings(Group):
    """Snapshots and copies of environments: how many, how large, how long."""

    max_snapshots_per_user: int = setting(100, "Snapshots of one user.", ge=0, le=100_000)
    max_snapshot_bytes_per_user: int = setting(
        10 * 1024**3, "What all snapshots of one user may take on the disk together.", unit="bytes", ge=0
    )
    max_snapshot_bytes: int = setting(2 * 1024**3, "Largest snapshot, or copy of an environment.", unit="bytes", ge=1)
    max_snapshot_entries: int = setting(
        200_000, "Files, folders and links in a snapshot, or copy of an environment.", ge=1, le=10_000_000
    )
    snapshot_timeout_s: float = setting(
        120.0,
        "How long the files of an environment may take to be read, while nothing runs in it, or to be laid out.",
        unit="s",
        ge=0.1,
        le=3600,
    )
    snapshot_retention_s: int = setting(
        0, "How long snapshots are kept. 0: until they are deleted.", unit="s", ge=0, le=100 * 366 * 86_400
    )
    max_forks: int = setting(32, "Copies of an environment that are made with one request.", ge=1, le=1000)
