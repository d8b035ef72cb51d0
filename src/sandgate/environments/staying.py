"""What the use cases of what stays in environments, sessions and processes, are made of."""

from collections.abc import Iterator

from sandgate.config.settings import Settings
from sandgate.core.clock import Clock
from sandgate.core.ids import EnvironmentId
from sandgate.environments.lifecycle import Lifecycle
from sandgate.environments.live import LiveEnvironment
from sandgate.environments.lookup import Lookup
from sandgate.environments.tasks import TaskOwner
from sandgate.environments.variables import VariableGiver
from sandgate.sandbox.base import Runtime

Parts = tuple[Lookup, Lifecycle, Runtime, Clock, Settings, TaskOwner, VariableGiver]
"""What each of them is given."""


class StayingService:
    """What stays is in memory and in sandboxes: a later process takes it up from what was left with the runtime."""

    def __init__(self, *parts: *Parts) -> None:
        self._lookup, self._lifecycle, self._runtime, self._clock, self._settings, self._tasks, self._variables = parts

    def _left(self, kind: str) -> Iterator[tuple[str, LiveEnvironment, bytes]]:
        """What an earlier process has left of a kind in environments that live: by tag, with its note.

        The rest is discarded with all that nobody takes up.
        """
        for tag in [tag for tag in self._runtime.kept() if tag.startswith(kind)]:
            environment_id = EnvironmentId(tag.split("|")[1])
            live = self._lifecycle.find(environment_id)
            if live is not None and live.ending is None:
                yield tag, live, self._runtime.read_note(environment_id, tag) or b""
