"""What the launcher is told at its start, by the root process that starts it, over its standard input."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sandgate.core.limits import Limits
from sandgate.core.states import Isolation
from sandgate.sandbox.launcher.root_folder import RootFolder

# Ids from the base: first one for each zygote, then two for each sandbox (the agent's and the user's).
ZYGOTE_IDS = 256
IDS_OF_SANDBOX = 3
# Where a template's own files are, for everything in its environments.
LAYER = "/opt/template"
# Where those of the template are that another one is built upon.
UNDER = "/opt/base"


@dataclass(frozen=True, slots=True)
class TemplateConfig:
    """What a zygote needs to know of its template. ``limits`` are those of sandboxes for which none were asked.

    One that was built has a ``layer``, a folder of this name in the launcher's ``layers_folder``, which environments
    see read-only as ``LAYER``, and ``env``, pairs of variables. ``is_open``: it is for building, and in its
    environments ``LAYER`` is an empty folder of the user's; ``under`` is the layer that they see as ``UNDER``.
    ``root`` is its root file system, where it is not that of the machine, and ``begins_in`` where code begins then.
    ``changes_root``: in its environments the folders of that are empty ones of the user's, those of ``root`` are seen
    below ``UNDER``, and programs are told that they are root.
    """

    name: str
    interpreter: str
    prefix: str
    preload: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    layer: str = ""
    env: tuple[tuple[str, str], ...] = ()
    is_open: bool = False
    under: str = ""
    root: RootFolder | None = None
    begins_in: str = ""
    changes_root: bool = False

    @property
    def is_built(self) -> bool:
        """Whether the launcher was told of it with a sandbox, instead of at its start."""
        return bool(self.layer) or self.is_open


@dataclass(frozen=True, slots=True)
class LauncherConfig:
    """``standard`` puts up the real walls and needs root; without it only plain processes are started.

    ``run_folder`` is the launcher's own; ``tree_name`` names its control groups, so that a later start of the same
    server finds what an earlier one left; only ``gateway_uid`` (and root) may connect. ``spares`` sandboxes of each
    template in use are kept ready, up to ``most_spares`` after many were asked for at once. A zygote is given
    ``start_limit_s`` to import what its template asks for, a sandbox ``build_limit_s`` from there; both together stay
    below what the gateway waits for a sandbox. ``runsc`` is the program for the ``gvisor`` class on a ``platform`` of
    its own, empty where that class is not held; ``gvisor_spares`` sandboxes of it are kept for each template in use.
    ``volumes_folder`` is where the volumes of users are; it is root's alone. None: there are none.
    ``layers_folder`` holds what was built; None where nothing is. A zygote that has been of no use for
    ``zygote_idle_s`` is stopped, with its spares; 0: none is. At most ``most_built`` zygotes of built templates
    run, each within ``built_memory_bytes``.
    ``disks_folder``, also root's alone, is where the files of sandboxes of the standard class are; None: in memory.
    """

    run_folder: Path
    tree_name: str
    gateway_uid: int
    host_id_base: int
    most_sandboxes: int
    standard: bool
    templates: tuple[TemplateConfig, ...]
    spares: int = 0
    most_spares: int = 0
    start_limit_s: float = 30.0
    build_limit_s: float = 10.0
    runsc: str = ""
    platform: str = ""
    gvisor_spares: int = 0
    volumes_folder: Path | None = None
    layers_folder: Path | None = None
    zygote_idle_s: float = 0.0
    most_built: int = 32
    built_memory_bytes: int = 1024**3
    disks_folder: Path | None = None

    @property
    def isolations(self) -> tuple[Isolation, ...]:
        """The classes of sandboxes that it makes."""
        if not self.standard:
            return (Isolation.PROCESS,)
        return (Isolation.STANDARD, Isolation.GVISOR) if self.runsc and self.platform else (Isolation.STANDARD,)

    @property
    def socket_path(self) -> Path:
        """Where the gateway connects."""
        return self.run_folder / "launcher.sock"

    def to_json(self) -> str:
        """For the launcher's standard input."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> "LauncherConfig":
        """The inverse of :meth:`to_json`."""
        values: Mapping[str, Any] = json.loads(text)
        templates = tuple(
            TemplateConfig(
                **{
                    **each,
                    "preload": tuple(each["preload"]),
                    "limits": Limits(**each["limits"]),
                    "env": tuple((name, value) for name, value in each["env"]),
                }
            )
            for each in values["templates"]
        )
        names = ("disks_folder", "layers_folder", "volumes_folder")
        folders = {name: values[name] and Path(values[name]) for name in names}
        return cls(**{**values, **folders, "run_folder": Path(values["run_folder"]), "templates": templates})
