"""Refusals about files of environments. ``details`` has ``path``, as it is known inside."""

from sandgate.core.errors.base import Conflict, MechanismFault, NotFound, RequestRefused
from sandgate.core.errors.requests import PayloadTooLarge


class FileMissing(NotFound):
    """There is nothing at this path, or no folder on the way to it."""

    code = "FILE_NOT_FOUND"


class FileConflict(Conflict):
    """What is at this path does not allow it: a folder or none, not empty, no regular file, or there already."""

    code = "FILE_CONFLICT"


class FileForbidden(RequestRefused):
    """Code in the environment may not do this either: the place is read-only, or belongs to the system."""

    code = "FILE_FORBIDDEN"


class PathInvalid(RequestRefused):
    """This cannot be a path: too long, empty, a NUL in it, or links that lead in a circle."""

    code = "PATH_INVALID"


class FileTooLarge(PayloadTooLarge):
    """The file is larger than the setting or the environment allows; ``details`` has ``limit_bytes`` if known."""

    code = "FILE_TOO_LARGE"


class DiskFull(PayloadTooLarge):
    """The environment's disk has no room left; nothing was changed."""

    code = "DISK_FULL"


class FilesUnavailable(MechanismFault):
    """The environment did not get to it in time, or died over it; ask again later."""

    code = "FILES_UNAVAILABLE"


class ArchiveInvalid(RequestRefused):
    """The archive cannot be read, or has an entry that is not unpacked; ``path`` is the entry. Nothing was changed."""

    code = "ARCHIVE_INVALID"


class ArchiveTooLarge(PayloadTooLarge):
    """More entries, or more bytes, than the settings allow in an archive; of what was sent nothing was kept."""

    code = "ARCHIVE_TOO_LARGE"


class PatternInvalid(RequestRefused):
    """What is looked for is no pattern, or no regular expression that can be used."""

    code = "PATTERN_INVALID"


class FileLinkNotFound(NotFound):
    """There is no such link: not made here, expired, for the other method, or of a user who is not let in any more."""

    code = "FILE_LINK_NOT_FOUND"
