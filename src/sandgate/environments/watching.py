"""The use case of being told what changes in a folder of an environment."""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence

from sandgate.config.settings import Settings
from sandgate.core.errors import FilesUnavailable, TooManyStreams
from sandgate.core.file_changes import FileChange, parse_change
from sandgate.core.files import parse_found
from sandgate.core.ids import EnvironmentId
from sandgate.core.outlet import Outlet
from sandgate.core.principal import Principal
from sandgate.environments.file_channels import Channel, FileWork, check_path
from sandgate.environments.lifecycle import Lifecycle
from sandgate.environments.lookup import Lookup
from sandgate.environments.tasks import TaskOwner

_MODULES = ("walking", "watching")
_MOST_AT_ONCE = 1000
# Beyond the longest that a stream is open.
_GRACE_S = 60.0


class Watch:
    """What changes from now on, in batches; ``aclose`` comes last.

    The first batch says that it has begun, and the last one that it has ended, with its environment or for too much to
    look at.
    """

    def __init__(self, channel: Channel, on_close: Callable[[], None]) -> None:
        self._channel = channel
        self._on_close: Callable[[], None] | None = on_close
        self._has_begun = False
        self._has_ended = False

    def __aiter__(self) -> AsyncIterator[Sequence[FileChange]]:
        return self

    async def __anext__(self) -> Sequence[FileChange]:
        """What has changed since; waits for something. Raises ``StopAsyncIteration``."""
        if not self._has_begun:
            self._has_begun = True
            return [FileChange("started")]
        if self._has_ended:
            raise StopAsyncIteration
        try:
            record = await self._channel.record()
            changes = [parse_change(each) for each in parse_found(record)] if record else []
        except FilesUnavailable:
            changes = []
        if not changes:
            self._has_ended = True
            return [FileChange("ended")]
        return changes

    async def aclose(self) -> None:
        """Nobody reads on: what looks inside is ended."""
        self._channel.close()
        on_close, self._on_close = self._on_close, None
        if on_close is not None:
            on_close()


class Watching(FileWork):
    """The part of ``FileService`` that is about watches."""

    def __init__(self, lookup: Lookup, lifecycle: Lifecycle, settings: Settings, tasks: TaskOwner) -> None:
        super().__init__(lookup, lifecycle, settings, tasks)
        self._watches: Counter[EnvironmentId] = Counter()

    async def watch(self, caller: Principal, environment_id: EnvironmentId, path: str, *, recursive: bool) -> Watch:
        """See ``Files``."""
        check_path(path)
        live = await self._lookup.get_live(caller, environment_id, changes=False)
        self._count(environment_id, 1)
        try:
            arguments = {
                "path": path,
                "recursive": recursive,
                "most_entries": self._settings.max_watched_entries,
                "most_changes": _MOST_AT_ONCE,
            }
            # Its child is told by the end of the channel that nobody listens.
            outlet = Outlet()
            timeout_s = self._settings.stream_lifetime_s + _GRACE_S
            channel = await self._begin(live, "watch", arguments, outlet, timeout_s, _MODULES)
            await self._first_answer(channel)
        except BaseException:
            self._count(environment_id, -1)
            raise
        return Watch(channel, lambda: self._count(environment_id, -1))

    def _count(self, environment_id: EnvironmentId, by: int) -> None:
        """Raises ``TooManyStreams``."""
        limit = self._settings.max_watches_per_environment
        if by > 0 and self._watches[environment_id] >= limit:
            raise TooManyStreams(
                f"Environment {environment_id} is watched {limit} times, the most allowed; end a watch",
                {"limit": limit},
            )
        self._watches[environment_id] += by
        if not self._watches[environment_id]:
            del self._watches[environment_id]
