"""Makes sandboxes of every class that the launcher holds, from what they have in common: ids, groups, zygotes."""

from collections.abc import Callable

from sandgate.core.errors import MechanismFault
from sandgate.core.limits import Limits
from sandgate.core.states import Isolation
from sandgate.sandbox.launcher.cgroup import Tree
from sandgate.sandbox.launcher.config import LauncherConfig, TemplateConfig
from sandgate.sandbox.launcher.gvisor.container import ContainerPlan
from sandgate.sandbox.launcher.gvisor.sandbox import GvisorSandbox
from sandgate.sandbox.launcher.ids import HostIds
from sandgate.sandbox.launcher.life import Life
from sandgate.sandbox.launcher.reactor import Reactor
from sandgate.sandbox.launcher.sandbox import Sandbox
from sandgate.sandbox.launcher.zygote import Zygote

Told = Callable[[Life], None]


class Workshop:
    """``on_ready``, ``on_gone``, ``on_memory`` are of sandboxes; ``on_zygote_end`` is of a zygote that is forgotten.

    ``tree`` and ``filter_program`` are None where only plain processes are started.
    """

    def __init__(
        self,
        config: LauncherConfig,
        reactor: Reactor,
        tree: Tree | None,
        filter_program: bytes | None,
        *,
        on_ready: Told,
        on_gone: Told,
        on_memory: Told,
        on_zygote_end: Callable[[Zygote], None],
    ) -> None:
        self._config = config
        self._reactor = reactor
        self._tree = tree
        self._filter = filter_program
        self._on_ready = on_ready
        self._on_gone = on_gone
        self._on_memory = on_memory
        self._on_zygote_end = on_zygote_end
        self._templates = {template.name: template for template in config.templates}
        self._zygotes: dict[str, Zygote] = {}
        self._ids = HostIds(config.host_id_base, config.most_sandboxes)
        self._made = 0

    def make(self, isolation: Isolation, template: str, limits: Limits, environment_id: str | None) -> Life:
        """Start a sandbox, a spare one when it belongs to nobody. Raises ``OSError``, ``MechanismFault``."""
        if isolation not in self._config.isolations:
            raise MechanismFault(f"the launcher makes no sandboxes of class {isolation}")
        host_id = self._ids.take()
        if host_id is None:
            raise MechanismFault(f"there are {self._config.most_sandboxes} sandboxes, and no room for more")
        self._made += 1
        try:
            make = self._make_gvisor if isolation is Isolation.GVISOR else self._make_forked
            sandbox = make(f"s{self._made}", template, limits, environment_id, host_id)
            sandbox.start()
        except (OSError, MechanismFault):
            self._ids.discard(host_id)
            raise
        return sandbox

    def _make_forked(
        self, name: str, template: str, limits: Limits, environment_id: str | None, host_id: int
    ) -> Sandbox:
        return Sandbox(
            self._find_zygote(template), self._reactor, limits,
            environment_id=environment_id, group=self._tree.group(name) if self._tree else None, host_id=host_id,
            folder=None if self._config.standard else self._config.run_folder / "sandboxes" / name,
            on_ready=self._on_ready, on_gone=self._on_gone,
        )  # fmt: skip

    def _make_gvisor(
        self, name: str, template: str, limits: Limits, environment_id: str | None, host_id: int
    ) -> GvisorSandbox:
        if self._tree is None or self._filter is None:
            raise MechanismFault("without control groups and a filter there are no containers")
        plan = ContainerPlan(
            self._config.runsc, self._config.platform, self._find_template(template), limits, self._filter,
            host_id, self._config.run_folder / "jail",
        )  # fmt: skip
        return GvisorSandbox(
            plan, self._reactor, limits,
            environment_id=environment_id, group=self._tree.group(name),
            patience_s=self._config.start_limit_s + self._config.build_limit_s,
            on_ready=self._on_ready, on_gone=self._on_gone, on_memory=self._on_memory,
        )  # fmt: skip

    def discard(self, sandbox: Life) -> None:
        """It is gone; another one may have its ids."""
        if sandbox.host_id is not None:
            self._ids.discard(sandbox.host_id)

    def _find_template(self, name: str) -> TemplateConfig:
        template = self._templates.get(name)
        if template is None:
            raise MechanismFault(f"the launcher knows no template {name}")
        return template

    def _find_zygote(self, name: str) -> Zygote:
        """The template's zygote, started when there is none."""
        if name in self._zygotes and not self._zygotes[name].has_hung_up:
            return self._zygotes[name]
        template = self._find_template(name)
        place = list(self._templates).index(name)
        zygote = Zygote(self._config, template, self._reactor, on_end=self._forget_zygote)
        group = self._tree.group(f"zygote-{name}") if self._tree else None
        zygote.start(self._config.host_id_base + place, group, self._filter)
        self._zygotes[name] = zygote
        return zygote

    def _forget_zygote(self, zygote: Zygote) -> None:
        if self._zygotes.get(zygote.template.name) is zygote:
            del self._zygotes[zygote.template.name]
        self._on_zygote_end(zygote)

    @property
    def zygote_pids(self) -> set[int]:
        """The processes that run as zygotes."""
        return {zygote.pid for zygote in self._zygotes.values()}

    def kill_zygotes(self) -> bool:
        """End every zygote; False when there is none."""
        for zygote in list(self._zygotes.values()):
            zygote.kill()
        return bool(self._zygotes)
