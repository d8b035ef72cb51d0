"""Rows of templates that users have had built."""

from collections.abc import Collection, Sequence, Set
from datetime import datetime
from enum import Enum, auto
from typing import Protocol

from sandgate.core.built import BuiltTemplate, LayerSize, Root
from sandgate.core.ids import TemplateId, UserId
from sandgate.core.states import TemplateStatus


class TemplateRefusal(Enum):
    """Why a row was not written."""

    TOO_MANY = auto()
    TOO_MANY_BUILDS = auto()


class TemplateStore(Protocol):
    """Rows of built templates. They go with their user."""

    async def insert(
        self, template: BuiltTemplate, most: int, most_builds: int | None = None
    ) -> BuiltTemplate | TemplateRefusal:
        """Add a row, as the next version of its owner's name, and answer it with that.

        Nothing is written when the owner has ``most``, or ``most_builds`` that are being built, on all servers that
        live. Raises ``UserNotFound`` when the owner is gone. The number of a version is never given twice, whatever is
        deleted.
        """
        ...

    async def finish(
        self,
        template_id: TemplateId,
        status: TemplateStatus,
        *,
        expected: Collection[TemplateStatus],
        at: datetime,
        reason: str | None = None,
        size: LayerSize | None = None,
        lock: str | None = None,
        root: Root | None = None,
    ) -> bool:
        """Write how a build has ended; False, and nothing written, unless it is one of the ``expected``."""
        ...

    async def list(self, server_id: str) -> Sequence[BuiltTemplate]:
        """All that a server has built or is building, oldest first."""
        ...

    async def list_ids(self, server_id: str | None) -> Set[TemplateId]:
        """The ids of those; None: of all servers."""
        ...

    async def count_runs(self, reference: str, owner_id: UserId | None) -> int:
        """How many live runs of workflows, of this owner (None: of anybody), began with a version of a template."""
        ...

    async def delete(self, template_id: TemplateId) -> bool:
        """Remove the row; False when there was none."""
        ...
