"""Volumes of users: made, seen, given to new environments, and deleted."""

import asyncio
from collections.abc import Sequence

from sandgate.config.settings import Settings
from sandgate.core.clock import Clock
from sandgate.core.errors import (
    EnvironmentNotFound,
    InvalidRequest,
    LimitTooHigh,
    MechanismFault,
    SandboxFailed,
    UserNotFound,
    VolumeElsewhere,
    VolumeInUse,
    VolumeNameTaken,
    VolumeNotFound,
    VolumeQuotaExceeded,
    VolumesUnavailable,
)
from sandgate.core.fair_slots import FairSlots
from sandgate.core.idempotency import Keep
from sandgate.core.ids import EnvironmentId, UserId, VolumeId, make_volume_id
from sandgate.core.limits import MIB
from sandgate.core.page import Page, PageRequest
from sandgate.core.principal import Principal
from sandgate.core.quota import UserQuota
from sandgate.core.states import Isolation
from sandgate.core.volume import MountedVolume, Volume, VolumeView, VolumeWish, find_overlap, find_path_problem
from sandgate.environments.access import check_can_write
from sandgate.environments.base import Environments
from sandgate.environments.quotas import UserQuotas
from sandgate.sandbox.base import VolumeKeeper
from sandgate.store.base import VolumeRefusal, VolumeStore
from sandgate.telemetry.log import get_logger
from sandgate.telemetry.rounds import go_round

# Each is a process of the launcher's, and some writing to its disk.
_MADE_AT_ONCE = 2
# How often environments that have a volume are looked for, while they are ended for it.
_ROUNDS = 3
_SWEEP_S = 60.0
# Ids in a message.
_SHOWN = 5

_log = get_logger(__name__)


def volume_not_found(volume_id: VolumeId | str) -> VolumeNotFound:
    """The one answer for what is unknown, deleted or another user's."""
    return VolumeNotFound(f"You have no volume {volume_id}; GET the list of volumes for those you have")


class VolumeGiver:
    """Finds the volumes that are asked for with a new environment."""

    def __init__(self, store: VolumeStore, keeper: VolumeKeeper, server_id: str) -> None:
        self._store = store
        self._keeper = keeper
        self._server_id = server_id

    def check(self, isolation: Isolation) -> None:
        """Raises ``VolumesUnavailable`` for a class whose environments can have none here."""
        lack = self._keeper.find_lack(isolation)
        if lack is not None:
            raise VolumesUnavailable(
                f"Environments of isolation class {isolation} have no volumes on this server: {lack}; on its machine "
                "`sandgate doctor` says what is missing",
                {"isolation": isolation.value, "reason": lack},
            )

    async def choose(
        self, owner_id: UserId, wishes: Sequence[VolumeWish], isolation: Isolation
    ) -> tuple[MountedVolume, ...]:
        """The owner's volumes of these names.

        Raises ``InvalidRequest``, ``VolumesUnavailable``, ``VolumeElsewhere``.
        """
        if not wishes:
            return ()
        self.check(isolation)
        _check_places(wishes)
        there = await self._store.find_named(owner_id, [wish.name for wish in wishes])
        missing = [(f"volumes[{place}].name", wish.name) for place, wish in enumerate(wishes) if wish.name not in there]
        if missing:
            raise InvalidRequest.for_fields([(field, f"you have no volume {name}") for field, name in missing])
        for row in there.values():
            check_volume_is_here(row, self._server_id)
        return tuple(
            MountedVolume(there[wish.name].volume_id, wish.name, wish.path, wish.read_only, there[wish.name].size_bytes)
            for wish in wishes
        )


def _check_places(wishes: Sequence[VolumeWish]) -> None:
    """Raises ``InvalidRequest``."""
    problems = []
    for place, wish in enumerate(wishes):
        problem = find_path_problem(wish.path)
        if problem is not None:
            problems.append((f"volumes[{place}].path", problem))
        if wish.name in [other.name for other in wishes[:place]]:
            problems.append((f"volumes[{place}].name", f"{wish.name} is asked for twice; it can be at one path"))
    overlap = None if problems else find_overlap([wish.path for wish in wishes])
    if overlap is not None:
        problems.append(("volumes", f"{overlap[1]} is in {overlap[0]}, or the same; no volume can be in another"))
    if problems:
        raise InvalidRequest.for_fields(problems)


def check_volume_is_here(row: Volume, server_id: str) -> None:
    """Raises ``VolumeElsewhere`` for one on another server than this one."""
    if row.server_id not in (None, server_id):
        raise VolumeElsewhere(
            f"Volume {row.volume_id} is on another server ({row.server_id}); ask that one", {"server_id": row.server_id}
        )


class VolumeService:
    """See :class:`sandgate.environments.volume_cases.Volumes`."""

    def __init__(
        self,
        store: VolumeStore,
        keeper: VolumeKeeper,
        environments: Environments,
        quotas: UserQuotas,
        giver: VolumeGiver,
        clock: Clock,
        settings: Settings,
        server_id: str,
    ) -> None:
        self._store = store
        self._keeper = keeper
        self._environments = environments
        self._quotas = quotas
        self._giver = giver
        self._clock = clock
        self._settings = settings
        self._server_id = server_id
        self._making = FairSlots(_MADE_AT_ONCE, 1)
        self._measuring = asyncio.Semaphore(_MADE_AT_ONCE)

    async def create(
        self, caller: Principal, name: str, size_bytes: int | None, keep: Keep[VolumeView] | None = None
    ) -> VolumeView:
        """See ``Volumes``."""
        check_can_write(caller)
        self._giver.check(Isolation.STANDARD)
        size = size_bytes or self._settings.default_volume_bytes
        if size > self._settings.max_volume_bytes:
            asked, most = size // MIB, self._settings.max_volume_bytes // MIB
            raise LimitTooHigh(
                f"A volume of {asked} MiB is asked for, and {most} is the most",
                {"limits": {"size_mb": {"asked": asked, "ceiling": most}}, "scope": "server"},
            )
        row = Volume(make_volume_id(), caller.user_id, name, size, self._clock.now(), self._server_id)
        view = VolumeView(row, 0, ())
        async with self._making.place(caller.user_id):
            await self._check_room(row)
            try:
                # First, so that what is answered, and kept to be answered again, is there.
                await self._keeper.make(row.volume_id, size)
            except BaseException:
                await self._discard(row)
                raise
        try:
            allowed = await self._allowed(caller.user_id)
            refusal = await self._store.insert(row, *allowed, keep and keep(view))
        except BaseException:
            # The row may have been written all the same; its volume is made again then, when somebody needs it.
            await self._discard(row)
            raise
        if refusal is not None:
            await self._discard(row)
            raise await self._explain(row, refusal)
        _log.info("volume created", volume_id=row.volume_id, size_bytes=size)
        return view

    async def _discard(self, row: Volume) -> None:
        """Take away what nobody has. If that fails an empty image is left, which is not worth a request."""
        try:
            await self._keeper.remove(row.volume_id)
        except MechanismFault as fault:
            _log.warning("volume not removed", volume_id=row.volume_id, reason=fault.message)

    async def _allowed(self, owner_id: UserId) -> tuple[int, int]:
        """How many volumes an owner may have, and of which size together."""
        allowed: UserQuota = await self._quotas.allowed(owner_id)
        return allowed.volumes or 0, allowed.volume_bytes or 0

    async def _check_room(self, row: Volume) -> None:
        """Refuse what will be refused before anything is made."""
        held, (most, most_bytes) = await self._store.held(row.owner_id), await self._allowed(row.owner_id)
        if await self._store.find_named(row.owner_id, [row.name]):
            raise await self._explain(row, VolumeRefusal.NAME_TAKEN)
        if held.count >= most:
            raise await self._explain(row, VolumeRefusal.TOO_MANY)
        if held.size_bytes + row.size_bytes > most_bytes:
            raise await self._explain(row, VolumeRefusal.TOO_LARGE)

    async def _explain(
        self, row: Volume, refusal: VolumeRefusal
    ) -> VolumeNameTaken | VolumeQuotaExceeded | UserNotFound:
        most, most_bytes = await self._allowed(row.owner_id)
        if refusal is VolumeRefusal.NO_USER:
            return UserNotFound(f"There is no user {row.owner_id} to keep a volume for")
        if refusal is VolumeRefusal.NAME_TAKEN:
            return VolumeNameTaken(f"You have a volume {row.name}; take another name", {"name": row.name})
        if refusal is VolumeRefusal.TOO_MANY:
            return VolumeQuotaExceeded(
                f"You have {most} volumes, which is the most allowed; delete one",
                {"limit": most, "used": most, "scope": "count"},
            )
        held = await self._store.held(row.owner_id)
        limit, used, asked = most_bytes // MIB, held.size_bytes // MIB, row.size_bytes // MIB
        return VolumeQuotaExceeded(
            f"Your volumes have {used} MiB together and this one asks for {asked}, but {limit} is the most allowed; "
            "delete one, or ask for less",
            {"limit": limit, "used": used, "asked": asked, "scope": "size_mb"},
        )

    async def get(self, caller: Principal, volume_id: VolumeId) -> VolumeView:
        """See ``Volumes``."""
        (view,) = await self._view([await self._find(caller, volume_id)])
        return view

    async def list(self, caller: Principal, page: PageRequest, name: str | None = None) -> Page[VolumeView]:
        """See ``Volumes``."""
        rows = await self._store.list(None if caller.is_admin else caller.user_id, name, page)
        return Page(tuple(await self._view(rows.items)), rows.next_before_id)

    async def _find(self, caller: Principal, volume_id: VolumeId) -> Volume:
        row = await self._store.find(volume_id)
        if row is None or row.condemned or (row.owner_id != caller.user_id and not caller.is_admin):
            raise volume_not_found(volume_id)
        return row

    async def _view(self, rows: Sequence[Volume]) -> Sequence[VolumeView]:
        if not rows:
            return []
        users = await self._store.find_users([row.volume_id for row in rows])
        here = [row.volume_id for row in rows if row.server_id in (None, self._server_id)]
        try:
            async with self._measuring:
                used = await self._keeper.measure(here) if here else {}
        except MechanismFault as fault:
            # What is known is told; nobody deletes anything by this figure.
            _log.warning("volumes not measured", reason=fault.message)
            used = {}
        return [VolumeView(row, used.get(row.volume_id), users.get(row.volume_id, ())) for row in rows]

    async def delete(self, caller: Principal, volume_id: VolumeId, *, force: bool = False) -> Sequence[str]:
        """See ``Volumes``."""
        check_can_write(caller)
        row = await self._find(caller, volume_id)
        check_volume_is_here(row, self._server_id)
        ended: list[str] = []
        users: Sequence[EnvironmentId] | None = ()
        for _round in range(_ROUNDS):
            users = await self._store.begin_delete(volume_id)
            if users is None:
                break
            if not users:
                await self._remove(row)
                _log.info("volume deleted", volume_id=volume_id)
                return ended
            if not force:
                break
            for environment_id in users:
                try:
                    await self._environments.delete(caller, environment_id)
                except EnvironmentNotFound:
                    continue
                ended.append(environment_id)
        if users is None:
            raise volume_not_found(volume_id)
        some = ", ".join(users[:_SHOWN]) + (" and more" if len(users) > _SHOWN else "")
        raise VolumeInUse(
            f"Volume {volume_id} is mounted in live environments: {some}; delete those first, or ask with force, which "
            "ends them",
            {"environment_ids": list(users)[:100]},
        )

    async def _remove(self, row: Volume) -> None:
        """What a crash leaves of this is done by :meth:`sweep`."""
        await self._keeper.remove(row.volume_id)
        await self._store.delete(row.volume_id)

    async def run(self, interval_s: float = _SWEEP_S) -> None:
        """Sweep every ``interval_s`` seconds, until cancelled."""
        await go_round(self.sweep, interval_s, _log, "volumes not swept", at_once=True)

    async def sweep(self) -> int:
        """Go on with what was begun to be deleted, and delete what belongs to nobody any more; how many went.

        Raises ``StoreUnavailable``, ``LauncherUnavailable``, ``SandboxFailed``.
        """
        condemned = await self._store.list_condemned(self._server_id)
        users = await self._store.find_users([row.volume_id for row in condemned]) if condemned else {}
        # Of a user who is gone the last environments may still have some.
        free = [row for row in condemned if row.volume_id not in users]
        return sum([await self._try_remove(row) for row in free])

    async def _try_remove(self, row: Volume) -> bool:
        """Whether it went; one that cannot be removed keeps no other from it."""
        try:
            await self._remove(row)
        except SandboxFailed as fault:
            _log.warning("volume not removed", volume_id=row.volume_id, reason=fault.message)
            return False
        return True
