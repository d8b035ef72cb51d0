"""What workflows keep for their steps and show to nobody."""

from dataclasses import dataclass, field
from datetime import datetime

from sandgate.core.ids import UserId


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret's row: what is known of it, and its value sealed with the key ``key_id``."""

    owner_id: UserId
    name: str
    created_at: datetime
    updated_at: datetime
    key_id: str
    sealed: bytes = field(repr=False)
