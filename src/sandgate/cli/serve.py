"""``sandgate serve``: from settings to a running server."""

import contextlib
import fcntl
import gc
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from sandgate.cli import privileges, run_folders
from sandgate.cli.early_gateway import EarlyGateway
from sandgate.cli.supervisor import EXIT_REFUSED, EXIT_UNAVAILABLE, Supervisor
from sandgate.config.paths import (
    BLOCK_IDS,
    GATEWAYS_FOLDERS,
    LAUNCHERS_FOLDERS,
    disks_folder,
    id_block,
    interpreter_folders,
    layers_folder,
    run_folder,
    state_name,
    volumes_folder,
)
from sandgate.config.settings import Settings
from sandgate.core.errors import ConfigurationError, IsolationUnavailable, MechanismFault, SandgateError
from sandgate.core.last_resort import say
from sandgate.core.states import Isolation
from sandgate.environments.languages import parse_languages
from sandgate.environments.templates import TemplateCatalogue
from sandgate.sandbox import descriptors, probe
from sandgate.sandbox.interpreters import find_interpreters
from sandgate.sandbox.launcher import starter
from sandgate.sandbox.launcher.config import IDS_OF_SANDBOX, ZYGOTE_IDS, LauncherConfig, TemplateConfig
from sandgate.sandbox.launcher.gvisor.runsc import AUTOMATIC, Runsc, find_runsc
from sandgate.sandbox.launcher.reclaim import remove_empty_tree
from sandgate.sandbox.spare_counts import choose_spare_counts, memory_in_reach
from sandgate_agent import system

if TYPE_CHECKING:
    from sandgate.assembly import Started
    from sandgate.auth.first_admin import FirstAdmin

_LOCK_LIMIT_S = 2.0
_OWN_IDS = 16
# What the control groups of a server are called, before its own name.
_TREE = "sandgate-"
_BANNER = """\
**********************************************************************************
*  WEAK ISOLATION: this server runs code in the `process` class. Code is kept    *
*  apart from nothing: it can read what this user can read, reach the network,   *
*  and disturb its neighbours. Run only code that you would run yourself.        *
*  For the real thing run the server as root on a machine with namespaces;       *
*  `sandgate doctor` says what is missing here and how to get it.                *
**********************************************************************************
"""


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom the parts of the server run as. ``launcher_id`` is None where the launcher stays who it is."""

    user_id: int
    group_id: int
    launcher_id: int | None

    @property
    def changes(self) -> bool:
        """Whether the gateway gives up the privileges that the server was started with."""
        return self.user_id != os.geteuid()


def choose_isolation(settings: Settings) -> Isolation:
    """The class that this server holds. Raises ``ConfigurationError``, or ``IsolationUnavailable`` with what to do."""
    wanted = Isolation(settings.isolation)
    if wanted is Isolation.PROCESS and not settings.allow_weak_isolation:
        raise ConfigurationError(
            "The process class keeps hostile code apart from nothing. If that is what you want, "
            "set SANDGATE_ALLOW_WEAK_ISOLATION=1 as well."
        )
    if wanted is Isolation.PROCESS:
        return wanted
    machine = probe.probe(interpreter_folders(settings), host_id=id_block(settings))
    if machine.can_hold_standard:
        return wanted
    if settings.allow_weak_isolation and wanted is Isolation.STANDARD:
        return Isolation.PROCESS
    raise IsolationUnavailable(
        f"This machine cannot hold the {wanted} class. {machine}. `sandgate doctor` shows the whole picture. To run "
        "code without walls all the same, set SANDGATE_ALLOW_WEAK_ISOLATION=1."
    )


def find_container_runtime(settings: Settings, isolation: Isolation) -> Runsc | None:
    """What runs the ``gvisor`` class beside the standard one, or instead of it; None where it is not held.

    Raises ``IsolationUnavailable`` when the settings ask for the class, or for a program or platform that is not there.
    """
    if isolation is Isolation.PROCESS:
        return None
    runsc = find_runsc(settings.runsc, settings.gvisor_platform)
    if runsc is not None and runsc.platform:
        return runsc
    is_wanted = isolation is Isolation.GVISOR or settings.gvisor_templates
    if is_wanted or settings.runsc or settings.gvisor_platform != AUTOMATIC:
        lack = "runsc was not found" if runsc is None else f"{runsc.path} has no platform {settings.gvisor_platform}"
        raise IsolationUnavailable(
            f"This machine cannot hold the gvisor class: {lack}. `sandgate doctor` says what it has and what mends it."
        )
    return None


def _needed_paths(settings: Settings) -> list[Path]:
    """What the gateway must be able to read: the program, its interpreter, the state, and files with certificates."""
    package = Path(__file__).resolve().parents[2]
    named = (settings.tls_certificate, settings.tls_key, settings.registry_certificates)
    tls = [path.parent for path in named if path is not None]
    return [Path(sys.prefix), Path(sys.base_prefix).resolve(), package, settings.state.resolve(), *dict.fromkeys(tls)]


def choose_identity(settings: Settings, isolation: Isolation, prefixes: Sequence[Path]) -> Identity:
    """Whom to become. As an ordinary user everything stays as it is."""
    own = os.geteuid()
    if own != 0:
        return Identity(own, os.getegid(), None)
    user_id, group_id = privileges.find_user(settings.user, id_block(settings))
    if isolation is not Isolation.PROCESS:
        return Identity(user_id, group_id, None)
    launcher_id = id_block(settings) + 1
    if privileges.find_closed([*_needed_paths(settings), *prefixes]):
        # Without mounts there is no way to show another user what only root may reach.
        reason = "the program is in a folder that only root can enter"
    elif not (privileges.can_become(user_id, group_id) and privileges.can_become(launcher_id, launcher_id)):
        reason = "root may not become another user here, as in an unprivileged container"
    else:
        return Identity(user_id, group_id, launcher_id)
    sys.stderr.write(f"sandgate: {reason}, so that code runs as root\n")
    return Identity(0, 0, None)


def _launcher_config(
    settings: Settings, catalogue: TemplateCatalogue, isolation: Isolation, identity: Identity, runsc: Runsc | None
) -> LauncherConfig:
    templates = [
        TemplateConfig(template.name, template.interpreter, template.prefix, template.preload, template.limits)
        for template in catalogue.list()
        if template.interpreter and template.prefix
    ]
    spares, most_spares = _spare_counts(settings, isolation)
    return LauncherConfig(
        run_folder=run_folder(settings),
        tree_name=f"{_TREE}{state_name(settings)}",
        gateway_uid=identity.user_id,
        host_id_base=id_block(settings) + _OWN_IDS,
        most_sandboxes=_most_sandboxes(settings, len(templates) + settings.max_live_templates, most_spares),
        standard=isolation is not Isolation.PROCESS,
        templates=tuple(templates),
        spares=spares,
        most_spares=most_spares,
        runsc=runsc.path if runsc else "",
        platform=runsc.platform if runsc else "",
        gvisor_spares=settings.gvisor_spare_sandboxes,
        volumes_folder=volumes_folder(settings),
        layers_folder=layers_folder(settings) if isolation is not Isolation.PROCESS else None,
        zygote_idle_s=settings.template_idle_timeout_s,
        most_built=settings.max_live_templates,
        built_memory_bytes=settings.template_memory_bytes,
        disks_folder=disks_folder(settings),
    )


def _spare_counts(settings: Settings, isolation: Isolation) -> tuple[int, int]:
    # There each has a loop device, or waits with descriptors and pipes that are counted for one user of the machine.
    are_dear = settings.environment_disk == "image" or isolation is Isolation.PROCESS
    asked, most_asked = settings.spare_sandboxes, settings.most_spare_sandboxes
    return choose_spare_counts(asked, most_asked, memory_in_reach(), are_dear=are_dear)


def _most_sandboxes(settings: Settings, templates: int, most_spares: int) -> int:
    """As many as there may be environments when every template has its most spares, within the block of ids."""
    spares = most_spares + settings.gvisor_spare_sandboxes
    ids = BLOCK_IDS - _OWN_IDS - ZYGOTE_IDS
    return min(settings.max_environments + spares * templates, ids // IDS_OF_SANDBOX)


def _prepare_folders(settings: Settings, config: LauncherConfig, identity: Identity) -> int:
    """A descriptor that holds the launcher's folder against servers that clear up."""
    kept, closed = ([settings.state / name for name in names] for names in (LAUNCHERS_FOLDERS, GATEWAYS_FOLDERS))
    privileges.give_folder(settings.state, identity.user_id, identity.group_id, but=kept, closed=closed)
    held = run_folders.hold(config.run_folder)
    if identity.launcher_id is not None:
        os.chown(held, identity.launcher_id, identity.launcher_id)
    if os.geteuid() == 0:
        run_folders.clear(config.run_folder.parent, lambda name: remove_empty_tree(f"{_TREE}{name}"))
    return held


def _lock(state: Path) -> int:
    """Keep a second server off the state. The lock goes with the processes that hold it."""
    descriptor = os.open(state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + _LOCK_LIMIT_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # The gateway of a server that was just killed needs a moment to follow it.
            if time.monotonic() < deadline:
                time.sleep(0.02)
                continue
            os.close(descriptor)
            raise ConfigurationError(
                f"Another server is running on the state folder {state}; stop it first, or choose another with --state."
            ) from None
        return descriptor


def _bind(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise ConfigurationError(
            f"Cannot listen on {settings.host}:{settings.port}: {error.strerror}. Choose another port with --port; "
            "0 takes a free one."
        ) from error
    return listener


def _first_password(admin: "FirstAdmin") -> str:
    """What is said of it: the password itself to a person only, and only now; a log is kept and read by others."""
    if admin.password_file is None:
        return "as set by SANDGATE_ADMIN_PASSWORD"
    if sys.stdout.isatty():
        return f"{admin.password}   (shown this once; kept in {admin.password_file} until you change it)"
    return f"in {admin.password_file}"


def _announce(sock: socket.socket, started: "Started", scheme: str = "http") -> None:
    host, port = sock.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    lines = [f"sandgate is serving on {scheme}://{shown}:{port}", f"  documentation  {scheme}://{shown}:{port}/docs"]
    if started.admin is not None:
        lines.append(f"  admin          {started.admin.name}")
        lines.append(f"  password       {_first_password(started.admin)}")
    # A gateway that is started again may find its log on a disk that is full.
    with contextlib.suppress(OSError):
        sys.stdout.write("\n".join(lines) + "\n")
        sys.stdout.flush()


def _import_gateway() -> None:
    """Import what a gateway needs; for it alone.

    All of that stays as long as the process: looking it through for garbage, now and later, would take as long as a
    fifth of the imports.
    """
    system.set_process_name("sg-gateway")
    gc.disable()
    import_module("sandgate.assembly")
    gc.freeze()
    gc.enable()


_Parts = tuple[Settings, TemplateCatalogue, Identity, LauncherConfig]


class _Server:
    """The pieces of one ``sandgate serve``."""

    def __init__(self, parts: _Parts) -> None:
        self._parts = parts
        self._settings, self._catalogue, self._identity, self._config = parts

    def run(self, early: EarlyGateway, held: Sequence[int]) -> int:
        """The descriptors ``held`` are held by all that is started, too."""
        with _bind(self._settings) as sock:
            sock.set_inheritable(False)
            self._sock = sock
            start_first = partial(early.order, self._parts, [sock.fileno(), *held])
            supervisor = Supervisor(self._config, self._start_launcher, self._run_gateway, start_first)
            system.set_process_name("sandgate")
            code = supervisor.run()
        with contextlib.suppress(OSError):
            for leftover in ("jail", "sandboxes"):
                (self._config.run_folder / leftover).rmdir()
        with contextlib.suppress(OSError):
            (self._config.run_folder / "launcher.log").unlink()
            self._config.run_folder.rmdir()
            self._config.run_folder.parent.rmdir() if os.geteuid() == 0 else None
        return code

    @staticmethod
    def serve_early(parts: _Parts, descriptors: Sequence[int]) -> int:
        """In the process of a gateway that was begun early: what the supervisor's memory holds for others."""
        server = _Server(parts)
        server._sock = socket.socket(fileno=descriptors[0])
        return server._run_gateway()

    def _start_launcher(self) -> "subprocess.Popen[str]":
        return starter.start(self._config, self._config.run_folder / "launcher.log", self._identity.launcher_id)

    def _run_gateway(self) -> int:
        """In the gateway's process: give up privileges, then serve."""
        try:
            return self._serve()
        except SandgateError as error:
            say(f"sandgate: {error.message}")
            return EXIT_UNAVAILABLE if isinstance(error, MechanismFault) else EXIT_REFUSED

    def _serve(self) -> int:
        parent = os.getppid()
        if self._identity.changes:
            privileges.open_view(_needed_paths(self._settings))
            privileges.drop(self._identity.user_id, self._identity.group_id)
            privileges.check_readable(_needed_paths(self._settings))
            os.environ["HOME"] = str(self._settings.state)
        system.prctl(system.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            return 1
        # It holds keys: nobody else of its user may look into it.
        system.prctl(system.PR_SET_DUMPABLE, 0)
        # Heavy, and of no use to the supervisor.
        _import_gateway()
        from sandgate.assembly import run_gateway
        from sandgate.telemetry.log import set_up_logging

        set_up_logging(self._settings.log_level, self._settings.log_format)
        descriptors.expect_many()
        return run_gateway(
            self._settings,
            self._catalogue,
            Isolation(self._settings.isolation),
            self._config.socket_path,
            self._sock.dup(),
            lambda started: _announce(self._sock, started, "http" if self._settings.tls_key is None else "https"),
        )


def run(settings: Settings) -> int:
    """Serve until told to stop; the exit code. Raises ``SandgateError`` when the server cannot be started."""
    paths = {
        name: path.absolute()
        for name in ("state", "tls_certificate", "tls_key", "registry_certificates")
        if (path := getattr(settings, name)) is not None
    }
    settings = settings.model_copy(update=paths)
    # What dies leaves no image of its memory behind; 0 would still hand one to a program that collects them.
    # Source: core(5), do_coredump() in fs/coredump.c.
    resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
    _soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Each execution that runs costs the gateway four descriptors; a shell gives 1,024.
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with EarlyGateway(_import_gateway, _Server.serve_early) as early:
        return _run(settings, early)


def _run(settings: Settings, early: EarlyGateway) -> int:
    isolation = choose_isolation(settings)
    if isolation is Isolation.PROCESS:
        sys.stderr.write(_BANNER)
        sys.stderr.flush()
    settings = settings.model_copy(update={"isolation": isolation.value})
    runsc = find_container_runtime(settings, isolation)
    found = find_interpreters(interpreter_folders(settings))
    settings.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    identity = choose_identity(settings, isolation, [Path(each.prefix) for each in found.values()])
    # Found by whoever starts the server: an unprivileged gateway may not see where they are.
    others = (Isolation.STANDARD, Isolation.GVISOR) if runsc else ()
    isolations = tuple(dict.fromkeys((isolation, *others)))
    contained = [name.strip() for name in settings.gvisor_templates.split(",") if name.strip()]
    languages = parse_languages(settings.languages)
    catalogue = TemplateCatalogue(found, settings.limits(), isolations, contained, languages)
    config = _launcher_config(settings, catalogue, isolation, identity, runsc)
    held = _prepare_folders(settings, config, identity)
    lock = _lock(settings.state)
    try:
        return _Server((settings, catalogue, identity, config)).run(early, [held, lock])
    finally:
        os.close(lock)
        os.close(held)
