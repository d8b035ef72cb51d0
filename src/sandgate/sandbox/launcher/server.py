"""The launcher itself: listens for one gateway at a time, and outlives it.

When the launcher dies, everything that it started dies with it: zygotes ask the kernel for that, and each holds its
sandboxes in its process namespace.
"""

import os
import secrets
import signal
import socket
import traceback
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from sandgate.core.errors import MechanismFault
from sandgate.core.limits import Limits
from sandgate.core.states import Isolation
from sandgate.sandbox.launcher import freezing_verbs, images, network_verbs, protocol, reclaim
from sandgate.sandbox.launcher.cgroup import Tree
from sandgate.sandbox.launcher.config import LauncherConfig
from sandgate.sandbox.launcher.copy_verbs import CopyFiles, PackFiles, Packing, UnpackFiles
from sandgate.sandbox.launcher.file_desk import FileDesk
from sandgate.sandbox.launcher.freezer import find_freezers
from sandgate.sandbox.launcher.hierarchies import find_hierarchies
from sandgate.sandbox.launcher.kept import Patience
from sandgate.sandbox.launcher.life import Life
from sandgate.sandbox.launcher.log import log
from sandgate.sandbox.launcher.reactor import Reactor
from sandgate.sandbox.launcher.reception import Reception
from sandgate.sandbox.launcher.root_folder import RootFolder
from sandgate.sandbox.launcher.root_looks import RootLooks
from sandgate.sandbox.launcher.stock import Stock
from sandgate.sandbox.launcher.volume_desk import VolumeDesk, find_lack
from sandgate.sandbox.launcher.volume_verbs import MakeVolume, MeasureVolumes, MountVolumes, RemoveVolume
from sandgate.sandbox.launcher.workshop import Workshop
from sandgate.sandbox.launcher.zygote import Zygote
from sandgate.sandbox.seccomp import build_filter, find_filter
from sandgate_agent import system

_NO_SANDBOX = "there is no such sandbox"


def _close_all(ends: Iterable[int]) -> None:
    for end in ends:
        os.close(end)


class Launcher:
    """Keeps zygotes and sandboxes, and does what the gateway asks."""

    def __init__(self, config: LauncherConfig) -> None:
        self._config = config
        self._instance = secrets.token_hex(8)
        self._reactor = Reactor()
        self._all: set[Life] = set()
        self._sandboxes: dict[str, Life] = {}
        self._creating: dict[str, int] = {}
        self._destroying: dict[str, list[int]] = {}
        self._reception = Reception(config, self._reactor, self._on_new_gateway, self._act)
        self._shutdown: int | None = None
        self._gateways = 0
        self._tree: Tree | None = None
        self._patience = Patience(self._reactor, self._end_kept)
        self._desk = VolumeDesk(config, self._reactor)
        self._files = FileDesk()
        self._looks = RootLooks(self._reactor, config.layers_folder)

    def open(self) -> None:
        """Take the place of a launcher that died: clean up after it, then listen. Raises ``MechanismFault``."""
        if self._config.standard:
            with open("/proc/self/mountinfo") as mounts:
                mountinfo = mounts.read()
            if self._config.disks_folder is not None and (lack := find_lack(self._config)):
                raise MechanismFault(f"environments cannot have their files on the disk (environment_disk): {lack}")
            self._tree = Tree(find_hierarchies(mountinfo), self._config.tree_name, find_freezers(mountinfo))
            self._tree.make()
            reclaim.remove_groups(self._tree)
            filter_program: bytes | None = build_filter()
        else:
            filter_program = find_filter()
            system.prctl(system.PR_SET_CHILD_SUBREAPER, 1)
        self._workshop = Workshop(
            self._config, self._reactor, self._tree, filter_program,
            on_ready=self._on_ready, on_gone=self._on_gone, on_memory=self._on_memory,
            on_zygote_end=self._on_zygote_end,
        )  # fmt: skip
        self._stock = Stock(
            self._config, self._reactor, self._workshop, self._all,
            self._make, lambda: bool(self._creating),
        )  # fmt: skip
        reclaim.prepare_folder(self._config)
        self._files.open(self._tree)
        for folder in (self._config.volumes_folder, self._config.disks_folder):
            if folder is not None and self._config.standard:
                images.sweep(folder)
        self._reception.open()

    def run(self) -> None:
        """Serve until told to shut down."""
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            # What a terminal sends to everything in its foreground is for the server to answer.
            signal.signal(number, signal.SIG_IGN)
        wake, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(waker)
        signal.signal(signal.SIGTERM, lambda _number, _frame: None)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        self._watch_signals(wake)
        self._reactor.run()
        self._reception.close()
        if self._tree is not None:
            self._tree.remove()

    def _watch_signals(self, wake: int) -> None:
        self._reactor.watch(wake, lambda: self._on_signal(wake), lambda _reason: self._watch_signals(wake))

    def _on_signal(self, wake: int) -> None:
        numbers = os.read(wake, 4096)
        if signal.SIGTERM in numbers:
            self._begin_shutdown(None)
        if not self._config.standard:
            reclaim.kill_strays(self._workshop.zygote_pids | self._reactor.children)

    def _begin_shutdown(self, number: int | None) -> None:
        self._shutdown = -1 if number is None else number
        self._stock.stop()
        for sandbox in list(self._all):
            sandbox.kill("the service was stopped")
        self._go_on_with_shutdown()

    def _go_on_with_shutdown(self) -> None:
        if self._shutdown is None or self._all:
            return
        if self._workshop.kill_zygotes():
            return
        if self._tree is not None:
            reclaim.remove_groups(self._tree)
        if self._shutdown >= 0:
            self._answer(self._shutdown, {})
        self._reactor.stop()

    def _on_new_gateway(self) -> None:
        """Nobody waits for what the last one had asked for."""
        self._gateways += 1
        self._looks.give_up_all("nobody waits for it")
        self._creating.clear()
        self._destroying.clear()
        for sandbox in self._all:
            sandbox.freezing.forget()

    def _answer(self, number: int, values: Mapping[str, Any], ends: list[int] | None = None) -> None:
        self._say(number, {"ok": True, **values}, ends or [])

    def _refuse(self, number: int, error: str) -> None:
        self._say(number, {"ok": False, "error": error[:1000]}, [])

    def _say(self, number: int, values: Mapping[str, Any], ends: list[int]) -> None:
        """Answer, unless the gateway that asked is gone: the next one has the same numbers for something else."""
        gateway, number = divmod(number, protocol.NUMBERS)
        if gateway == self._gateways:
            self._reception.send({"number": number, **values}, ends)

    def _act(self, number: int, request: protocol.Request, received: list[int]) -> None:
        """A request at which the launcher fails is refused, and nothing else is concerned."""
        kept = False
        number += self._gateways * protocol.NUMBERS
        try:
            kept = isinstance(request, protocol.Keep) and self._keep(request, received)
            if not kept:
                self._do(number, request, received)
        except Exception as error:
            log(f"a request failed: {traceback.format_exc()}")
            self._refuse(number, f"the launcher failed at it: {error!r}")
        if not kept:
            _close_all(received)

    def _keep(self, request: protocol.Keep, received: list[int]) -> bool:
        """Keep an execution's descriptors for the next gateway; whether they are wanted."""
        if request.lifetime_s:
            self._patience.extend(request.lifetime_s)
        sandbox = self._sandboxes.get(request.environment_id)
        return sandbox is not None and not sandbox.ending and sandbox.kept.add(request, received)

    def _end_kept(self) -> None:
        """No gateway has held what is kept: it may be running elsewhere by now."""
        for name, sandbox in self._sandboxes.items():
            for tag in sandbox.kept.kill(sandbox.control):
                ended = {"event": "ended", "environment_id": name, "tag": tag, "reason": "nobody held it"}
                self._reception.send(ended, [])

    def _do(self, number: int, request: protocol.Request, received: list[int]) -> None:
        match request:
            case protocol.Hello():
                self._answer(number, self._describe())
            case protocol.Create():
                self._create(number, request)
            case protocol.Adopt():
                self._adopt(number, request.environment_id)
            case protocol.AddSlot():
                self._add_slot(number, request)
            case protocol.Destroy():
                self._destroy(number, request.environment_id)
            case protocol.Extend():
                self._extend(number, request)
            case protocol.Freeze() | protocol.Thaw():
                self._serve(number, request, received)
            case protocol.Usage() | protocol.Listen() | protocol.Unlisten() | protocol.Dial():
                self._serve(number, request, received)
            case MountVolumes() | CopyFiles() | PackFiles() | UnpackFiles():
                self._serve(number, request, received)
            case MakeVolume() | RemoveVolume() | MeasureVolumes():
                self._desk.serve(request, partial(self._answer, number), partial(self._refuse, number))
            case protocol.LetGo():
                if request.environment_id in self._sandboxes:
                    self._sandboxes[request.environment_id].kept.let_go(request.tag)
            case protocol.Hold():
                self._patience.extend(request.lifetime_s)
            case protocol.ListSandboxes():
                ready = [name for name, sandbox in self._sandboxes.items() if sandbox.ready and not sandbox.ending]
                self._answer_list(number, ready)
            case protocol.Shutdown():
                self._begin_shutdown(number)

    def _describe(self) -> Mapping[str, Any]:
        isolations = [isolation.value for isolation in self._config.isolations]
        freezes = self._tree is not None and self._tree.freezer.is_there
        about = {"version": protocol.PROTOCOL_VERSION, "instance": self._instance}
        return {**about, "isolations": isolations, "freezes": freezes, "volumes_lack": self._desk.lack}

    def _create(self, number: int, request: protocol.Create) -> None:
        if request.environment_id in self._sandboxes or request.environment_id in self._looks:
            return self._refuse(number, "there is a sandbox with this id")
        root = self._workshop.find_unseen_root(request.template, request.layer)
        if not root:
            return self._create_of(number, request, None)

        def seen(found: RootFolder | None, reason: str) -> None:
            if found is None:
                self._refuse(number, f"the root file system of {request.template} cannot be shown: {reason}")
            else:
                self._create_of(number, request, found)

        return self._looks.begin(request.environment_id, root, seen)

    def _create_of(self, number: int, request: protocol.Create, root: RootFolder | None) -> None:
        if self._shutdown is not None:
            return self._refuse(number, "the launcher is shutting down")
        try:
            self._workshop.learn(request.template, request.layer, root)
        except MechanismFault as error:
            return self._refuse(number, error.message)
        spare = self._stock.take(request.isolation, request.template, request.limits)
        if spare is not None:
            spare.environment_id = request.environment_id
            self._sandboxes[request.environment_id] = spare
            spare.extend(request.lifetime_s)
            return self._hand_over(number, spare)
        try:
            if request.isolation is not Isolation.GVISOR:
                self._stock.make_room(request.template)
            sandbox = self._make(request.isolation, request.template, request.limits, request.environment_id)
        except (OSError, MechanismFault) as error:
            return self._refuse(number, f"it could not be started: {error}")
        self._sandboxes[request.environment_id] = sandbox
        self._creating[request.environment_id] = number
        return sandbox.extend(request.lifetime_s)

    def _make(self, isolation: Isolation, template: str, limits: Limits, environment_id: str | None) -> Life:
        """See :class:`Workshop`."""
        sandbox = self._workshop.make(isolation, template, limits, environment_id)
        self._all.add(sandbox)
        return sandbox

    def _find_ready(self, environment_id: str) -> Life | None:
        sandbox = self._sandboxes.get(environment_id)
        return None if sandbox is None or sandbox.ending or not sandbox.ready else sandbox

    def _adopt(self, number: int, environment_id: str) -> None:
        sandbox = self._find_ready(environment_id)
        if sandbox is None:
            return self._refuse(number, _NO_SANDBOX)
        counters = sandbox.open_counters()
        first = {"isolation": sandbox.isolation.value, "counters": list(counters)}
        for values, ends in sandbox.kept.answers([sandbox.control, *counters.values()]):
            self._answer(number, {**first, **values}, ends)
        return _close_all(counters.values())

    def _add_slot(self, number: int, request: protocol.AddSlot) -> None:
        sandbox = self._find_ready(request.environment_id)
        if sandbox is None:
            return self._refuse(number, _NO_SANDBOX)
        if sandbox.freezing.is_on:
            return self._refuse(number, "it is paused")

        def then(control: socket.socket | None, time: int | None) -> None:
            if control is None:
                self._refuse(number, "no slot can be made now")
                return
            counters = {} if time is None else {"time": time}
            self._answer(number, {"counters": list(counters)}, [control.fileno(), *counters.values()])
            # From here on only the gateway holds them: when it lets go, the slot ends.
            control.close()
            _close_all(counters.values())

        return sandbox.add_slot_apart(then) if request.apart else sandbox.add_slot(then)

    def _destroy(self, number: int, environment_id: str) -> None:
        self._looks.give_up(environment_id, "it was deleted")
        sandbox = self._sandboxes.get(environment_id)
        if sandbox is None:
            return self._answer(number, {})
        self._destroying.setdefault(environment_id, []).append(number)
        return sandbox.kill("it was deleted")

    def _extend(self, number: int, request: protocol.Extend) -> None:
        sandbox = self._sandboxes.get(request.environment_id)
        if sandbox is None or sandbox.ending:
            return self._refuse(number, _NO_SANDBOX)
        sandbox.extend(request.lifetime_s)
        return self._answer(number, {})

    def _serve(
        self,
        number: int,
        request: protocol.Usage | protocol.Freezes | protocol.Network | MountVolumes | CopyFiles | Packing,
        received: list[int],
    ) -> None:
        """Do something with a sandbox that is well."""
        sandbox = self._find_ready(request.environment_id)
        answer, refuse = partial(self._answer, number), partial(self._refuse, number)
        if sandbox is None:
            return refuse(_NO_SANDBOX)
        match request:
            case protocol.Usage():
                sandbox.tell_usage(request.looks_inside, answer, refuse)
            case protocol.Freeze() | protocol.Thaw():
                freezing_verbs.serve(request, sandbox, answer, refuse)
            case MountVolumes():
                self._desk.mount(sandbox, request.volumes, answer, refuse)
            case CopyFiles():
                self._files.copy(sandbox, self._find_ready(request.source), request, answer, refuse)
            case PackFiles() | UnpackFiles():
                self._files.pack(sandbox, request, received, answer, refuse)
            case _:
                network_verbs.serve(request, sandbox, answer, refuse)
        return None

    def _answer_list(self, number: int, names: list[str]) -> None:
        for part in protocol.list_in_parts(names):
            self._answer(number, part)

    def _on_ready(self, sandbox: Life) -> None:
        if sandbox.environment_id is None:
            self._stock.on_ready(sandbox)
            return
        number = self._creating.pop(sandbox.environment_id, None)
        if number is None:
            # The gateway that asked is gone, and no later one knows of it.
            sandbox.kill("nobody waits for it")
            return
        self._hand_over(number, sandbox)

    def _hand_over(self, number: int, sandbox: Life) -> None:
        """Answer who asked for a new sandbox."""
        counters, offered = sandbox.open_counters(), sandbox.take_offer()
        self._answer(number, {"counters": list(counters)}, [sandbox.control, *counters.values(), *offered])
        _close_all([*counters.values(), *offered])

    def _on_gone(self, sandbox: Life) -> None:
        self._all.discard(sandbox)
        self._workshop.discard(sandbox)
        if sandbox.environment_id is None:
            self._stock.on_gone(sandbox)
        else:
            self._tell_end(sandbox.environment_id, sandbox.reason)
        self._go_on_with_shutdown()

    def _on_memory(self, sandbox: Life) -> None:
        if sandbox.environment_id is not None:
            self._reception.send({"event": "memory", "environment_id": sandbox.environment_id}, [])

    def _tell_end(self, name: str, reason: str) -> None:
        del self._sandboxes[name]
        creating = self._creating.pop(name, None)
        if creating is not None:
            self._refuse(creating, reason)
        waiting = self._destroying.pop(name, [])
        for number in waiting:
            self._answer(number, {})
        if creating is None and not waiting:
            self._reception.send({"event": "ended", "environment_id": name, "reason": reason}, [])

    def _on_zygote_end(self, zygote: Zygote) -> None:
        log(f"zygote {zygote.template.name} ended: {zygote.last_words}")
        for sandbox in list(self._all):
            sandbox.on_zygote_end(zygote)
        self._go_on_with_shutdown()
