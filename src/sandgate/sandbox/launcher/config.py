"""What the launcher is told at its start, by the root process that starts it, over its standard input."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sandgate.core.states import Isolation

# Ids from the base: first one for each zygote, then two for each sandbox (the agent's and the user's).
ZYGOTE_IDS = 256
IDS_OF_SANDBOX = 2


@dataclass(frozen=True, slots=True)
class TemplateConfig:
    """What a zygote needs to know of its template."""

    name: str
    interpreter: str
    prefix: str
    preload: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LauncherConfig:
    """``standard`` puts up the real walls and needs root; without it only plain processes are started.

    ``run_folder`` is the launcher's own; ``tree_name`` names its control groups, so that a later start of the same
    server finds what an earlier one left; only ``gateway_uid`` (and root) may connect. ``spares`` sandboxes of each
    template in use are kept ready, up to ``most_spares`` after many were asked for at once. A zygote is given
    ``start_limit_s`` to import what its template asks for, a sandbox ``build_limit_s`` from there; both together stay
    below what the gateway waits for a sandbox. ``runsc`` is the program for the ``gvisor`` class on a ``platform`` of
    its own, empty where that class is not held; ``gvisor_spares`` sandboxes of it are kept for each template in use.
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
            TemplateConfig(t["name"], t["interpreter"], t["prefix"], tuple(t["preload"])) for t in values["templates"]
        )
        return cls(**{**values, "run_folder": Path(values["run_folder"]), "templates": templates})
