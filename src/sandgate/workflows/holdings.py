"""The runs that this server works on, by who they belong to."""

from collections.abc import Set
from typing import Protocol

from sandgate.core.built import BuiltTemplate
from sandgate.core.ids import RunId, UserId
from sandgate.workflows.engine import Engine
from sandgate.workflows.live import LiveRun


class LiveRuns:
    """Implements :class:`sandgate.auth.departures.Holdings` for an engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        # Those that are told to end may tidy up for a while; once is enough.
        self._told: set[RunId] = set()

    def owners(self) -> Set[UserId]:
        """Everybody who has a live run here that was not told to end."""
        self._told &= set(self._engine.held())
        return {live.run.owner_id for live in self._all()}

    def end_all_of(self, owner_id: UserId, reason: str) -> int:
        """Cancel the live runs of a user here; answers how many."""
        found = [live for live in self._all() if live.run.owner_id == owner_id]
        for live in found:
            self._told.add(live.run.run_id)
            self._engine.cancel(live, reason)
        return len(found)

    def _all(self) -> list[LiveRun]:
        held = (self._engine.find(run_id) for run_id in self._engine.held())
        return [live for live in held if live is not None and live.run.is_live and live.run.run_id not in self._told]


class _Sandboxes(Protocol):
    def count_of(self, template: BuiltTemplate) -> int: ...


class TemplateUses:
    """Implements :class:`sandgate.environments.builds.base.RunFacts` for an engine and the sandboxes of its steps."""

    def __init__(self, engine: Engine, sandboxes: _Sandboxes) -> None:
        self._engine = engine
        self._sandboxes = sandboxes

    def count_of(self, template: BuiltTemplate) -> int:
        """See ``RunFacts``."""
        runs = [run for run in self._engine.held().values() if run.is_live]
        runs = [run for run in runs if template.is_public or run.owner_id == template.owner_id]
        return sum(template.reference in run.templates.values() for run in runs)

    def count_sandboxes_of(self, template: BuiltTemplate) -> int:
        """See ``RunFacts``."""
        return self._sandboxes.count_of(template)
