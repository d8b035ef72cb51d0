"""Definitions as the engine works from them, each read once, and away from the event loop: a long one takes seconds."""

from sandgate.core.errors import InvalidDefinition
from sandgate.core.ids import WorkflowId
from sandgate.core.workflow import Json, WorkflowDefinition
from sandgate.store.base import WorkflowStore
from sandgate.workflows.aside import Aside
from sandgate.workflows.definition import parse_definition
from sandgate.workflows.outline import outline
from sandgate.workflows.reading import FindProblem
from sandgate.workflows.state import Graph

_MOST_KEPT = 256


class Graphs:
    """A version of a workflow never changes, so that what was read stays."""

    def __init__(self, store: WorkflowStore) -> None:
        self._store = store
        # What was accepted does not wait for what anybody may send: runs are held while it is read.
        self._checking = Aside()
        self._reading = Aside()
        self._kept: dict[tuple[WorkflowId, int], Graph] = {}

    async def check(self, raw: Json, templates: FindProblem) -> WorkflowDefinition:
        """A definition that is to be accepted, held against the schema, too. Raises ``InvalidDefinition``."""
        return await self._checking.do(lambda: _check(raw, templates))

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
