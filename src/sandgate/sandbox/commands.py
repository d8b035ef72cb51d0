"""What the launcher is asked about one sandbox."""

import errno
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import fields

from sandgate.core.errors import SandboxFailed
from sandgate.core.ids import EnvironmentId
from sandgate.sandbox.base import SandboxUsage
from sandgate.sandbox.launcher.client import LauncherClient, Reply

_ASK_LIMIT_S = 5.0
_ADD_LIMIT_S = 45.0


class SandboxCommands:
    """``client()`` is the connection of the moment. Each raises ``LauncherUnavailable``, ``SandboxFailed``."""

    def __init__(self, client: Callable[[], LauncherClient], environment_id: EnvironmentId) -> None:
        self._client = client
        self._environment_id = environment_id

    async def add_slot(self) -> tuple[socket.socket, Mapping[str, int]]:
        """Make another slot; the control socket of it, and its counters."""
        added = await self._client().request("add_slot", limit_s=_ADD_LIMIT_S, environment_id=self._environment_id)
        return added.take_sandbox()[:2]

    async def add_slot_apart(self) -> socket.socket:
        """Make a slot that may go on while the rest stands still; its control socket."""
        added = await self._client().request(
            "add_slot", limit_s=_ADD_LIMIT_S, environment_id=self._environment_id, apart=True
        )
        control, counters, _others = added.take_sandbox()
        for counter in counters.values():
            os.close(counter)
        return control

    async def usage(self, looks_inside: bool = False) -> SandboxUsage:
        """What it uses; with what only those inside can tell, if that is wanted."""
        answer = await self._ask("usage", looks_inside=looks_inside)
        # Nothing is counted without control groups.
        return SandboxUsage(*(answer.values.get(field.name) for field in fields(SandboxUsage)))

    async def extend(self, lifetime_s: float) -> None:
        """Count its lifetime anew from now."""
        await self._client().request(
            "extend", limit_s=_ASK_LIMIT_S, environment_id=self._environment_id, lifetime_s=lifetime_s
        )

    async def freeze(self, *, but_apart: bool = False) -> bool:
        """Let it stand still, or all but the slot that is apart; whether nothing of it still sleeps in the kernel."""
        answer = await self._client().request(
            "freeze", limit_s=_ASK_LIMIT_S, environment_id=self._environment_id, but_apart=but_apart
        )
        return bool(answer.values["settled"])

    async def thaw(self) -> None:
        """Let it go on."""
        await self._ask("thaw")

    async def listen(self) -> tuple[int, int]:
        """A descriptor of what listens on its loopback, which is the caller's, and the port."""
        answer = await self._ask("listen")
        return _take(answer), int(answer.values["port"])

    async def unlisten(self) -> None:
        """Let nothing of the launcher's listen there."""
        await self._ask("unlisten")

    async def dial(self, port: int, family: int) -> tuple[socket.socket, bool]:
        """A connection to a port of its loopback that has begun, and whether ``READY`` comes from it when it is there.

        Raises ``ConnectionRefusedError`` as well.
        """
        try:
            answer = await self._client().request(
                "dial", limit_s=_ASK_LIMIT_S, environment_id=self._environment_id, port=port, family=family
            )
        except SandboxFailed as fault:
            if str(fault.details.get("reason")).startswith(f"{errno.ECONNREFUSED}:"):
                raise ConnectionRefusedError from None
            raise
        return socket.socket(fileno=_take(answer)), bool(answer.values["is_carried"])

    async def _ask(self, verb: str, **fields: bool) -> Reply:
        return await self._client().request(verb, limit_s=_ASK_LIMIT_S, environment_id=self._environment_id, **fields)


def _take(answer: Reply) -> int:
    """The one descriptor of an answer. Raises ``SandboxFailed`` when this process had no room for it."""
    if not answer.received[0]:
        raise SandboxFailed("The gateway has no descriptors left for a connection; raise its limit of open files")
    return answer.received[0].pop()
