"""A link that lets its holder read or write one file of an environment, without any other credential."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sandgate.core.ids import EnvironmentId
from sandgate.core.principal import Principal

LinkMethod = Literal["GET", "PUT"]


@dataclass(frozen=True, slots=True)
class FileGrant:
    """What a link allows: one method on one path. ``name`` is what a browser saves it as.

    ``most_bytes`` and ``overwrite`` are about what is written.
    """

    method: LinkMethod
    environment_id: EnvironmentId
    path: str
    name: str | None = None
    most_bytes: int | None = None
    overwrite: bool = True


@dataclass(frozen=True, slots=True)
class FileLink:
    """A link and when it ends."""

    token: str
    grant: FileGrant
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class OpenLink:
    """A link that is good now, and as whom its holder acts."""

    holder: Principal
    grant: FileGrant
