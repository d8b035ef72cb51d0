"""The runtime of every class: sandboxes that the launcher makes, and a link to each."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from sandgate.core.errors import LauncherUnavailable, SandboxFailed
from sandgate.core.execution import ExecutionRequest
from sandgate.core.ids import EnvironmentId
from sandgate.core.limits import Limits
from sandgate.core.network import NetworkPolicy
from sandgate.core.session import SessionRequest
from sandgate.core.states import Isolation
from sandgate.sandbox.base import Resumed, SandboxSpec
from sandgate.sandbox.commands import SandboxCommands
from sandgate.sandbox.copying import LauncherCopies
from sandgate.sandbox.execution import WaitingChild
from sandgate.sandbox.given_slot import GivenSlot
from sandgate.sandbox.inner_network import InnerNetwork
from sandgate.sandbox.kept_output import Keeping
from sandgate.sandbox.launcher.client import LauncherClient, Reply
from sandgate.sandbox.launcher.protocol import PROTOCOL_VERSION
from sandgate.sandbox.left_behind import LeftSlot, read_left
from sandgate.sandbox.link import SandboxLink
from sandgate.sandbox.proxy_process import ProxyProcess
from sandgate.sandbox.session import SandboxSession
from sandgate.sandbox.slot import Slot
from sandgate.sandbox.standstill import Standstill
from sandgate.sandbox.volumes import LauncherVolumes

_ASK_LIMIT_S = 5.0
_CREATE_LIMIT_S = 45.0
_DESTROY_LIMIT_S = 30.0
_CONNECT_LIMIT_S = 10.0
_CONNECT_PAUSE_S = 0.02
UNNOTICED = "it ended while the launcher was out of reach"
LAUNCHER_DIED = "the launcher died and took its sandboxes along"


class ZygoteRuntime:
    """See :class:`sandgate.sandbox.base.Runtime`. Reconnects by itself when the launcher was started again."""

    def __init__(
        self,
        isolation: Isolation,
        socket_path: Path,
        spool: Path | None = None,
        *,
        tagged_s: float = 20.0,
        policy: NetworkPolicy | None = None,
    ) -> None:
        """``spool`` is the folder for output of executions with a tag; None: they may lose what was read of it.

        Executions with a tag end when nobody says ``hold`` for ``tagged_s``. ``policy`` is what the administrator says
        of networks. Raises ``ConfigurationError``.
        """
        self._proxy = ProxyProcess(policy or NetworkPolicy())
        self._isolation = isolation
        self._tagged_s = tagged_s
        self._isolations: tuple[Isolation, ...] = (isolation,)
        self._freezes = False
        self._keeping = None if spool is None else Keeping(spool)
        self._socket_path = socket_path
        self._links: dict[EnvironmentId, SandboxLink] = {}
        self._doubtful: set[EnvironmentId] = set()
        self._creating = 0
        # What can be taken up: by a later gateway; by this one, from an earlier one; and the sandboxes of the latter
        # that are nobody's else.
        self._by_tag: dict[str, SandboxLink] = {}
        self._left: set[str] = set()
        self._unclaimed: set[EnvironmentId] = set()
        self._client = LauncherClient(self._on_ended, self._on_lost, self._on_memory)
        self.volumes = LauncherVolumes(lambda: self._client)
        self.copies = LauncherCopies(lambda: self._client)
        self._instance = ""
        self._on_end: Callable[[EnvironmentId, str], None] = lambda _environment_id, _reason: None
        self._reconnecting: asyncio.Task[None] | None = None
        self._stopping = False

    @property
    def isolation(self) -> Isolation:
        """See :class:`sandgate.sandbox.base.Runtime`."""
        return self._isolation

    @property
    def isolations(self) -> Collection[Isolation]:
        """See :class:`sandgate.sandbox.base.Runtime`."""
        return self._isolations

    def can_pause(self, isolation: Isolation) -> bool:
        """See :class:`sandgate.sandbox.base.Runtime`."""
        return self._freezes and isolation is not Isolation.PROCESS

    async def start(self, on_end: Callable[[EnvironmentId, str], None]) -> None:
        """See :class:`sandgate.sandbox.base.Runtime`. Raises ``LauncherUnavailable``."""
        self._on_end = on_end
        try:
            async with asyncio.timeout(_CONNECT_LIMIT_S):
                self._instance = await self._connect()
        except TimeoutError:
            raise LauncherUnavailable(f"No launcher listens at {self._socket_path}.") from None

    async def _connect(self) -> str:
        """Connect as soon as somebody listens; answers which start of the launcher it is."""
        while True:
            client = LauncherClient(self._on_ended, self._on_lost, self._on_memory)
            try:
                client.connect(self._socket_path)
            except LauncherUnavailable:
                await asyncio.sleep(_CONNECT_PAUSE_S)
                continue
            self._client.close()
            self._client = client
            hello = await client.request("hello", limit_s=_ASK_LIMIT_S)
            if hello.values["version"] != PROTOCOL_VERSION:
                raise LauncherUnavailable(
                    "A launcher of another version of sandgate is running; stop that server first, or end its launcher."
                )
            self._isolations = tuple(map(Isolation, hello.values["isolations"]))
            self._freezes = bool(hello.values["freezes"])
            self.volumes.lack = hello.values["volumes_lack"]
            return str(hello.values["instance"])

    def _on_lost(self) -> None:
        if not self._stopping and self._reconnecting is None:
            self._reconnecting = asyncio.ensure_future(self._reconnect())

    async def _reconnect(self) -> None:
        """Find the launcher again, and end what did not survive."""
        try:
            while True:
                with suppress(LauncherUnavailable, SandboxFailed):
                    return await self._find_again()
                await asyncio.sleep(_CONNECT_PAUSE_S)
        finally:
            self._reconnecting = None

    async def _find_again(self) -> None:
        instance = await self._connect()
        same = instance == self._instance
        there = set(await self._list()) if same else set()
        for environment_id in [name for name in self._links if name not in there]:
            self._on_ended(environment_id, UNNOTICED if same else LAUNCHER_DIED)
        self._instance = instance
        await self._end_doubtful()

    async def _end_doubtful(self) -> None:
        """End what was made for a request whose answer got lost."""
        for environment_id in list(self._doubtful):
            await self._client.request("destroy", limit_s=_DESTROY_LIMIT_S, environment_id=environment_id)
            self._doubtful.discard(environment_id)

    def _on_ended(self, name: str, reason: str, tag: str | None = None) -> None:
        """The launcher ended a sandbox, or what it kept of it by a tag."""
        environment_id = EnvironmentId(name)
        if tag is not None:
            if environment_id in self._links:
                self._links[environment_id].lose(tag)
            return
        link = self._links.pop(environment_id, None)
        if link is not None:
            self._forget(link, reason)
            self._on_end(environment_id, reason)

    def _forget(self, link: SandboxLink, reason: str) -> None:
        """It has ended for good."""
        link.fail(reason)
        for tag in link.forget():
            self._forget_tag(tag, link)

    def _forget_tag(self, tag: str, link: SandboxLink) -> None:
        if self._by_tag.get(tag) is link:
            del self._by_tag[tag]

    def _on_memory(self, name: str) -> None:
        link = self._links.get(EnvironmentId(name))
        if link is not None:
            link.end_for_memory()

    async def _list(self) -> Sequence[EnvironmentId]:
        answer = await self._client.request("list", limit_s=_ASK_LIMIT_S)
        return [EnvironmentId(name) for part in answer.parts for name in part["environment_ids"]]

    async def adopt(self, expected: Mapping[EnvironmentId, Limits]) -> Sequence[SandboxLink]:
        """See :class:`sandgate.sandbox.base.Runtime`."""
        names = await self._list()
        adopted = [await self._adopt(name, expected.get(name)) for name in names]
        return [link for link in adopted if link is not None]

    async def _adopt(self, environment_id: EnvironmentId, limits: Limits | None) -> SandboxLink | None:
        """A sandbox that was expected, if it is well; one that is kept for what was left in it is none yet."""
        answer = await self._ask_to_adopt(environment_id)
        left = {} if answer is None else read_left(answer)
        link = None
        if answer is not None and (limits is not None or left):
            link = await self._adopt_one(environment_id, limits or Limits(), answer, left)
        elif answer is not None:
            answer.close()
        if link is not None and (self._note_left(link, left) or limits is not None):
            if limits is not None:
                # What the launcher has killed when there was no gateway.
                link.remove_files([] if answer is None else answer.parts[0].get("killed", []))
                return link
            self._unclaimed.add(environment_id)
            return None
        await self.destroy(environment_id)
        return None

    def _note_left(self, link: SandboxLink, left: Mapping[int, LeftSlot]) -> bool:
        """Remember what can be taken up; of two with one tag only the first can be. False when nothing can be."""
        tags = {execution.tag for slot in left.values() for execution in slot.executions}
        for tag in tags & self._by_tag.keys():
            link.drop(tag)
        fresh = tags - self._by_tag.keys()
        self._by_tag |= dict.fromkeys(fresh, link)
        self._left |= fresh
        return bool(fresh)

    async def _ask_to_adopt(self, environment_id: EnvironmentId) -> Reply | None:
        try:
            # What stands still does not answer.
            await self._client.request("thaw", limit_s=_ASK_LIMIT_S, environment_id=environment_id)
            return await self._client.request("adopt", limit_s=_ASK_LIMIT_S, environment_id=environment_id)
        except SandboxFailed:
            return None

    async def _adopt_one(
        self, environment_id: EnvironmentId, limits: Limits, answer: Reply, left: Mapping[int, LeftSlot]
    ) -> SandboxLink | None:
        try:
            link = self._link(environment_id, limits, answer, Isolation(answer.parts[0]["isolation"]))
        except SandboxFailed:
            for slot in left.values():
                slot.close()
            return None
        try:
            await link.adopt(left)
        except SandboxFailed as error:
            self._links.pop(environment_id, None)
            self._forget(link, error.message)
            return None
        return link

    def kept(self) -> Collection[str]:
        """See :class:`sandgate.sandbox.base.Runtime`."""
        return frozenset(self._left)

    def read_note(self, environment_id: EnvironmentId, tag: str) -> bytes | None:
        """See :class:`sandgate.sandbox.base.Runtime`."""
        return None if self._keeping is None else self._keeping.read_note(environment_id, tag)

    async def resume(self, request: ExecutionRequest, limits: Limits) -> Resumed | None:
        """See :class:`sandgate.sandbox.base.Runtime`."""
        tag = request.tag or ""
        if tag not in self._left:
            return None
        self._left.discard(tag)
        link = self._by_tag.get(tag)
        execution = None if link is None else link.resume(request, limits)
        if link is None or execution is None:
            return None
        self._unclaimed.discard(link.environment_id)
        return Resumed(link, execution, execution.age_s)

    def resume_session(self, request: SessionRequest) -> SandboxSession | None:
        """See :class:`sandgate.sandbox.base.Runtime`."""
        tag = request.tag or ""
        if tag not in self._left:
            return None
        self._left.discard(tag)
        link = self._by_tag.get(tag)
        return None if link is None else link.resume_session(request)

    async def discard(self, but: Collection[str] = ()) -> None:
        """See :class:`sandgate.sandbox.base.Runtime`."""
        for tag in [tag for tag in self._left if tag not in but]:
            self._left.discard(tag)
            link = self._by_tag.get(tag)
            if link is not None and link.environment_id in self._unclaimed:
                await self._end(link.environment_id)
            elif link is not None:
                link.drop(tag)
                link.remove_files([tag])
        if self._keeping is not None:
            self._keeping.sweep(self._links)

    async def _end(self, environment_id: EnvironmentId) -> None:
        """End a sandbox; without a launcher as soon as there is one again."""
        self._unclaimed.discard(environment_id)
        try:
            await self.destroy(environment_id)
        except LauncherUnavailable:
            self._doubtful.add(environment_id)

    def let_go(self, tag: str) -> None:
        """See :class:`sandgate.sandbox.base.Runtime`."""
        link = self._by_tag.get(tag)
        if link is not None:
            link.let_go(tag)

    def hold(self) -> None:
        """See :class:`sandgate.sandbox.base.Runtime`."""
        self._client.notify("hold", [], lifetime_s=self._tagged_s)

    def _link(
        self, environment_id: EnvironmentId, limits: Limits, answer: Reply, isolation: Isolation | None = None
    ) -> SandboxLink:
        """The link to a sandbox of a class, by default of the one that the launcher names."""
        commands = SandboxCommands(lambda: self._client, environment_id)

        def keep(tag: str, child: WaitingChild, slot: Slot, kills: int, *, is_command: bool) -> None:
            ends = [child.channel.fileno(), child.stdout, child.stderr]
            if slot.place:
                ends.append(slot.control)
            self._by_tag[tag] = link
            self._client.notify(
                "keep", ends, environment_id=environment_id, tag=tag, slot=slot.place, child=child.number, kills=kills,
                lifetime_s=0 if is_command else self._tagged_s,
            )  # fmt: skip

        def let_go(tag: str) -> None:
            self._forget_tag(tag, link)
            self._client.notify("let_go", [], environment_id=environment_id, tag=tag)

        control, counters, offered = answer.take_sandbox()
        contained = Isolation(isolation or answer.values["isolation"]) is Isolation.GVISOR
        self._links[environment_id] = link = SandboxLink(
            environment_id, control, limits,
            add_slot=commands.add_slot, usage=commands.usage, extend=commands.extend, keep=keep, let_go=let_go,
            standstill=Standstill(commands),
            keeping=self._keeping, counters=counters, network=InnerNetwork(environment_id, commands, self._proxy),
            is_busy=lambda: self._creating > 0, slot_type=GivenSlot if contained else Slot,
        )  # fmt: skip
        link.take_up(offered)
        return link

    async def create(self, spec: SandboxSpec) -> SandboxLink:
        """See :class:`sandgate.sandbox.base.Runtime`."""
        self._doubtful.discard(spec.environment_id)
        isolation = spec.isolation or self._isolation
        self._creating += 1
        try:
            answer = await self._client.request("create", limit_s=_CREATE_LIMIT_S, **spec.to_request(isolation))
        except asyncio.CancelledError:
            await self._abandon(spec.environment_id)
            raise
        except LauncherUnavailable:
            self._doubtful.add(spec.environment_id)
            # One that is only late reads this behind the request, and keeps nothing that nobody knows of.
            self._client.notify("destroy", [], environment_id=spec.environment_id)
            raise
        finally:
            self._creating -= 1
        try:
            return self._link(spec.environment_id, spec.limits, answer, isolation)
        except SandboxFailed:
            await self._abandon(spec.environment_id)
            raise

    async def _abandon(self, environment_id: EnvironmentId) -> None:
        """End what is being made for a caller that has gone."""
        self._doubtful.add(environment_id)
        with suppress(LauncherUnavailable):
            await asyncio.shield(self.destroy(environment_id))
            self._doubtful.discard(environment_id)

    async def destroy(self, environment_id: EnvironmentId) -> None:
        """See :class:`sandgate.sandbox.base.Runtime`."""
        link = self._links.pop(environment_id, None)
        if link is not None:
            self._forget(link, "it was ended")
        await self._client.request("destroy", limit_s=_DESTROY_LIMIT_S, environment_id=environment_id)

    async def check(self) -> None:
        """See :class:`sandgate.sandbox.base.Runtime`."""
        await self._client.request("hello", limit_s=_ASK_LIMIT_S)

    async def stop(self, *, keep_sandboxes: bool) -> None:
        """See :class:`sandgate.sandbox.base.Runtime`."""
        self._stopping = True
        if self._reconnecting is not None:
            self._reconnecting.cancel()
        for link in list(self._links.values()):
            link.fail("the service was stopped")
            link.leave()
        if not keep_sandboxes:
            # Without a launcher there is nothing left to end.
            with suppress(LauncherUnavailable):
                await self._client.request("shutdown", limit_s=_DESTROY_LIMIT_S)
        await self._proxy.stop()
        self._links.clear()
        self._left.clear()
        self._client.close()
        if self._keeping is not None:
            self._keeping.close()
