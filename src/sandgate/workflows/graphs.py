"""Definitions as the engine works from them, each read once, and away from the event loop: a long one takes seconds."""

from collections import Counter

from sandgate.core.errors import InvalidDefinition, TooManyRequestsAtOnce
from sandgate.core.ids import UserId, WorkflowId
from sandgate.core.workflow import Json, WorkflowDefinition
from sandgate.store.base import WorkflowStore
from sandgate.workflows.aside import Aside
from sandgate.workflows.definition import parse_definition
from sandgate.workflows.extent import check_length
from sandgate.workflows.names import MAX_DEFINITION_BYTES
from sandgate.workflows.outline import outline
from sandgate.workflows.reading import FindProblem
from sandgate.workflows.state import Graph

_MOST_KEPT = 256
_MOST_CHECKED_BYTES = 4 * MAX_DEFINITION_BYTES
# About as long as it takes to read one of the longest.
_RETRY_AFTER_S = 5.0


class Graphs:
    """A version of a workflow never changes, so that what was read stays."""

    def __init__(self, store: WorkflowStore) -> None:
        self._store = store
        # What was accepted does not wait for what anybody may send: runs are held while it is read.
        self._checking = Aside()
        self._checked_bytes: Counter[UserId] = Counter()
        self._reading = Aside()
        self._kept: dict[tuple[WorkflowId, int], Graph] = {}

    async def check(self, raw: Json, templates: FindProblem, caller_id: UserId) -> WorkflowDefinition:
        """A definition that is to be accepted, held against the schema, too. Callers take turns.

        Raises ``InvalidDefinition``, and ``TooManyRequestsAtOnce`` when too much of the caller's waits for this.
        """
        length = check_length(raw)
        if self._checked_bytes[caller_id] + length > _MOST_CHECKED_BYTES:
            raise TooManyRequestsAtOnce(
                f"Definitions of yours are being checked, with this one more than {_MOST_CHECKED_BYTES:,} bytes,"
                " the most that may be at once; wait for their answers",
                {"limit_bytes": _MOST_CHECKED_BYTES},
                retry_after_s=_RETRY_AFTER_S,
            )
        self._checked_bytes[caller_id] += length
        try:
            return await self._checking.do(lambda: _check(raw, templates), caller_id)
        finally:
            self._checked_bytes[caller_id] -= length
            if not self._checked_bytes[caller_id]:
                del self._checked_bytes[caller_id]

    async def read(self, workflow_id: WorkflowId, version: int, raw: Json) -> Graph:
        """The graph of a definition that was accepted. Raises ``InvalidDefinition``: rules may be tighter by now."""
        key = workflow_id, version
        graph = self._kept.get(key)
        return await self._reading.do(lambda: self._read(key, raw)) if graph is None else graph

    async def load(self, workflow_id: WorkflowId, version: int) -> Graph:
        """The graph of a version. Raises ``InvalidDefinition``, ``StoreUnavailable``."""
        graph = self._kept.get((workflow_id, version))
        if graph is not None:
            return graph
        return await self.read(workflow_id, version, await self._store.find_definition(workflow_id, version))

    async def show(self, workflow_id: WorkflowId, version: int) -> WorkflowDefinition:
        """What is shown of a version, also of one that could not be run any more. Raises ``StoreUnavailable``."""
        try:
            return (await self.load(workflow_id, version)).definition
        except InvalidDefinition:
            return outline(await self._store.find_definition(workflow_id, version))

    def _read(self, key: tuple[WorkflowId, int], raw: Json) -> Graph:
        """In the thread, which alone writes what is kept: who asked for the same meanwhile finds it there."""
        graph = self._kept.get(key)
        if graph is None:
            graph = Graph(parse_definition(raw))
            if len(self._kept) >= _MOST_KEPT:
                self._kept.clear()
            self._kept[key] = graph
        return graph


def _check(raw: Json, templates: FindProblem) -> WorkflowDefinition:
    # Only here, and so only in a server that is given a definition: what it imports is large.
    from sandgate.workflows.form import definition_form

    return parse_definition(raw, templates=templates, form=definition_form())
