"""The proxy, as the gateway sees it: started when the first environment has a network, and again when it died."""

import asyncio
import itertools
import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sandgate.core.errors import ConfigurationError, LauncherUnavailable, NetworkUnavailable, SandboxFailed
from sandgate.core.ids import EnvironmentId
from sandgate.core.network import NetworkPolicy, NetworkReport, NetworkRules, NetworkTotals
from sandgate.sandbox import descriptors
from sandgate.sandbox.connection_log import log_note
from sandgate.sandbox.proxy import wire
from sandgate.sandbox.proxy.server import make_gatekeeper

_ASK_LIMIT_S = 10.0
# For what is still to be in the log.
_GOODBYE_LIMIT_S = 2.0
_REVIVE_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 5.0
_READS_AT_ONCE = 64
_AGAIN = "The proxy is being started again; ask again"

Listen = Callable[[], Awaitable[int]]
"""A descriptor of an environment's listener, which is the caller's to close."""
Unlisten = Callable[[], Awaitable[None]]
"""Lets go of an environment's listener."""


@dataclass(slots=True, eq=False)
class _Request:
    message: bytes
    ends: list[int]
    answered: asyncio.Future[list[dict[str, Any]]]
    parts: list[dict[str, Any]]

    def close(self) -> None:
        """Let go of the copies of its descriptors."""
        while self.ends:
            os.close(self.ends.pop())


class ProxyChannel:
    """One start of the proxy and the channel to it. ``on_lost`` is called once when it is gone."""

    def __init__(self, policy: NetworkPolicy, on_lost: Callable[[], None]) -> None:
        """Raises ``OSError``."""
        self._on_lost = on_lost
        self._numbers = itertools.count(1)
        self._pending: dict[int, _Request] = {}
        self._unsent: deque[_Request] = deque()
        self._channel, inner = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with inner:
            try:
                self._process = subprocess.Popen(  # noqa: S603 - our own program
                    [sys.executable, "-m", "sandgate.sandbox.proxy.main", str(inner.fileno())],
                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=[inner.fileno()], cwd="/",
                    env={"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LANG": "C.UTF-8"},
                )  # fmt: skip
            except OSError:
                self._channel.close()
                raise
        self._channel.setblocking(False)
        self._channel.send(wire.pack_policy(policy))
        asyncio.get_running_loop().add_reader(self._channel.fileno(), self._on_readable)

    async def ask(self, verb: str, ends: Sequence[int] = (), **fields: Any) -> list[dict[str, Any]]:
        """The parts of the answer. Raises ``NetworkUnavailable``.

        What is told has to be done: a proxy that does not say so in time is lost. One that only does not report stays.
        """
        if self._channel.fileno() < 0:
            raise NetworkUnavailable(_AGAIN)
        number = next(self._numbers)
        message = wire.pack({"number": number, "verb": verb, **fields})
        request = _Request(message, _copies(ends), asyncio.get_running_loop().create_future(), [])
        self._pending[number] = request
        try:
            self._unsent.append(request)
            self._send()
            async with asyncio.timeout(_ASK_LIMIT_S):
                return await request.answered
        except TimeoutError:
            if verb != "report":
                self.lose()
            elif request in self._unsent:
                self._unsent.remove(request)
            raise NetworkUnavailable(f"The proxy did not answer {verb} in {_ASK_LIMIT_S:g} s; ask again") from None
        finally:
            self._pending.pop(number, None)

    def _send(self) -> None:
        """Send what waits, as far as the proxy takes it, and go on when it takes more."""
        if self._channel.fileno() < 0:
            return
        loop = asyncio.get_running_loop()
        try:
            while self._unsent:
                request = self._unsent[0]
                descriptors.send(self._channel, request.message, request.ends)
                self._unsent.popleft().close()
        except BlockingIOError:
            loop.add_writer(self._channel.fileno(), self._send)
        except OSError:
            self.lose()
        else:
            loop.remove_writer(self._channel.fileno())

    def _on_readable(self) -> None:
        for _read in range(_READS_AT_ONCE):
            if self._channel.fileno() < 0:
                return
            try:
                data, surplus = descriptors.receive(self._channel, 1)
            except BlockingIOError:
                return
            except OSError:
                data, surplus = b"", []
            for end in surplus:
                os.close(end)
            if not data:
                self.lose()
                return
            self._on_message(wire.unpack(data))

    def _on_message(self, answer: dict[str, Any]) -> None:
        if "note" in answer:
            log_note(answer["note"])
            return
        request = self._pending.get(answer["number"])
        if request is None or request.answered.done():
            return
        request.parts.append(answer)
        if not answer["ok"]:
            request.answered.set_exception(NetworkUnavailable(f"The proxy refused: {answer['error']}"))
        elif not answer.get("more"):
            request.answered.set_result(request.parts)

    def lose(self) -> None:
        """Give it up, and say so. Twice is no error."""
        if self._channel.fileno() >= 0:
            self.close()
            self._on_lost()

    def close(self) -> None:
        """End the process; whoever waits for an answer is refused. Twice is no error."""
        if self._channel.fileno() < 0:
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._channel.fileno())
        loop.remove_writer(self._channel.fileno())
        self._channel.close()
        self._process.kill()
        self._process.wait()
        while self._unsent:
            self._unsent.popleft().close()
        for request in self._pending.values():
            if not request.answered.done():
                request.answered.set_exception(NetworkUnavailable(_AGAIN))


def _copies(ends: Sequence[int]) -> list[int]:
    """Copies, because the originals may be closed before their turn comes. Raises ``NetworkUnavailable``."""
    copies: list[int] = []
    try:
        copies.extend(os.dup(end) for end in ends)
    except OSError as error:
        raise NetworkUnavailable(f"The gateway cannot pass a listener on: {error.strerror}") from error
    return copies


@dataclass(slots=True)
class _Network:
    owner: str
    rules: NetworkRules
    listen: Listen
    unlisten: Unlisten


_Say = Callable[[ProxyChannel, EnvironmentId], Awaitable[None]]


class ProxyProcess:
    """Keeps a proxy running for as long as there are environments with a network."""

    def __init__(self, policy: NetworkPolicy) -> None:
        """Raises ``ConfigurationError`` for a policy that cannot be read."""
        make_gatekeeper(policy)
        if len(wire.pack_policy(policy)) > wire.LONGEST_MESSAGE:
            raise ConfigurationError(
                "SANDGATE_NETWORK_ALLOW_SPECIAL, SANDGATE_NETWORK_ONLY and SANDGATE_NETWORK_DENY may have "
                f"{wire.LONGEST_MESSAGE} bytes together; use networks and patterns with a star to say it shorter"
            )
        self._policy = policy
        self._networks: dict[EnvironmentId, _Network] = {}
        self._channel: ProxyChannel | None = None
        self._reviving: asyncio.Task[None] | None = None
        self._telling: set[asyncio.Task[None]] = set()
        self._stopped = False

    async def open(
        self, environment_id: EnvironmentId, owner: str, rules: NetworkRules, listen: Listen, unlisten: Unlisten
    ) -> None:
        """Let an environment reach what its rules say. Raises ``NetworkUnavailable`` and what ``listen`` does.

        ``unlisten`` is called when it was closed while ``listen`` was at work.
        """
        network = _Network(owner, rules, listen, unlisten)
        known = self._networks.get(environment_id)
        self._networks[environment_id] = network
        try:
            if known is None:
                await self._open(environment_id, network)
            else:
                await self._ask("change", environment_id, allow=rules.texts())
        except BaseException:
            # What was said last stays true: a proxy that is started again is told that.
            if self._networks.get(environment_id) is network:
                self._restore(environment_id, known)
            raise

    def _restore(self, environment_id: EnvironmentId, known: _Network | None) -> None:
        if known is not None:
            self._networks[environment_id] = known
            # The proxy may have heard of the others, or may yet.
            self._tell(self._say_rules, environment_id)
        else:
            self.close(environment_id)

    async def _open(self, environment_id: EnvironmentId, network: _Network) -> None:
        listener = await network.listen()
        try:
            # It may have been closed meanwhile, or been given other rules, which the proxy was told in vain.
            current = self._networks.get(environment_id)
            if current is None:
                await network.unlisten()
            else:
                await self._ask("open", environment_id, [listener], owner=current.owner, allow=current.rules.texts())
        finally:
            os.close(listener)

    async def report(self, environment_id: EnvironmentId) -> NetworkReport:
        """What an environment has reached; nothing when it has no network. Raises ``NetworkUnavailable``."""
        network = self._networks.get(environment_id)
        if network is None:
            return NetworkReport(None, NetworkTotals(), ())
        return wire.join_parts(network.rules, await self._ask("report", environment_id))

    def close(self, environment_id: EnvironmentId) -> None:
        """Cut an environment off, at once; one that has no network is no error."""
        if self._networks.pop(environment_id, None) is not None:
            self._tell(self._say_closed, environment_id)

    def _tell(self, say: _Say, environment_id: EnvironmentId) -> None:
        """Tell the proxy something that stands; one that cannot be told is ended, and the next one knows it."""
        if self._channel is None:
            return
        task = asyncio.ensure_future(self._tell_or_lose(say, self._channel, environment_id))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _tell_or_lose(self, say: _Say, channel: ProxyChannel, environment_id: EnvironmentId) -> None:
        try:
            await say(channel, environment_id)
        except NetworkUnavailable:
            channel.lose()

    async def _say_closed(self, channel: ProxyChannel, environment_id: EnvironmentId) -> None:
        await channel.ask("close", environment_id=environment_id)

    async def _say_rules(self, channel: ProxyChannel, environment_id: EnvironmentId) -> None:
        network = self._networks.get(environment_id)
        if network is not None:
            await channel.ask("change", environment_id=environment_id, allow=network.rules.texts())

    async def _ask(
        self, verb: str, environment_id: EnvironmentId, ends: Sequence[int] = (), **fields: Any
    ) -> Sequence[Mapping[str, Any]]:
        if self._channel is None:
            self._channel = self._start()
        return await self._channel.ask(verb, ends, environment_id=environment_id, **fields)

    def _start(self) -> ProxyChannel:
        if self._reviving is not None or self._stopped:
            raise NetworkUnavailable(_AGAIN)
        try:
            return ProxyChannel(self._policy, self._on_lost)
        except OSError as error:
            raise NetworkUnavailable(f"The proxy cannot be started: {error.strerror}") from error

    def _on_lost(self) -> None:
        self._channel = None
        if not self._stopped and self._reviving is None and self._networks:
            self._reviving = asyncio.ensure_future(self._revive())

    async def _revive(self) -> None:
        """Start it again and tell it of every environment, until that has worked."""
        pause_s = _REVIVE_PAUSE_S
        while self._networks and not self._stopped:
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            if await self._start_again():
                break
        self._reviving = None

    async def _start_again(self) -> bool:
        channel: ProxyChannel | None = None
        try:
            channel = self._channel = ProxyChannel(self._policy, self._on_lost)
            for environment_id, network in list(self._networks.items()):
                # Without a launcher, or without this sandbox, it is told when those are there again, or never.
                with suppress(SandboxFailed, LauncherUnavailable):
                    await self._open(environment_id, network)
        except (OSError, NetworkUnavailable):
            if channel is not None:
                channel.lose()
            return False
        return channel is self._channel

    async def stop(self) -> None:
        """End it, when it has said what became of the connections that are open."""
        self._stopped = True
        for environment_id in list(self._networks):
            self.close(environment_id)
        if self._telling:
            await asyncio.wait(set(self._telling), timeout=_GOODBYE_LIMIT_S)
        tasks = [*self._telling, *([self._reviving] if self._reviving is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._channel is not None:
            self._channel.close()
            self._channel = None
