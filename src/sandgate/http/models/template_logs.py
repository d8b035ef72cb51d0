"""What clients send and get to read about what a build says."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from sandgate.environments.builds.log import LogEvents
from sandgate.http.models.base import Model
from sandgate.http.models.parts import with_example
from sandgate.http.pagination import Digits, PageQuery
from sandgate.http.streaming import ServerEvent

LOG_EVENTS_EXAMPLE = (
    'id: 31\nevent: log\ndata: {"text":"== base python-3.11 (3.11.9)\\n"}\n\n'
    'id: 31\nevent: finished\ndata: {"name":"data","version":1,"status":"ready","status_reason":null}\n\n'
)


class FollowTemplate(Model):
    """Where to begin."""

    model_config = PageQuery.model_config

    after: Annotated[
        int, Digits, Field(ge=0, le=2**40, description="The `id` of an event, as `Last-Event-ID`, which is stronger.")
    ] = 0


class TemplateLogAnswer(Model):
    """What a build has said so far."""

    model_config = with_example({"name": "data", "version": 1, "status": "ready", "log": "== trial\n"})

    name: str
    version: int
    status: Literal["building", "ready", "failed"]
    log: str


class RenderedLogEvents:
    """The log of a build on its way out; ``finished()`` is what comes last."""

    def __init__(self, events: LogEvents, finished: Any) -> None:
        self._events = events
        self._finished = finished

    async def __anext__(self) -> Sequence[ServerEvent]:
        """See ``Events``."""
        return [
            ServerEvent("finished", str(part.position), self._finished())
            if part.is_last
            else ServerEvent("log", str(part.position), {"text": part.text})
            for part in await anext(self._events)
        ]

    async def aclose(self) -> None:
        """See ``Events``."""
        await self._events.aclose()
