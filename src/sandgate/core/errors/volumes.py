"""Refusals about volumes."""

from sandgate.core.errors.base import Conflict, NotFound, RequestRefused


class VolumeNotFound(NotFound):
    """No volume of the caller has this id."""

    code = "VOLUME_NOT_FOUND"


class VolumeNameTaken(Conflict):
    """The caller has a volume of this name; ``details`` has ``name``."""

    code = "VOLUME_NAME_TAKEN"


class VolumeInUse(Conflict):
    """Live environments have the volume mounted; ``details`` has ``environment_ids``."""

    code = "VOLUME_IN_USE"


class VolumeElsewhere(Conflict):
    """The volume is on another server that shares the database; ``details`` has ``server_id``."""

    code = "VOLUME_ELSEWHERE"


class VolumesUnavailable(RequestRefused):
    """This server, or this isolation class, has no volumes; ``details`` has ``reason``."""

    code = "VOLUMES_UNAVAILABLE"


class VolumeQuotaExceeded(Conflict):
    """The user has as many volumes, or as large ones, as allowed; ``details`` has ``limit``, ``used`` and ``scope``."""

    code = "VOLUME_QUOTA_EXCEEDED"
