"""The use cases of environments that begin with the files of others."""

import asyncio
from collections.abc import Sequence

from sandgate.config.settings import Settings
from sandgate.core.clock import Clock
from sandgate.core.environment import Environment
from sandgate.core.errors import InvalidRequest, SandgateError, StoreUnavailable
from sandgate.core.idempotency import KeptAnswer
from sandgate.core.ids import EnvironmentId
from sandgate.core.principal import Principal
from sandgate.core.quota import EnvironmentsHeld, UserQuota
from sandgate.core.snapshot import Snapshot
from sandgate.core.states import EnvironmentStatus
from sandgate.environments.base import NewEnvironment, Templates
from sandgate.environments.beginnings import copy
from sandgate.environments.capturing import Capturing
from sandgate.environments.copy_group import CopyGroup
from sandgate.environments.copying import Copying
from sandgate.environments.life import NewCopies
from sandgate.environments.lifecycle import Lifecycle
from sandgate.environments.live import Ending, LiveEnvironment
from sandgate.environments.lookup import Lookup
from sandgate.environments.quota import Quota
from sandgate.environments.quotas import UserQuotas
from sandgate.environments.snapshots import SnapshotService, check_can_copy
from sandgate.environments.tasks import TaskOwner

_END_WAIT_S = 5.0
_KEPT_WAIT_S = 10.0
# Nobody has been told of them.
_NOT_COPIED = Ending(EnvironmentStatus.TERMINATED, "the files of its original could not be copied", deleted=True)
_NOT_ALL = Ending(EnvironmentStatus.FAILED, "not all of the copies could be written")


class Forking:
    """The part of ``EnvironmentService`` that is about copies."""

    _lookup: Lookup
    _lifecycle: Lifecycle
    _templates: Templates
    _tasks: TaskOwner
    _clock: Clock
    _settings: Settings
    _quota: Quota
    _server_id: str
    _capturing: Capturing
    _copying: Copying
    snapshots: SnapshotService
    quotas: UserQuotas

    def _check_not_draining(self) -> None:
        raise NotImplementedError

    async def _insert_and_launch(self, row: Environment, answer: KeptAnswer | None, allowed: UserQuota) -> None:
        raise NotImplementedError

    async def fork(self, caller: Principal, environment_id: EnvironmentId, wanted: NewCopies) -> Sequence[Environment]:
        """See ``Environments``."""
        live = await self._lookup.get_live(caller, environment_id)
        self._check_not_draining()
        most = self._settings.max_forks
        if wanted.count > most:
            raise InvalidRequest.for_fields([("count", f"may be at most {most} on this server")])
        row = live.row
        self._templates.check(row.template, row.owner_id)
        allowed, elsewhere = await self.quotas.allowed(row.owner_id), await self.quotas.elsewhere(row.owner_id)
        # Nothing is waited for from here on: as long as it is there, its template is one of the owner's live ones.
        check_can_copy(live)
        self._take_places(row, wanted.count, allowed, elsewhere)
        if self._copying.can_copy(live):
            return await self._copy_at_once(live, wanted, allowed)
        try:
            source = await self.snapshots.take(live, wanted.count)
        except BaseException:
            self._give_back(row, wanted.count)
            raise
        copies = self._begin_copies(live, wanted)
        for each in copies:
            self._capturing.expect(each.environment_id, source)
        await self._tasks.finish(self._insert_all(copies, allowed), f"copy {environment_id}")
        return copies

    def _begin_copies(self, live: LiveEnvironment, wanted: NewCopies) -> Sequence[Environment]:
        now = self._clock.now()
        return [copy(live.row, wanted, now, self._server_id) for _number in range(wanted.count)]

    async def _copy_at_once(
        self, live: LiveEnvironment, wanted: NewCopies, allowed: UserQuota
    ) -> Sequence[Environment]:
        """Make them first, so that the environment stands still only while its files are copied."""
        copies = self._begin_copies(live, wanted)
        group: CopyGroup = CopyGroup(each.environment_id for each in copies)
        for each in copies:
            self._capturing.expect_copy(each.environment_id, group)
        try:
            # What has been counted has to be there, also when the caller goes away meanwhile.
            await self._tasks.finish(self._insert_all(copies, allowed), f"copy {live.environment_id}")
            if await self._copying.copy(live, group):
                await self._wait_until_kept(copies)
            elif waiting := len(await group.wait()):
                group.give(await self.snapshots.take(live, waiting), waiting)
        except BaseException as error:
            group.close()
            ends = self._end_all(copies, _NOT_COPIED)
            if ends and isinstance(error, SandgateError):
                # Whoever asks again finds their places free.
                await asyncio.wait(ends, timeout=_END_WAIT_S)
            raise
        return copies

    async def _wait_until_kept(self, copies: Sequence[Environment]) -> None:
        """Wait until it is written that they have their files: one that is found without that later on fails.

        Raises ``StoreUnavailable``.
        """
        found = [self._lifecycle.find(each.environment_id) for each in copies]
        making = [live.making for live in found if live is not None and live.making is not None]
        _done, waiting = await asyncio.wait(making, timeout=_KEPT_WAIT_S) if making else (set(), set())
        if waiting:
            raise StoreUnavailable("The copies could not be written to the database; ask again later")

    async def _insert_all(self, copies: Sequence[Environment], allowed: UserQuota) -> None:
        """All of them, or none: raises what went wrong with the first that did."""
        inserting = (self._insert_and_launch(each, None, allowed) for each in copies)
        done = await asyncio.gather(*inserting, return_exceptions=True)
        failed = [outcome for outcome in done if isinstance(outcome, BaseException)]
        if failed:
            self._end_all(copies, _NOT_ALL)
            raise failed[0]

    def _end_all(self, copies: Sequence[Environment], ending: Ending) -> "Sequence[asyncio.Task[None]]":
        found = [self._lifecycle.find(each.environment_id) for each in copies]
        return [self._lifecycle.end(live, ending) for live in found if live is not None]

    def _take_places(self, row: Environment, count: int, allowed: UserQuota, elsewhere: EnvironmentsHeld) -> None:
        """Before any work: all of them, or none. Raises ``TooManyEnvironments``, ``MemoryQuotaExceeded``."""
        taken = 0
        try:
            for _number in range(count):
                self._quota.take(row, allowed, elsewhere)
                taken += 1
        except BaseException:
            self._give_back(row, taken)
            raise

    def _give_back(self, row: Environment, count: int) -> None:
        for _number in range(count):
            self._quota.give_back(row)

    async def _find_snapshot(self, caller: Principal, wanted: NewEnvironment) -> Snapshot | None:
        """What it is to begin with. Raises ``SnapshotNotFound``, ``SnapshotUnfit``."""
        if wanted.snapshot_id is not None:
            return await self.snapshots.get(caller, wanted.snapshot_id)
        if wanted.template is None:
            raise InvalidRequest.for_fields([("template", "is needed, unless there is a snapshot_id")])
        return None
