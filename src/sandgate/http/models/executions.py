"""The events of executions, as clients get to read them."""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import ConfigDict, Field

from sandgate.core.execution import Execution
from sandgate.core.states import Isolation
from sandgate.environments.following import FINISHED, SKIPPED, STARTED, Events, ExecutionEvent
from sandgate.http.models.base import Model
from sandgate.http.models.environments import ExecutionAnswer, render_bundle
from sandgate.http.streaming import ServerEvent

EVENTS_EXAMPLE = (
    'id: 0.0\nevent: started\ndata: {"execution_id":"exec-06evrhxr2g000r2s7n0cymq3kd",'
    '"environment_id":"env-06evrhxq8g000wmabyzsqnd3wf","isolation":"standard","timeout":30.0,'
    '"started_at":"2026-01-01T00:00:00Z"}\n\n'
    'id: 14.0\nevent: stdout\ndata: {"text":"Hello, World!\\n"}\n\n'
    'id: 14.0\nevent: finished\ndata: {"execution_id":"exec-06evrhxr2g000r2s7n0cymq3kd","status":"completed",'
    '"exit_code":0,"error":null,"duration_ms":2}\n\n'
)
_OUTPUT = {"stdout", "stderr", "results"}
_BEGINNING = {"execution_id", "environment_id", "isolation", "timeout", "started_at"}


class FollowExecution(Model):
    """Where to begin."""

    model_config = ConfigDict(strict=True, extra="forbid")

    after: Annotated[
        str | None, Field(max_length=64, description="The `id` of an event, as `Last-Event-ID`, which is stronger.")
    ] = None


class RenderedEvents:
    """The events of an execution on their way out."""

    def __init__(self, events: Events, isolation: Isolation) -> None:
        self._events = events
        self._isolation = isolation

    async def __anext__(self) -> Sequence[ServerEvent]:
        """See ``Events``."""
        return [ServerEvent(event.kind, event.position, self._data(event)) for event in await anext(self._events)]

    async def aclose(self) -> None:
        """See ``Events``."""
        await self._events.aclose()

    def _data(self, event: ExecutionEvent) -> dict[str, Any]:
        if event.kind == SKIPPED:
            return {"stream": event.stream, "characters": event.characters}
        if event.bundle is not None:
            return {"result": render_bundle(event.bundle)}
        if event.execution is None:
            return {"text": event.text}
        return self._execution(event.kind, event.execution)

    def _execution(self, kind: str, row: Execution) -> dict[str, Any]:
        answer = ExecutionAnswer.of(row, self._isolation)
        assert kind in (STARTED, FINISHED)  # noqa: S101 - no other event has one
        if kind == STARTED:
            return answer.model_dump(include=_BEGINNING)
        # The output has been told.
        return answer.model_dump(exclude=_OUTPUT)
