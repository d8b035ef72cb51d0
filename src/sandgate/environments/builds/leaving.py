"""Templates whose rows have gone, with their owners above all: nobody begins with them, and then their files go."""

from collections.abc import Callable

from sandgate.core.built import BuiltTemplate
from sandgate.core.ids import TemplateId
from sandgate.environments.builds.all_templates import AllTemplates
from sandgate.environments.builds.running_builds import RunningBuilds
from sandgate.store.base import TemplateStore
from sandgate.telemetry.log import get_logger
from sandgate.telemetry.rounds import go_round

_INTERVAL_S = 10.0

_log = get_logger(__name__)


class Leaving:
    """Looks every few seconds whether what can be begun with is in the database.

    Accounts may be deleted on any server, and by the command line; nobody tells the others of it.
    """

    def __init__(
        self,
        store: TemplateStore,
        all_templates: AllTemplates,
        running: RunningBuilds,
        is_used: Callable[[BuiltTemplate], bool],
        server_id: str,
    ) -> None:
        """``is_used`` says whether anything begins with a template, or may."""
        self._store = store
        self._templates = all_templates
        self._running = running
        self._is_used = is_used
        self._server_id = server_id
        # Of these others still have environments or runs, or build upon them.
        self._leaving: dict[TemplateId, BuiltTemplate] = {}

    async def run(self, interval_s: float = _INTERVAL_S) -> None:
        """Look every ``interval_s`` seconds, until cancelled. A database that is away is asked again next time."""
        await go_round(self.look, interval_s, _log, "templates not looked at")

    async def look(self) -> int:
        """Forget what has no row; answers of how many templates the files went. Raises ``StoreUnavailable``."""
        # In this order: what is written meanwhile is not missed.
        known = self._templates.rows()
        there = await self._store.list_ids(self._server_id) if known else frozenset()
        for row in known:
            if row.template_id not in there:
                self._templates.set_aside(row.template_id)
                self._leaving[row.template_id] = row
        free = [row for row in self._leaving.values() if not (self._is_used(row) or self._running.is_at(row))]
        for row in free:
            await self._running.forget(row)
            del self._leaving[row.template_id]
            _log.info("template without an owner removed", template_id=row.template_id, template=row.reference)
        return len(free)
