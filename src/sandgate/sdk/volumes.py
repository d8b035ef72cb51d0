"""The calls of a client about volumes."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sandgate.sdk.answers import AnswerModel
from sandgate.sdk.calls import Calls
from sandgate.sdk.reading import quote_part
from sandgate.sdk.transport import Asked

_VOLUMES = "/api/v1/sandbox/volumes"


class Volume(AnswerModel):
    """A folder that outlives environments; ``environment_ids`` are live ones that have it."""

    volume_id: str
    name: str
    creation_time: datetime
    size_mb: int
    used_bytes: int | None
    environment_ids: Sequence[str]
    owner_id: str


@dataclass(frozen=True, slots=True)
class Mount:
    """A volume by its name, for a new environment, and where it is to be there."""

    name: str
    path: str
    read_only: bool = False

    def to_json(self) -> Mapping[str, Any]:
        """As the API takes it."""
        return {"name": self.name, "path": self.path, "read_only": self.read_only}


class VolumeCalls(Calls):
    """The part of :class:`sandgate.sdk.client.Client` that is about volumes; it raises what that one does."""

    def create_volume(self, name: str, *, size_mb: int | None = None, key: str | None = None) -> Volume:
        """An empty volume. ``key`` makes it safe to call again with the same one."""
        body: dict[str, Any] = {"name": name} if size_mb is None else {"name": name, "size_mb": size_mb}
        return self._get(Volume, Asked("POST", _VOLUMES, body, key=key))

    def get_volume(self, volume_id: str) -> Volume:
        """One volume."""
        return self._get(Volume, Asked("GET", f"{_VOLUMES}/{quote_part(volume_id)}"))

    def find_volume(self, name: str) -> Volume | None:
        """The caller's own of this name; an admin lists those of others, too."""
        own = self._transport.ask(Asked("GET", "/api/v1/me"))["user_id"]
        return next((volume for volume in self.list_volumes(name=name) if volume.owner_id == own), None)

    def list_volumes(self, *, name: str | None = None) -> Generator[Volume, None, None]:
        """Your volumes, newest first, asked for page by page."""
        return self._list(Volume, _VOLUMES, "volumes", {"name": name})

    def delete_volume(self, volume_id: str, *, force: bool = False) -> None:
        """Delete a volume with all that is in it; with ``force`` it ends the environments that have it."""
        query = {"force": "true"} if force else None
        self._transport.ask(Asked("DELETE", f"{_VOLUMES}/{quote_part(volume_id)}", query=query))
