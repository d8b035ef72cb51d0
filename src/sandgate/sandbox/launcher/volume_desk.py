"""What the launcher does about volumes: makes, measures and removes them, and gives them to sandboxes."""

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from sandgate.sandbox.launcher.attaching import Wanted
from sandgate.sandbox.launcher.config import LauncherConfig
from sandgate.sandbox.launcher.errand import Errand
from sandgate.sandbox.launcher.images import PROGRAMS, Shelf
from sandgate.sandbox.launcher.life import Life
from sandgate.sandbox.launcher.reactor import Reactor
from sandgate.sandbox.launcher.volume_verbs import MakeVolume, RemoveVolume, VolumeMount, Volumes

_LIMIT_S = 40.0

OnDone = Callable[[Mapping[str, Any]], None]
Refuse = Callable[[str], None]


def find_lack(config: LauncherConfig) -> str:
    """What a machine obviously lacks for volumes; empty when they can be tried."""
    if not config.standard:
        return "environments of the process class have no mounts of their own"
    if config.volumes_folder is None:
        return "the server keeps none"
    if not os.path.exists("/dev/loop-control"):
        return "there is no /dev/loop-control; load the module loop (modprobe loop), or give the container the device"
    if shutil.which("mkfs.ext4", path=PROGRAMS) is None:
        return "mkfs.ext4 was not found; install the package e2fsprogs"
    return ""


class VolumeDesk:
    """``lack`` is why there are no volumes, empty when there are."""

    def __init__(self, config: LauncherConfig, reactor: Reactor) -> None:
        self._reactor = reactor
        self._shelf = None if config.volumes_folder is None else Shelf(config.volumes_folder)
        self.lack = find_lack(config)

    def serve(self, request: Volumes, answer: OnDone, refuse: Refuse) -> None:
        """Do what is asked; it is answered when it is done. Raises ``OSError``."""
        if self._shelf is None or self.lack:
            return refuse(self.lack)

        def told(said: bytes | None, reason: str) -> None:
            if said is None:
                refuse(reason)
            else:
                answer(json.loads(said))

        Errand(self._reactor, partial(_do, self._shelf, request), [], _LIMIT_S, told)
        return None

    def mount(self, sandbox: Life, volumes: Sequence[VolumeMount], answer: OnDone, refuse: Refuse) -> None:
        """Give a sandbox volumes; it is answered when it has all of them. When that fails it may have some."""
        if self._shelf is None or self.lack:
            return refuse(self.lack)
        wanted = [
            Wanted(each.path, each.read_only, partial(self._shelf.mount, each.volume, each.size_bytes))
            for each in volumes
        ]

        def told(reason: str | None) -> None:
            if reason is None:
                answer({})
            else:
                refuse(reason)

        try:
            return sandbox.attach(wanted, _LIMIT_S, told)
        except OSError as error:
            return refuse(error.strerror or str(error))


def _do(shelf: Shelf, request: Volumes) -> bytes:
    """In a process of its own. Raises ``OSError``."""
    if isinstance(request, MakeVolume):
        shelf.make(request.volume, request.size_bytes)
    elif isinstance(request, RemoveVolume):
        shelf.remove(request.volume)
    else:
        return json.dumps({"used_bytes": shelf.usage(request.volumes)}).encode()
    return b"{}"
