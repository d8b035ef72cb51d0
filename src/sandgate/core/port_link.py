"""A link that lets its holder talk to one port of an environment, without any other credential."""

from dataclasses import dataclass
from datetime import datetime

from sandgate.core.ids import EnvironmentId
from sandgate.core.principal import Principal

LARGEST_PORT = 65_535


@dataclass(frozen=True, slots=True)
class PortGrant:
    """What a link allows: requests to a server that listens at one port."""

    environment_id: EnvironmentId
    port: int


@dataclass(frozen=True, slots=True)
class PortLink:
    """A link and when it ends."""

    token: str
    grant: PortGrant
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class OpenPortLink:
    """A link that is good now, and as whom its holder acts."""

    holder: Principal
    grant: PortGrant
