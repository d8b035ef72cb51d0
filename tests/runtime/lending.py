"""Sandboxes of the gvisor class that one test uses after another, because each takes a third of a second to start."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from sandgate.core.ids import EnvironmentId
from sandgate.core.limits import Limits
from sandgate.core.states import ExecutionStatus
from sandgate.sandbox.base import Sandbox
from tests.runtime.hosts import Bench, LauncherHost

_KEPT_S = 600.0
# Each holds some 40 MB of this machine's memory.
_MOST_KEPT = 8
_MOST_BYTES = 100 << 20
_CHILD_S, _LOOK_S = 0.03, 0.03
_CLEAN = """
import os, shutil
for place in ("/workspace", "/home/user", "/tmp", "/var/tmp", "/dev/shm"):
    for name in os.listdir(place):
        path = place + "/" + name
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)
"""
_LOOK = "import os\nprint(len([name for name in os.listdir('/proc') if name.isdigit()]))"

Kind = tuple[str | None, Limits]
# By the launcher's socket: what has been brought back, with how it was made.
_shelves: Mapping[object, dict[EnvironmentId, Kind]] = defaultdict(dict)


class LendingBench(Bench):
    """What was left in a sandbox is removed; one that has ended, or is not clean afterwards, is not lent again."""

    def __init__(self, host: LauncherHost, runtime: Any) -> None:
        super().__init__(host, runtime)
        self._shelf = _shelves[host.config.socket_path]
        self._lent: dict[EnvironmentId, tuple[Kind, Sandbox]] = {}

    async def make(
        self, version: str | None = None, limits: Limits | None = None, lifetime_s: float = _KEPT_S
    ) -> Sandbox:
        """See :class:`Bench`; one with a lifetime of its own is made for the caller."""
        kind = (version, limits or Limits())
        if lifetime_s != _KEPT_S:
            return await super().make(version, limits, lifetime_s)
        sandbox = await self._find(kind) or await super().make(version, limits, lifetime_s)
        self._lent[sandbox.environment_id] = (kind, sandbox)
        return sandbox

    async def _find(self, kind: Kind) -> Sandbox | None:
        # Whoever adopts some of them ends the others.
        there = set(await self.runtime._list())
        for environment_id in [each for each, its_kind in self._shelf.items() if its_kind == kind]:
            del self._shelf[environment_id]
            if environment_id not in there:
                continue
            sandbox = await self.runtime._adopt(environment_id, kind[1])
            assert sandbox is not None, "a sandbox that was well cannot be adopted"
            await sandbox.extend(_KEPT_S)
            return sandbox
        return None

    async def clear_out(self) -> None:
        """End what was brought back, for a test that counts."""
        self._shelf.clear()
        await self.runtime.adopt({})

    async def take_back(self) -> None:
        """After a test: keep what is as good as new for others."""
        for environment_id, (kind, sandbox) in self._lent.items():
            if sandbox.failure is None and await self._is_clean(sandbox):
                self._shelf[environment_id] = kind
            else:
                await self.runtime.destroy(environment_id)
        for environment_id in set(self.made) - self._lent.keys():
            await self.runtime.destroy(environment_id)
        for environment_id in list(self._shelf)[:-_MOST_KEPT]:
            del self._shelf[environment_id]
            await self.runtime.destroy(environment_id)

    def count_groups(self) -> int:
        """See :class:`Bench`."""
        return super().count_groups() - len(self._shelf)

    async def _is_clean(self, sandbox: Sandbox) -> bool:
        """And whether gVisor has given back the memory that it took, which it does not do soon for sockets."""
        cleaned = await self.run(sandbox, _CLEAN)
        used = await sandbox.usage()
        return cleaned.status is ExecutionStatus.COMPLETED and (used.memory_bytes or 0) < _MOST_BYTES

    async def quiet(self, slots: int = 1) -> None:
        """See :class:`Bench`. Asked inside: on the host there is one process for each, whatever it does."""
        deadline = time.monotonic() + 60
        for _kind, sandbox in self._lent.values():
            while sandbox.failure is None and not await self._is_idle(sandbox):
                assert time.monotonic() < deadline, "something runs on"

    async def _is_idle(self, sandbox: Sandbox) -> bool:
        """Whether nothing runs in the slot that is free, and in no slot anything that computes."""
        seen = await self.nothing_runs(sandbox)
        # The next child is being made.
        await asyncio.sleep(_CHILD_S)
        before, since = await sandbox.usage(), time.monotonic()
        await asyncio.sleep(_LOOK_S)
        after = await sandbox.usage()
        return seen and (after.cpu_us or 0) - (before.cpu_us or 0) < 0.5e6 * (time.monotonic() - since)

    async def nothing_runs(self, sandbox: Sandbox) -> bool:
        """See :class:`Bench`; asked in a slot that is free, which is that of the last execution as a rule."""
        return (await self.run(sandbox, _LOOK)).stdout == b"2\n"
