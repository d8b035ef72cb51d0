"""Rows of environments."""

from collections.abc import Collection, Sequence
from dataclasses import fields
from datetime import datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Executable, Row, Select

from sandgate.core.environment import Environment
from sandgate.core.errors import VolumeNotFound
from sandgate.core.idempotency import KeptAnswer
from sandgate.core.ids import EnvironmentId, UserId, VolumeId
from sandgate.core.limits import Limits, fields_of
from sandgate.core.network import NetworkRules
from sandgate.core.page import Page, PageRequest
from sandgate.core.quota import EnvironmentsHeld, UserQuota
from sandgate.core.states import LIVE_ENVIRONMENT_STATUSES, EnvironmentStatus, Isolation, OnTimeout, sources_of
from sandgate.core.variables import Variables
from sandgate.core.volume import MountedVolume
from sandgate.store.base import EnvironmentFilter
from sandgate.store.column_types import encode_pair
from sandgate.store.database import Database
from sandgate.store.environments_held import find_excess, measure_elsewhere, turn_of
from sandgate.store.idempotency import keep_answer
from sandgate.store.schema import environments
from sandgate.store.statements import HotStatement, changed, insert, newest_first, page_of, page_parameters
from sandgate.store.volumes import hold_volumes, note_users

_LIVE = sorted(LIVE_ENVIRONMENT_STATUSES)
_LIMITS = frozenset(field.name for field in fields(Limits))
_FIELDS = tuple(field.name for field in fields(Environment))

_columns = environments.c
_is_this = _columns.environment_id == sa.bindparam("wanted_id")

_INSERT = HotStatement(insert(environments))
_FIND = sa.select(environments).where(_is_this)
# A live row is never a deleted one; saying so lets the partial indexes serve.
_is_live = sa.and_(_columns.status.in_(_LIVE), _columns.deleted_at.is_(None))
_LIST_LIVE = sa.select(environments).where(_is_live).order_by(_columns.environment_id)
_LIST_LIVE_ON = _LIST_LIVE.where(
    sa.or_(_columns.server_id == sa.bindparam("wanted_server"), _columns.server_id.is_(None))
)
_FAIL_ALL_OF = (
    sa.update(environments)
    .where(_is_live, _columns.server_id == sa.bindparam("wanted_server"))
    .values(
        status=EnvironmentStatus.FAILED,
        status_reason=sa.bindparam("reason"),
        ended_at=sa.bindparam("at", type_=_columns.ended_at.type),
    )
)
_COUNT_LIVE = sa.select(sa.func.count()).select_from(environments).where(_is_live)
_COUNT_LIVE_OF_OWNER = _COUNT_LIVE.where(_columns.owner_id == sa.bindparam("owner_id"))
_DETAILS = ("name", "metadata", "timeout_s", "expires_at", "remaining_s", "on_timeout", "idle_timeout_s")
_UPDATE_DETAILS = sa.update(environments).where(_is_this, _is_live)
_NOTE_RUNNING = HotStatement(
    sa.update(environments)
    .where(_is_this, _columns.status == sa.bindparam("creating"), _columns.deleted_at.is_(None))
    .values(status=sa.bindparam("running"))
)
_WRITE_PAUSE = sa.update(environments).where(_is_this, _is_live)
_TRANSITION = sa.update(environments).where(_is_this, _columns.deleted_at.is_(None))


class SqlEnvironmentStore:
    """See :class:`sandgate.store.base.EnvironmentStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(
        self, environment: Environment, answer: KeptAnswer | None = None, allowed: UserQuota | None = None
    ) -> EnvironmentsHeld | None:
        """Add a row, and what is answered about it; or nothing, and what an owner has who would have too much then.

        Raises ``VolumeNotFound`` when one of its volumes is gone.
        """

        def work(connection: Connection) -> EnvironmentsHeld | bool:
            held = None if allowed is None else find_excess(connection, environment, allowed)
            return held or _do_insert(connection, row, volumes, answer)

        row, volumes = _row_of(environment), [volume.volume_id for volume in environment.volumes]
        turn = None if allowed is None else turn_of(environment.owner_id)
        written = await self._database.write(work, turn=turn)
        if not written:
            raise VolumeNotFound("One of the volumes was deleted just now; GET the list of volumes for those you have")
        return written if isinstance(written, EnvironmentsHeld) else None

    async def find(self, environment_id: EnvironmentId) -> Environment | None:
        """The row, deleted or not."""
        row = await self._database.read(
            lambda connection: connection.execute(_FIND, {"wanted_id": environment_id}).one_or_none()
        )
        return None if row is None else _parse(row)

    async def list(self, wanted: EnvironmentFilter, page: PageRequest) -> Page[Environment]:
        """A page, newest first, in one statement: an environment that changes its status meanwhile shows once."""
        if wanted.statuses is not None and not wanted.statuses:
            return Page((), None)
        statement, parameters = _list_statement(wanted, page)
        rows = await self._database.read(lambda connection: connection.execute(statement, parameters).all())
        return page_of(rows, page, _parse)

    async def list_live(self, server_id: str | None = None) -> Sequence[Environment]:
        """All rows whose status is live, or those of one server, oldest first.

        Rows that name no server are every server's.
        """
        statement = _LIST_LIVE if server_id is None else _LIST_LIVE_ON
        parameters = {"wanted_server": server_id}
        rows = await self._database.read(lambda connection: connection.execute(statement, parameters).all())
        return [_parse(row) for row in rows]

    async def count_live(self, owner_id: UserId | None = None) -> int:
        """How many live environments the owner (None: everybody) has."""
        statement = _COUNT_LIVE if owner_id is None else _COUNT_LIVE_OF_OWNER
        parameters = {} if owner_id is None else {"owner_id": owner_id}
        return await self._database.read(lambda connection: connection.execute(statement, parameters).scalar_one())

    async def held_elsewhere(self, owner_id: UserId, server_id: str) -> EnvironmentsHeld:
        """What the owner has of live environments on other servers than this one."""
        return await self._database.read(lambda connection: measure_elsewhere(connection, owner_id, server_id))

    async def update_details(self, environment: Environment) -> bool:
        """Write what a PATCH may change of it; False when the row is no longer live."""
        values = {name: getattr(environment, name) for name in _DETAILS}
        values["network"] = None if environment.network is None else environment.network.to_json()
        parameters = {"wanted_id": environment.environment_id, **values}
        return await self._database.write(
            lambda connection: changed(connection.execute(_UPDATE_DETAILS, parameters)), repeatable=True
        )

    async def write_pause(self, environment: Environment) -> bool:
        """Write whether it stands still, since when, and until when it lives; False when it is no longer live."""
        names = ("status", "paused_at", "remaining_s", "expires_at")
        values = {name: getattr(environment, name) for name in names}
        statement = _WRITE_PAUSE.values(values)
        return await self._database.write(
            lambda connection: changed(connection.execute(statement, {"wanted_id": environment.environment_id})),
            repeatable=True,
        )

    async def note_running(self, environment_ids: Collection[EnvironmentId]) -> None:
        """Set those that are ``creating`` to ``running``, and leave the others as they are."""
        change = {"creating": EnvironmentStatus.CREATING, "running": EnvironmentStatus.RUNNING}
        rows = [{"wanted_id": environment_id, **change} for environment_id in environment_ids]
        await self._database.write(lambda connection: _NOTE_RUNNING.run_all(connection, rows), repeatable=True)

    async def transition(
        self,
        environment_id: EnvironmentId,
        target: EnvironmentStatus,
        *,
        expected: Collection[EnvironmentStatus],
        at: datetime,
        reason: str | None = None,
        deleted: bool = False,
    ) -> bool:
        """Compare and set: False, and nothing written, unless the status is in ``expected`` and may go to ``target``.

        What has ended before keeps its ``ended_at``, what is deleted without a reason its reason, and what was
        deleted before stays as it is. Raises ``ValueError`` for a deleted environment that lives.
        """
        if deleted and target in LIVE_ENVIRONMENT_STATUSES:
            raise ValueError(f"An environment that is {target} cannot be deleted at the same time: {environment_id}.")
        allowed = sorted(sources_of(target).intersection(expected))
        if not allowed:
            return False
        statement = _transition_statement(
            len(allowed),
            ends=target not in LIVE_ENVIRONMENT_STATUSES,
            deleted=deleted,
            keeps_reason=deleted and reason is None,
        )
        parameters: dict[str, Any] = {"wanted_id": environment_id, "target": target, "reason": reason, "at": at}
        parameters |= {f"allowed_{number}": status for number, status in enumerate(allowed)}
        return await self._database.write(lambda connection: statement.run(connection, parameters) > 0)


@lru_cache
def _transition_statement(allowed: int, *, ends: bool, deleted: bool, keeps_reason: bool) -> HotStatement:
    """From one of so many statuses."""
    at = sa.bindparam("at", type_=_columns.ended_at.type)
    values: dict[str, Any] = {"status": sa.bindparam("target")}
    if not keeps_reason:
        values["status_reason"] = sa.bindparam("reason")
    if ends:
        values["ended_at"] = sa.func.coalesce(_columns.ended_at, at)
    if deleted:
        values["deleted_at"] = at
    sources = (_columns.status == sa.bindparam(f"allowed_{number}") for number in range(allowed))
    return HotStatement(_TRANSITION.where(sa.or_(*sources)).values(values))


def _list_statement(wanted: EnvironmentFilter, page: PageRequest) -> tuple[Executable, dict[str, Any]]:
    equal = {"owner_id": wanted.owner_id, "template": wanted.template, "name": wanted.name}
    parameters = {name: value for name, value in equal.items() if value is not None}
    statuses = sorted(wanted.statuses or ())
    shape = (tuple(parameters), len(statuses), page.before_id is not None, len(wanted.metadata))
    parameters |= {f"label_{number}": encode_pair(*pair) for number, pair in enumerate(wanted.metadata)}
    parameters |= {f"status_{number}": status for number, status in enumerate(statuses)}
    return _statement_of_shape(*shape), parameters | page_parameters(page)


@lru_cache(maxsize=256)
def _statement_of_shape(equal: tuple[str, ...], statuses: int, has_before: bool, labels: int) -> Executable:
    """A page for each status, merged: an index serves each, whereas a list of statuses would read all of them."""
    page = PageRequest(before_id="" if has_before else None)
    base = sa.select(environments).where(_columns.deleted_at.is_(None))
    for name in equal:
        base = base.where(_columns[name] == sa.bindparam(name))
    for number in range(labels):
        base = base.where(_has_label(sa.bindparam(f"label_{number}", type_=sa.Text)))
    if statuses == 0:
        return newest_first(base, _columns.environment_id, page)
    parts = [
        newest_first(base.where(_columns.status == sa.bindparam(f"status_{number}")), _columns.environment_id, page)
        for number in range(statuses)
    ]
    return _merge(parts)


def _has_label(pair: sa.BindParameter[str]) -> sa.ColumnElement[bool]:
    """Whether a pair is in the text of the labels, in a way that every database has, and that knows case.

    Quotes within names and values are escaped there, so that what looks like a pair is one.
    """
    text = sa.type_coerce(_columns.metadata, sa.Text)
    return sa.func.replace(text, pair, "", type_=sa.Text) != text


def _merge(parts: list[Select[Any]]) -> Executable:
    if len(parts) == 1:
        return parts[0]
    merged = sa.union_all(*(sa.select(part.subquery()) for part in parts))
    return merged.order_by(merged.selected_columns.environment_id.desc()).limit(sa.bindparam("most"))


def fail_all_of(connection: Connection, server_id: str, at: datetime, reason: str) -> int:
    """Inside a transaction: a server is gone, and all that was on it; answers how many were."""
    return connection.execute(_FAIL_ALL_OF, {"wanted_server": server_id, "at": at, "reason": reason}).rowcount


def _do_insert(
    connection: Connection, row: dict[str, Any], volumes: Sequence[VolumeId], answer: KeptAnswer | None
) -> bool:
    if volumes and not hold_volumes(connection, volumes):
        return False
    _INSERT.run(connection, row)
    if volumes:
        note_users(connection, row["environment_id"], volumes)
    keep_answer(connection, answer)
    return True


def _row_of(environment: Environment) -> dict[str, Any]:
    row = {name: getattr(environment, name) for name in _FIELDS}
    row["limits"] = fields_of(environment.limits)
    row["network"] = None if environment.network is None else environment.network.to_json()
    row["variables"] = environment.variables.to_row()
    row["volumes"] = [volume.to_json() for volume in environment.volumes] or None
    return row


def _parse(row: Row[Any]) -> Environment:
    values = dict(row._mapping)
    values["isolation"] = Isolation(values["isolation"])
    values["status"] = EnvironmentStatus(values["status"])
    values["on_timeout"] = OnTimeout(values["on_timeout"] or OnTimeout.DELETE)
    # A row may have been written by a version that knew other limits.
    values["limits"] = Limits(**{name: value for name, value in values["limits"].items() if name in _LIMITS})
    if values["network"] is not None:
        values["network"] = NetworkRules.from_json(values["network"])
    values["variables"] = Variables.of_row(values["variables"])
    values["volumes"] = tuple(map(MountedVolume.from_json, values["volumes"] or ()))
    return Environment(**values)
