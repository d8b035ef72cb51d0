"""The use cases of templates that are built."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from urllib.parse import urlsplit

from sandgate.config.settings import Settings
from sandgate.core.built import BuiltTemplate
from sandgate.core.clock import Clock
from sandgate.core.errors import (
    Forbidden,
    InvalidRequest,
    IsolationUnavailable,
    NetworkNotOffered,
    RecipeTooLarge,
    ServiceDraining,
    TemplateInUse,
    TooManyNetworkRules,
    TooManyTemplates,
)
from sandgate.core.ids import make_template_id
from sandgate.core.network import HostRule, NetworkRules
from sandgate.core.principal import Principal
from sandgate.core.recipe import Recipe
from sandgate.core.states import Isolation, TemplateStatus
from sandgate.core.template import Template
from sandgate.environments.access import check_can_write
from sandgate.environments.builds.all_templates import AllTemplates
from sandgate.environments.builds.base import EnvironmentFacts, NewTemplate, RunFacts
from sandgate.environments.builds.building import environ_bytes
from sandgate.environments.builds.leaving import Leaving
from sandgate.environments.builds.log import LogEvents, read_log
from sandgate.environments.builds.running_builds import RunningBuilds, too_many_builds
from sandgate.environments.granting import grant
from sandgate.sandbox.base import Runtime
from sandgate.store.base import TemplateRefusal, TemplateStore

# What the launcher is told of with each sandbox that is made has to fit one of its messages.
_MOST_ENV_BYTES = 8192
_MOST_PRELOAD_BYTES = 8192
_MOST_PARTS = 200
_MOST_FILES_BYTES = 8 * 1024**2
_RETRY_AFTER_S = 60.0
# What steps have run in is on its way out when their runs are over, and what was made for some in vain soon after.
_PATIENCE_S = 15.0
_PAUSE_S = 0.1
_APT_NEEDS = (
    "needs a base with a root file system of its own in which there are apt and dpkg, such as an image of Debian: "
    '{"image": …}, {"tar": …}, or a template upon one; others take packages of Python only, by `packages`'
)


class TemplateService:
    """Implements :class:`sandgate.environments.builds.base.BuiltTemplates`. ``start`` comes first, ``stop`` last."""

    def __init__(
        self,
        store: TemplateStore,
        all_templates: AllTemplates,
        running: RunningBuilds,
        runtime: Runtime,
        clock: Clock,
        settings: Settings,
        server_id: str,
        environments: EnvironmentFacts,
    ) -> None:
        self._store = store
        self._templates = all_templates
        self._running = running
        self._runtime = runtime
        self._clock = clock
        self._settings = settings
        self._server_id = server_id
        self._environments = environments
        self._runs: RunFacts | None = None
        self.leaving = Leaving(store, all_templates, running, lambda row: bool(self._count_uses(row)), server_id)
        self._draining = False

    def heed(self, runs: RunFacts) -> None:
        """Keep what these need, too."""
        self._runs = runs

    @property
    def holdings(self) -> RunningBuilds:
        """The builds that are under way, by who they belong to."""
        return self._running

    async def start(self) -> None:
        """Know what was built before. Raises ``StoreUnavailable``."""
        await self._running.settle_left(self._server_id)

    async def stop(self) -> None:
        """Take no new work, and end what is being built."""
        self._draining = True
        await self._running.stop()

    async def build(self, caller: Principal, wanted: NewTemplate) -> Template:
        """See ``BuiltTemplates``."""
        check_can_write(caller)
        if wanted.is_public and not caller.is_admin:
            raise Forbidden("Only an admin may build a template for everybody; leave out `public`")
        if self._draining:
            raise ServiceDraining("The service is stopping and takes no new work; ask again when it is back")
        wanted, under = self._resolve(caller, wanted)
        recipe = wanted.recipe
        base = self._templates.rooted() if recipe.has_own_root else self._templates.own.check(recipe.lowest)
        self._templates.check_name(wanted.name, caller.user_id, is_public=wanted.is_public)
        self._check_size(recipe)
        _check_apt(recipe)
        grant(base.limits, recipe.limits, await self._environments.ceilings_of(caller.user_id))
        index = recipe.index or self._settings.package_index
        rules = self._rules(recipe, index)
        rests_on = [base.language_version, base.interpreter or "", *([under.digest] if under else [])]
        digest = recipe.digest(" ".join(rests_on), index)
        same = self._find_same(caller, wanted, digest)
        if same is not None and not wanted.rebuild:
            return self._templates.get(same.reference, caller.user_id)
        # Once there may be a row its build has to follow, also when the caller goes away meanwhile.
        row = await self._running.finish(self._insert(caller, wanted, base, digest, rules, index, under))
        return self._templates.get(row.reference, caller.user_id)

    def _resolve(self, caller: Principal, wanted: NewTemplate) -> tuple[NewTemplate, BuiltTemplate | None]:
        """With what comes from a base that was built, and that. Raises ``UnknownTemplate``, ``TemplateUnavailable``."""
        if wanted.recipe.has_own_root:
            return wanted, None
        under = self._templates.check(wanted.recipe.base, caller.user_id).built
        if under is None:
            return wanted, None
        return replace(wanted, recipe=wanted.recipe.upon(under.recipe, under.reference)), under

    def list(self, caller: Principal, name: str | None = None) -> Sequence[Template]:
        """See ``BuiltTemplates``."""
        if name is None:
            return self._templates.list_for(caller.user_id, sees_all=caller.is_admin)
        own = [template for template in self._templates.own.list() if template.name == name]
        return own or self._templates.versions(name, caller.user_id, sees_all=caller.is_admin)

    def get(self, caller: Principal, name: str) -> Template:
        """See ``BuiltTemplates``."""
        return self._templates.look(name, caller.user_id, sees_all=caller.is_admin)

    def awaits_upload(self, template: Template) -> bool:
        """See ``BuiltTemplates``."""
        return template.built is not None and self._running.roots.awaits(template.built.template_id)

    async def upload(self, caller: Principal, name: str, archive: AsyncIterator[bytes]) -> Template:
        """See ``BuiltTemplates``."""
        row = self._find_own(caller, name)
        check_can_write(caller)
        await self._running.roots.receive(row, archive)
        return self._templates.look(row.template_id, caller.user_id, sees_all=caller.is_admin)

    def follow(self, caller: Principal, name: str, position: int) -> LogEvents:
        """See ``BuiltTemplates``."""
        row = self._find_own(caller, name)
        log = self._running.logs.get(row.template_id)
        return LogEvents(log, self._running.path_of_log(row.template_id), position)

    async def read_log(self, caller: Principal, name: str) -> str:
        """See ``BuiltTemplates``."""
        row = self._find_own(caller, name)
        log = self._running.logs.get(row.template_id)
        kept = None if log is None else log.kept
        return await asyncio.to_thread(read_log, kept, self._running.path_of_log(row.template_id))

    async def delete(self, caller: Principal, name: str, *, force: bool = False) -> Sequence[BuiltTemplate]:
        """See ``BuiltTemplates``."""
        first = self._find_own(caller, name)
        check_can_write(caller)
        rows = self._templates.own_versions(first.name, first.owner_id) if name == first.name else [first]
        await self._await_sandboxes(rows)
        if not force:
            await self._check_snapshots(rows)
        live = {row.reference: await self._count_live_runs(row) for row in rows}
        self._check_unused(rows, live)
        # From now on nothing begins with them; what can be had of them goes afterwards.
        left = {row.template_id: row for row in rows}
        for template_id in left:
            self._templates.set_aside(template_id)
        try:
            for row in rows:
                await self._running.cancel(row.template_id)
                await self._store.delete(row.template_id)
                del left[row.template_id]
                await asyncio.shield(self._running.forget(row))
        finally:
            for row in left.values():
                self._templates.put_back(row)
        return rows

    async def _await_sandboxes(self, rows: Sequence[BuiltTemplate]) -> None:
        """Wait a while for the end of what steps have run in, where nothing else is of these."""
        deadline = asyncio.get_running_loop().time() + _PATIENCE_S
        while any(map(self._count_sandboxes, rows)) and not any(
            self._count_others(row) or self._count_begun(row) for row in rows
        ):
            if asyncio.get_running_loop().time() > deadline:
                return
            await asyncio.sleep(_PAUSE_S)

    def _count_uses(self, row: BuiltTemplate) -> int:
        return self._count_others(row) + self._count_runs(row)

    def _count_others(self, row: BuiltTemplate) -> int:
        return self._environments.count_of(row) + self._running.count_upon(row)

    def _count_runs(self, row: BuiltTemplate) -> int:
        """The live runs that began with it; one, where only others have sandboxes of it."""
        return self._count_begun(row) or min(1, self._count_sandboxes(row))

    def _count_begun(self, row: BuiltTemplate) -> int:
        return 0 if self._runs is None else self._runs.count_of(row)

    def _count_sandboxes(self, row: BuiltTemplate) -> int:
        return 0 if self._runs is None else self._runs.count_sandboxes_of(row)

    async def _count_live_runs(self, row: BuiltTemplate) -> int:
        """Those included that another server works on, or that nobody does for a moment."""
        return await self._store.count_runs(row.reference, None if row.is_public else row.owner_id)

    def _check_unused(self, rows: Sequence[BuiltTemplate], live: Mapping[str, int]) -> None:
        """``live``: how many live runs there are of each, as the database says."""
        runs = {row.reference: max(self._count_runs(row), live[row.reference]) for row in rows}
        used = {row.reference: self._count_others(row) + runs[row.reference] for row in rows}
        used = {reference: count for reference, count in used.items() if count}
        if used:
            raise TemplateInUse(
                f"There are environments, runs of workflows, or builds, of {', '.join(used)}; delete or cancel them, "
                "or wait until they have ended",
                {
                    "environments": sum(used.values()) - sum(runs.values()),
                    "runs": sum(runs.values()),
                    "snapshots": 0,
                    "templates": sorted(used),
                },
            )

    async def _check_snapshots(self, rows: Sequence[BuiltTemplate]) -> None:
        held = {row.reference: await self._environments.count_snapshots_of(row) for row in rows}
        held = {reference: count for reference, count in held.items() if count}
        if held:
            raise TemplateInUse(
                f"There are snapshots of environments of {', '.join(held)}, and nothing could begin with them any "
                "more; delete them, or say force=true",
                {"environments": 0, "runs": 0, "snapshots": sum(held.values()), "templates": sorted(held)},
            )

    def _find_own(self, caller: Principal, name: str) -> BuiltTemplate:
        """One of the caller's; for an admin, of anybody's. What is everybody's is nobody else's to change."""
        row = self._templates.find_row(name, caller.user_id, sees_all=caller.is_admin)
        if row.owner_id != caller.user_id and not caller.is_admin:
            raise Forbidden(f"The template {name} belongs to an admin; everybody may make environments from it")
        return row

    @staticmethod
    def _check_size(recipe: Recipe) -> None:
        for what, size, most in (
            ("variables", environ_bytes(recipe.env), _MOST_ENV_BYTES),
            ("names of modules to preload", sum(map(len, recipe.preload)), _MOST_PRELOAD_BYTES),
            ("files", sum(len(file.content) for file in recipe.files), _MOST_FILES_BYTES),
        ):
            if size > most:
                raise RecipeTooLarge(
                    f"The {what} of the recipe are {size} bytes long together; {most} is the most",
                    {"limit_bytes": most},
                )
        if len(recipe.env) + len(recipe.preload) > _MOST_PARTS:
            problem = f"with those of the base, and the variables, there are more than {_MOST_PARTS}"
            raise InvalidRequest.for_fields([("preload", problem)])

    def _rules(self, recipe: Recipe, index: str) -> NetworkRules:
        """What the build may reach: what it names, and with packages the index. Raises as ``BuiltTemplates`` says."""
        if recipe.packages and not index:
            raise InvalidRequest.for_fields([("index", "is needed: this server names no package index for packages")])
        hosts = list(recipe.network.allow)
        if recipe.packages and recipe.index is None:
            hosts += NetworkRules.parse(list(filter(None, self._settings.package_hosts.split(",")))).allow
        if recipe.packages:
            hosts.append(_rule_of(index))
        rules = NetworkRules(tuple(dict.fromkeys(hosts)))
        if Isolation.STANDARD not in self._runtime.isolations:
            raise IsolationUnavailable(
                "Templates are built in the isolation class standard, which this server does not hold",
                {"isolation": Isolation.STANDARD.value, "available": [each.value for each in self._runtime.isolations]},
            )
        fetches = recipe.image is not None and not recipe.base
        if (rules.allow or fetches) and not self._settings.network_enabled:
            raise NetworkNotOffered("This server gives no network to builds; its administrator can change that")
        if len(rules.allow) > (most := self._settings.max_network_rules):
            raise TooManyNetworkRules(f"{len(rules.allow)} hosts are named; {most} is the most", {"limit": most})
        return rules

    def _find_same(self, caller: Principal, wanted: NewTemplate, digest: str) -> BuiltTemplate | None:
        """The newest version of the name, if it is the same and did not fail."""
        own = self._templates.own_versions(wanted.name, caller.user_id)
        newest = max(own, key=lambda row: row.version, default=None)
        if newest is None or newest.status is TemplateStatus.FAILED:
            return None
        return newest if (newest.digest, newest.is_public) == (digest, wanted.is_public) else None

    async def _insert(
        self,
        caller: Principal,
        wanted: NewTemplate,
        base: Template,
        digest: str,
        rules: NetworkRules,
        index: str,
        under: BuiltTemplate | None,
    ) -> BuiltTemplate:
        """Write the row of a new one and begin to build it. Raises ``TemplateNameTaken``, and as ``BuiltTemplates``."""
        with self._templates.reserved(wanted.name, caller.user_id, is_public=wanted.is_public):
            self._running.take(caller.user_id)
            try:
                row = await self._write(self._row(caller, wanted, base, digest, under))
            except BaseException:
                self._running.give_back(caller.user_id)
                raise
            self._templates.put(row)
        self._running.begin(row, base, rules, index, under, anew=wanted.rebuild)
        return row

    def _row(
        self, caller: Principal, wanted: NewTemplate, base: Template, digest: str, under: BuiltTemplate | None
    ) -> BuiltTemplate:
        return BuiltTemplate(
            template_id=make_template_id(),
            owner_id=caller.user_id,
            name=wanted.name,
            version=0,
            status=TemplateStatus.BUILDING,
            digest=digest,
            interpreter=base.interpreter or "",
            is_public=wanted.is_public,
            server_id=self._server_id,
            created_at=self._clock.now(),
            recipe=wanted.recipe,
            root=None if under is None else under.root,
        )

    async def _write(self, row: BuiltTemplate) -> BuiltTemplate:
        most, most_builds = self._settings.max_templates_per_user, self._settings.max_template_builds_per_user
        kept = await self._store.insert(row, most, most_builds)
        if kept is TemplateRefusal.TOO_MANY:
            raise TooManyTemplates(
                f"You have {most} built templates, the most allowed, versions counted one by one; delete one",
                {"limit": most},
                retry_after_s=_RETRY_AFTER_S,
            )
        if kept is TemplateRefusal.TOO_MANY_BUILDS:
            # Some of them on other servers.
            raise too_many_builds("You have", most_builds, "user")
        return kept


def _check_apt(recipe: Recipe) -> None:
    if recipe.apt and not recipe.has_own_root:
        raise InvalidRequest.for_fields([("apt", _APT_NEEDS)])


def _rule_of(index: str) -> HostRule:
    """The host of an index. Raises ``InvalidRequest``."""
    try:
        parts = urlsplit(index)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        return HostRule.parse(f"{host}:{parts.port or (80 if parts.scheme == 'http' else 443)}")
    except ValueError as error:
        raise InvalidRequest.for_fields([("index", f"names no host: {error}")]) from None
