"""The calls of a client about snapshots and copies of environments."""

from collections.abc import Generator, Mapping, Sequence
from datetime import datetime

from sandgate.sdk.answers import AnswerModel, Environment, Environments
from sandgate.sdk.calls import Calls, leave_out_none
from sandgate.sdk.files import environment_path
from sandgate.sdk.reading import quote_part
from sandgate.sdk.transport import Asked

_SNAPSHOTS = "/api/v1/sandbox/snapshots"
# Files may take as long as the server lets them.
_PATIENCE_S = 600.0


class Snapshot(AnswerModel):
    """The files of an environment at one moment, unless it is not ``consistent``."""

    snapshot_id: str
    environment_id: str
    name: str
    template: str
    isolation: str
    creation_time: datetime
    size_bytes: int
    files: int
    skipped: int
    consistent: bool
    metadata: Mapping[str, str]
    owner_id: str


class SnapshotCalls(Calls):
    """The part of :class:`sandgate.sdk.client.Client` that is about snapshots; it raises what that one does."""

    def create_snapshot(
        self,
        environment_id: str,
        *,
        name: str | None = None,
        metadata: Mapping[str, str] | None = None,
        key: str | None = None,
    ) -> Snapshot:
        """Keep an environment's files, to start others from. ``key`` makes it safe to call again with the same one."""
        body = leave_out_none({"name": name, "metadata": None if metadata is None else dict(metadata)})
        path = f"{environment_path(environment_id)}/snapshots"
        return self._get(Snapshot, Asked("POST", path, body, key=key, patience_s=_PATIENCE_S))

    def fork_environment(
        self,
        environment_id: str,
        count: int = 1,
        *,
        name: str | None = None,
        metadata: Mapping[str, str] | None = None,
        timeout_s: int | None = None,
        key: str | None = None,
    ) -> Sequence[Environment]:
        """Copies that begin with the environment's files as they are now, and are as it is in all that is not given."""
        labels = None if metadata is None else dict(metadata)
        body = leave_out_none({"count": count, "name": name, "metadata": labels, "timeout": timeout_s})
        asked = Asked("POST", f"{environment_path(environment_id)}/fork", body, key=key, patience_s=_PATIENCE_S)
        return self._get(Environments, asked).environments

    def get_snapshot(self, snapshot_id: str) -> Snapshot:
        """One snapshot."""
        return self._get(Snapshot, Asked("GET", f"{_SNAPSHOTS}/{quote_part(snapshot_id)}"))

    def delete_snapshot(self, snapshot_id: str) -> None:
        """Delete a snapshot; what has begun with it keeps its files."""
        self._transport.ask(Asked("DELETE", f"{_SNAPSHOTS}/{quote_part(snapshot_id)}"))

    def list_snapshots(
        self, *, name: str | None = None, template: str | None = None
    ) -> Generator[Snapshot, None, None]:
        """Your snapshots, newest first, asked for page by page."""
        filters = {"name": name, "template": template}
        return self._list(Snapshot, _SNAPSHOTS, "snapshots", filters)
