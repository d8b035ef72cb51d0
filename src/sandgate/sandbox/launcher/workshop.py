"""Makes sandboxes of every class that the launcher holds, from what they have in common: ids, groups, zygotes."""

import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import replace

from sandgate.core.errors import MechanismFault
from sandgate.core.limits import Limits
from sandgate.core.states import Isolation
from sandgate.core.template import BUILD_PREFIX, Layer
from sandgate.sandbox.launcher.cgroup import Tree
from sandgate.sandbox.launcher.config import LAYER, ZYGOTE_IDS, LauncherConfig, TemplateConfig
from sandgate.sandbox.launcher.disks import Disks
from sandgate.sandbox.launcher.gvisor.container import ContainerPlan
from sandgate.sandbox.launcher.gvisor.sandbox import GvisorSandbox
from sandgate.sandbox.launcher.ids import HostIds
from sandgate.sandbox.launcher.life import Life
from sandgate.sandbox.launcher.reactor import Reactor
from sandgate.sandbox.launcher.root_folder import RootFolder
from sandgate.sandbox.launcher.sandbox import Sandbox
from sandgate.sandbox.launcher.zygote import Zygote
from sandgate.sandbox.seccomp import build_filter

OnLife = Callable[[Life], None]

# What is asked for with a sandbox is told of again each time, so that forgetting does no harm.
_MOST_LEARNED = 512
_REMOVE_AGAIN_S, _REMOVE_ATTEMPTS = 0.05, 100


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
        on_ready: OnLife,
        on_gone: OnLife,
        on_memory: OnLife,
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
        self._learned: dict[str, TemplateConfig] = {}
        self._places = {name: place for place, name in enumerate(self._templates)}
        self._zygotes: dict[str, Zygote] = {}
        self._asked_at: dict[str, float] = {}
        self._ids = HostIds(config.host_id_base, config.most_sandboxes)
        self._made = 0
        # Others have no file systems of their own.
        self._disks = Disks(config.disks_folder) if config.standard and config.disks_folder is not None else None

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
            disks=self._disks,
            on_ready=self._on_ready, on_gone=self._on_gone,
        )  # fmt: skip

    def _make_gvisor(
        self, name: str, template: str, limits: Limits, environment_id: str | None, host_id: int
    ) -> GvisorSandbox:
        if self._tree is None or self._filter is None:
            raise MechanismFault("without control groups and a filter there are no containers")
        found = self.find_template(template)
        if found.changes_root:
            raise MechanismFault(f"containers of {template} would have no root file system")
        plan = ContainerPlan(
            self._config.runsc, self._config.platform, found, limits, self._filter,
            host_id, self._config.run_folder / "jail", self._config.layers_folder,
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

    def find_unseen_root(self, name: str, layer: Layer | None) -> str:
        """The root file system that has to be looked at before a template can be learnt; empty where there is none."""
        if layer is None or name in self._learned or name in self._templates or not self._config.standard:
            return ""
        return layer.root

    def learn(self, name: str, layer: Layer | None, root: RootFolder | None) -> None:
        """Know a template that was built; ``root`` is what its root file system has. Raises ``MechanismFault``."""
        if layer is None or name in self._learned:
            if name in self._templates or name in self._learned:
                self._asked_at[name] = time.monotonic()
            return
        base = self._find_base(name, layer, root)
        while len(self._learned) >= _MOST_LEARNED:
            oldest = next(each for each in (*self._learned, None) if each not in self._zygotes)
            if oldest is None:
                raise MechanismFault(f"{_MOST_LEARNED} built templates are in use, the most that are known at once")
            del self._learned[oldest]
            self._asked_at.pop(oldest, None)
        self._learned[name] = replace(
            base,
            name=name,
            interpreter=f"{LAYER}/bin/python" if layer.folder else base.interpreter,
            preload=layer.preload,
            layer=layer.folder,
            env=tuple(layer.env.items()),
            is_open=not layer.folder,
            under=layer.under,
            changes_root=layer.changes_root,
            # What spares of it are made with, which in the class gvisor cannot be given others.
            limits=layer.limits or base.limits,
        )
        self._asked_at[name] = time.monotonic()

    def _find_base(self, name: str, layer: Layer, root: RootFolder | None) -> TemplateConfig:
        """What a template that was built rests on. Raises ``MechanismFault``."""
        base = self._templates.get(layer.base)
        if name in self._templates or not self._config.standard or (base is None and not layer.root):
            raise MechanismFault(f"the launcher knows no template {layer.base} to put {name} upon")
        if base is not None and root is None:
            return base
        limits = next((each.limits for each in self._templates.values()), Limits())
        return TemplateConfig(name, layer.interpreter, "/usr", limits=limits, root=root, begins_in=layer.begins_in)

    def find_template(self, name: str) -> TemplateConfig:
        """Raises ``MechanismFault``."""
        template = self._templates.get(name) or self._learned.get(name)
        if template is None:
            raise MechanismFault(f"the launcher knows no template {name}")
        return template

    def _find_zygote(self, name: str) -> Zygote:
        """The template's zygote, started when there is none."""
        if name in self._zygotes and self._zygotes[name].is_of_use:
            return self._zygotes[name]
        template = self.find_template(name)
        place = self._place(name)
        zygote = Zygote(self._config, template, self._reactor, on_end=self._forget_zygote)
        group = self._tree.group(f"zygote-{name}") if self._tree else None
        # Never without one where there are walls.
        filter_ = build_filter(as_root=True) if template.changes_root else self._filter
        zygote.start(self._config.host_id_base + place, group, filter_)
        self._zygotes[name] = zygote
        return zygote

    def _place(self, name: str) -> int:
        """Which of the ids of zygotes is that of this one. Raises ``MechanismFault`` when there is none."""
        if name not in self._places:
            taken = set(self._places.values())
            free = next((place for place in range(len(self._templates), ZYGOTE_IDS) if place not in taken), None)
            if free is None or not self.has_room(name):
                raise MechanismFault(f"{self._config.most_built} built templates are in use, the most at once")
            self._places[name] = free
        return self._places[name]

    def _forget_zygote(self, zygote: Zygote) -> None:
        name = zygote.template.name
        if self._zygotes.get(name) is zygote:
            del self._zygotes[name]
            if name not in self._templates:
                self._let_go(name, _REMOVE_ATTEMPTS)
        self._on_zygote_end(zygote)

    def _let_go(self, name: str, attempts: int) -> None:
        """Give back the id of one that was built, once nothing of it is left: others are to have it."""
        if name in self._zygotes:
            return
        gone = self._tree is None
        if self._tree is not None:
            with suppress(OSError):
                gone = self._tree.group(f"zygote-{name}").remove()
        if gone:
            self._places.pop(name, None)
        elif attempts:
            self._reactor.call_later(_REMOVE_AGAIN_S, lambda: self._let_go(name, attempts - 1))

    def find_idle(self, idle_s: float, used: Collection[str]) -> list[str]:
        """Templates that are not ``used`` and have not been asked for so long, the longest first."""
        until = time.monotonic() - idle_s
        idle = [name for name, asked_at in self._asked_at.items() if name not in used and asked_at <= until]
        return sorted(idle, key=self._asked_at.__getitem__)

    def is_built(self, name: str) -> bool:
        """Whether it is no template of the server's own."""
        return name not in self._templates

    def find_spare_limits(self, name: str) -> Limits | None:
        """Those that spares of a template are made with; None where it has none."""
        template = self._templates.get(name) or self._learned.get(name)
        return None if template is None or template.is_open else template.limits

    def has_room(self, name: str) -> bool:
        """Whether a zygote of this template may run beside the others; those of builds are counted for themselves."""
        if not self.is_built(name):
            return True
        built = [each for each in self._zygotes if self.is_counted_with(each, name) and self._zygotes[each].is_of_use]
        return name in built or len(built) < self._config.most_built

    def is_counted_with(self, name: str, other: str) -> bool:
        """Whether the zygotes of both are built ones, and both of builds, or neither."""
        kinds = {each.startswith(BUILD_PREFIX) for each in (name, other)}
        return self.is_built(name) and self.is_built(other) and len(kinds) == 1

    def stop_zygote(self, name: str) -> None:
        """End a template's zygote, with all that was forked from it; it comes back when it is asked for."""
        self._asked_at.pop(name, None)
        zygote = self._zygotes.get(name)
        if zygote is not None:
            zygote.kill()

    @property
    def zygote_pids(self) -> set[int]:
        """The processes that run as zygotes."""
        return {zygote.pid for zygote in self._zygotes.values()}

    def kill_zygotes(self) -> bool:
        """End every zygote; False when there is none."""
        for zygote in list(self._zygotes.values()):
            zygote.kill()
        return bool(self._zygotes)
