"""Volumes: how many, how large."""

from sandgate.config.groups.row import Group, setting

_MIB = 1024**2


class VolumeSettings(Group):
    """Volumes: how many, how large."""

    max_volumes_per_user: int = setting(20, "Volumes of one user.", ge=0, le=10_000)
    max_volume_bytes_per_user: int = setting(
        20 * 1024**3, "The sizes of all volumes of one user together.", unit="bytes", ge=0
    )
    max_volume_bytes: int = setting(
        10 * 1024**3, "The largest size of a volume that may be asked for.", unit="bytes", ge=16 * _MIB, le=16 * 1024**4
    )
    default_volume_bytes: int = setting(
        1024**3, "Size of a volume for which none is asked.", unit="bytes", ge=16 * _MIB, le=16 * 1024**4
    )
