"""The builds that are under way: each is a task that ends with what its row says from then on."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from sandgate.config.settings import Settings
from sandgate.core.audit import AuditSink, by_service
from sandgate.core.built import BuildFailed, BuiltTemplate
from sandgate.core.clock import Clock
from sandgate.core.errors import SandgateError, StoreUnavailable, TooManyBuilds
from sandgate.core.ids import TemplateId, UserId
from sandgate.core.network import NetworkRules
from sandgate.core.states import TEMPLATE_TRANSITIONS, TemplateStatus
from sandgate.core.template import Template
from sandgate.environments.builds.all_templates import AllTemplates
from sandgate.environments.builds.base import BuildTools
from sandgate.environments.builds.building import Building, Built
from sandgate.environments.builds.log import BuildLog
from sandgate.environments.builds.roots import ROOT_PREFIX, Roots
from sandgate.environments.tasks import TaskOwner
from sandgate.sandbox.base import Runtime
from sandgate.store.base import TemplateStore
from sandgate.telemetry.log import get_logger

STOPPED = "the service was stopped while it was built"
_GONE = "its files are gone"
_DELETED = "it was deleted while it was built"
_LATER_S = 1.0
_RETRY_AFTER_S = 10.0
_STOP_S = 10.0

ResultT = TypeVar("ResultT")

_log = get_logger(__name__)


class RunningBuilds:
    """Runs builds, within how many there may be at once."""

    def __init__(
        self,
        store: TemplateStore,
        runtime: Runtime,
        tools: BuildTools,
        all_templates: AllTemplates,
        clock: Clock,
        settings: Settings,
        on_fault: Callable[[BaseException], None] | None,
        audit: AuditSink | None,
    ) -> None:
        self._store = store
        self._runtime = runtime
        self._tools = tools
        self._templates = all_templates
        self._clock = clock
        self._settings = settings
        self._audit = audit
        self._tasks = TaskOwner(on_fault)
        self._building: dict[TemplateId, tuple[asyncio.Task[None], BuiltTemplate]] = {}
        # They write how they ended; once is enough.
        self._told: set[TemplateId] = set()
        self._under: dict[TemplateId, BuiltTemplate | None] = {}
        self._held: Counter[UserId] = Counter()
        self.logs: dict[TemplateId, BuildLog] = {}
        self.roots = Roots(tools, all_templates, settings)

    def path_of_log(self, template_id: TemplateId) -> Path:
        """Where what a build says is kept."""
        return self._tools.logs / f"{template_id}.log"

    def take(self, user_id: UserId) -> None:
        """Count one more of a user's. Raises ``TooManyBuilds``, with nothing counted.

        What the user has on other servers counts when the row is written.
        """
        for held, most, who, scope in (
            (self._held[user_id], self._settings.max_template_builds_per_user, "You have", "user"),
            (self._held.total(), self._settings.max_template_builds, "The server has", "server"),
        ):
            if held >= most:
                raise too_many_builds(who, most, scope)
        self._held[user_id] += 1

    def give_back(self, user_id: UserId) -> None:
        """Count one less."""
        self._held[user_id] -= 1
        if not self._held[user_id]:
            del self._held[user_id]

    def count_upon(self, row: BuiltTemplate) -> int:
        """How many builds are under way that rest on a template."""
        return sum(under is not None and under.template_id == row.template_id for under in self._under.values())

    async def finish(self, work: Coroutine[Any, Any, ResultT]) -> ResultT:
        """Do it to its end even if the caller is cancelled; raises what it raises."""
        return await self._tasks.finish(work, "begin a build")

    def is_at(self, row: BuiltTemplate) -> bool:
        """Whether it is being built."""
        return row.template_id in self._building

    def begin(
        self,
        row: BuiltTemplate,
        base: Template,
        rules: NetworkRules,
        index: str,
        under: BuiltTemplate | None = None,
        *,
        anew: bool = False,
    ) -> None:
        """Build what was counted, perhaps upon another one; it is given back at the end.

        ``anew``: nothing of it that was looked up before is taken for an answer.
        """
        self._under[row.template_id] = under
        self.roots.begin(row, anew=anew)
        task = self._tasks.spawn(self._run(row, base, rules, index), f"build {row.template_id}")
        self._building[row.template_id] = task, row

    async def settle_left(self, server_id: str) -> None:
        """Know the rows of this server; what an earlier process was at has failed. Raises ``StoreUnavailable``."""
        settled = [await self._settle(row) for row in await self._store.list(server_id)]
        rows = [row for row in settled if row is not None]
        for row in rows:
            self._templates.put(row)
        ready = {row.template_id for row in rows if row.status is TemplateStatus.READY}
        # A server that has another name since its folder was moved finds none of its rows.
        others = await self._store.list_ids(None) - {row.template_id for row in rows}
        roots = {row.root.name for row in rows if row.root is not None and row.template_id in ready}
        # Which root file systems theirs have is not known.
        await self._tools.layers.sweep([*ready, *others, *roots], spared=ROOT_PREFIX if others else "")
        known = {self.path_of_log(template_id) for template_id in (*others, *(row.template_id for row in rows))}
        await asyncio.to_thread(_sweep_logs, self._tools.logs, known)

    async def _settle(self, row: BuiltTemplate) -> BuiltTemplate | None:
        if row.status is TemplateStatus.BUILDING:
            return await self._write(row, TemplateStatus.FAILED, STOPPED)
        needed = [row.template_id, *([] if row.root is None else [row.root.name])]
        if row.status is TemplateStatus.READY and not all(map(self._tools.layers.has, needed)):
            return await self._write(row, TemplateStatus.FAILED, _GONE)
        return row

    async def cancel(self, template_id: TemplateId) -> None:
        """End a build, if there is one, and wait until it has."""
        if template_id in self._building:
            await self._cancel([template_id], _DELETED)

    async def forget(self, row: BuiltTemplate) -> None:
        """Remove all that there is of a template whose row is gone."""
        self._templates.remove(row.template_id)
        await self._tools.layers.drop(row.template_id)
        if row.root is not None:
            await self.roots.drop_unused(row.root)
        await asyncio.to_thread(self.path_of_log(row.template_id).unlink, missing_ok=True)

    def owners(self) -> Set[UserId]:
        """Everybody who has a build under way that was not told to end."""
        return {row.owner_id for _task, row in self._building.values() if row.template_id not in self._told}

    def end_all_of(self, owner_id: UserId, reason: str) -> int:
        """Begin to end the builds of a user; answers how many."""
        found = [row.template_id for _task, row in self._building.values() if row.owner_id == owner_id]
        found = [template_id for template_id in found if template_id not in self._told]
        for template_id in found:
            self._told.add(template_id)
            self._building[template_id][0].cancel(reason)
        return len(found)

    async def stop(self) -> None:
        """End all builds."""
        if self._building:
            await self._cancel(list(self._building), STOPPED)
        await self._tasks.settle(_STOP_S)

    async def _cancel(self, template_ids: Sequence[TemplateId], reason: str) -> None:
        working = [self._building[template_id] for template_id in template_ids]
        for task, _row in working:
            task.cancel(reason)
        await asyncio.wait([task for task, _row in working], timeout=_STOP_S)
        for task, row in working:
            if task.done() and row.template_id in self._building:
                # It had not begun.
                self._clear_up(row, None)

    async def _run(self, row: BuiltTemplate, base: Template, rules: NetworkRules, index: str) -> None:
        log: BuildLog | None = None
        try:
            log = self.logs[row.template_id] = self._open_log(row)
            built = await Building(
                self._runtime, self._tools, self._settings, row, base, rules, index, log,
                self._under[row.template_id], self.roots,
            ).run()  # fmt: skip
        except BuildFailed as failed:
            await self._conclude(row, log, None, str(failed))
        except SandgateError as fault:
            await self._conclude(row, log, None, f"the service failed at it: {fault.message}")
        except OSError as error:
            await self._conclude(row, log, None, f"the service failed at it: {error.strerror}")
        except asyncio.CancelledError as cancelled:
            await self._conclude(row, log, None, str(cancelled) or STOPPED)
        except Exception as error:
            # What a build brings up is the affair of its template, never of the whole server.
            _log.error("build met a bug", template_id=row.template_id, exc_info=error)
            await self._conclude(row, log, None, "the service failed at it; its log says how")
        else:
            await self._conclude(row, log, built, None)
        finally:
            self._clear_up(row, log)
            await asyncio.shield(self.roots.end(row))

    async def _conclude(
        self, row: BuiltTemplate, log: BuildLog | None, built: Built | None, reason: str | None
    ) -> None:
        """Write how it went, also when it is told to end meanwhile; what is done after it comes after it."""
        ending = self._tasks.spawn(self._finish(row, log, built, reason), f"end of build {row.template_id}")
        try:
            await asyncio.shield(ending)
        except asyncio.CancelledError:
            await asyncio.wait({ending})
            raise

    def _open_log(self, row: BuiltTemplate) -> BuildLog:
        self._tools.logs.mkdir(mode=0o700, parents=True, exist_ok=True)
        return BuildLog(self.path_of_log(row.template_id), self._settings.max_template_log_bytes)

    async def _finish(self, row: BuiltTemplate, log: BuildLog | None, built: Built | None, reason: str | None) -> None:
        """The row says how it went before anybody who follows is told of the end."""
        if log is not None:
            log.say("ready" if reason is None else f"failed: {reason}")
        status = TemplateStatus.READY if built is not None else TemplateStatus.FAILED
        ended = await self._insist(row, status, reason, built)
        if ended is None:
            # It was deleted meanwhile, perhaps with its owner; what it came to is of use to nobody.
            await self.forget(row)
            return
        row = ended
        self._templates.put(row)
        _log.info("template built", template_id=row.template_id, status=status.value, reason=reason)
        if self._audit is not None:
            details = {"owner_id": row.owner_id, "template": row.reference, "status": status.value, "reason": reason}
            self._audit.note(by_service("finish_template", self._clock.now(), row.template_id, details))

    def _clear_up(self, row: BuiltTemplate, log: BuildLog | None) -> None:
        """It is over, however that came."""
        self.give_back(row.owner_id)
        del self._building[row.template_id]
        self._told.discard(row.template_id)
        self._under.pop(row.template_id, None)
        if log is not None:
            log.end()
            del self.logs[row.template_id]

    async def _insist(
        self, row: BuiltTemplate, status: TemplateStatus, reason: str | None, built: Built | None
    ) -> BuiltTemplate | None:
        """Write it, again and again while the database is away; None when there is no such row any more."""
        while True:
            try:
                return await self._write(row, status, reason, built)
            except StoreUnavailable as fault:
                _log.warning("end of a build not written yet", template_id=row.template_id, reason=fault.message)
            await asyncio.sleep(_LATER_S)

    async def _write(
        self, row: BuiltTemplate, status: TemplateStatus, reason: str | None, built: Built | None = None
    ) -> BuiltTemplate | None:
        expected = [source for source, targets in TEMPLATE_TRANSITIONS.items() if status in targets]
        at = self._clock.now()
        size, lock, root = (None, None, None) if built is None else (built.size, built.lock, built.root)
        reason = None if reason is None else reason[:2000]
        if not await self._store.finish(
            row.template_id, status, expected=expected, at=at, reason=reason, size=size, lock=lock, root=root
        ):
            return None
        files, size_bytes = (None, None) if size is None else (size.files, size.size_bytes)
        return replace(
            row, status=status, status_reason=reason, finished_at=at, files=files, size_bytes=size_bytes, lock=lock,
            root=root,
        )  # fmt: skip


def too_many_builds(who: str, most: int, scope: str) -> TooManyBuilds:
    """The refusal of one more."""
    return TooManyBuilds(
        f"{who} {most} templates that are being built, the most at once; ask again when one is done",
        {"limit": most, "scope": scope},
        retry_after_s=_RETRY_AFTER_S,
    )


def _sweep_logs(folder: Path, known: set[Path]) -> None:
    """Remove the logs of templates that are there no more."""
    for path in folder.glob("*.log") if folder.is_dir() else ():
        if path not in known:
            path.unlink(missing_ok=True)
