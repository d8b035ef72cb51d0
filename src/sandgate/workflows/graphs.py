"""Definitions as the engine works from them, each read once."""

from sandgate.core.errors import InvalidDefinition
from sandgate.core.ids import WorkflowId
from sandgate.core.workflow import Json, WorkflowDefinition
from sandgate.store.base import WorkflowStore
from sandgate.workflows.definition import parse_definition
from sandgate.workflows.outline import outline
from sandgate.workflows.state import Graph

_MOST_KEPT = 256


class Graphs:
    """A version of a workflow never changes, so that what was read stays."""

    def __init__(self, store: WorkflowStore) -> None:
        self._store = store
        self._kept: dict[tuple[WorkflowId, int], Graph] = {}

    def read(self, workflow_id: WorkflowId, version: int, raw: Json) -> Graph:
        """The graph of a definition. Raises ``InvalidDefinition``."""
        graph = self._kept.get((workflow_id, version))
        if graph is None:
            graph = Graph(parse_definition(raw))
            if len(self._kept) >= _MOST_KEPT:
                self._kept.clear()
            self._kept[workflow_id, version] = graph
        return graph

    async def load(self, workflow_id: WorkflowId, version: int) -> Graph:
        """The graph of a version. Raises ``InvalidDefinition``, ``StoreUnavailable``."""
        graph = self._kept.get((workflow_id, version))
        if graph is not None:
            return graph
        return self.read(workflow_id, version, await self._store.find_definition(workflow_id, version))

    async def show(self, workflow_id: WorkflowId, version: int) -> WorkflowDefinition:
        """What is shown of a version, also of one that could not be run any more. Raises ``StoreUnavailable``."""
        try:
            return (await self.load(workflow_id, version)).definition
        except InvalidDefinition:
            return outline(await self._store.find_definition(workflow_id, version))
