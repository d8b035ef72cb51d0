"""Made-up talk for the sides that listen: the gateway's slots, the launcher's parser, and a launcher that runs.

``python -m tests.security.wire_fuzz [--examples N] [--verbs N] [--seed S]`` tries more of it than the tests do.
"""

import argparse
import asyncio
import json
import os
import random
import re
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandgate.core.errors import MechanismFault
from sandgate.core.execution import ExecutionRequest
from sandgate.core.ids import EnvironmentId
from sandgate.core.limits import Limits
from sandgate.core.states import Isolation
from sandgate.sandbox import descriptors
from sandgate.sandbox.base import SandboxSpec
from sandgate.sandbox.execution import ZygoteExecution
from sandgate.sandbox.kernel_kills import KernelKills
from sandgate.sandbox.launcher import protocol
from sandgate.sandbox.launcher.client import LauncherClient
from sandgate.sandbox.launcher.fields import ProtocolError
from sandgate.sandbox.slot import Slot
from sandgate_agent import wire
from tests.runtime.hosts import Bench, available_versions, launcher_host, until
from tests.security.verbs import NAME, VERBS, VOLUME, whole

KINDS = (wire.CHILD, wire.EXITED, wire.KILL, wire.RESET, wire.RESUME, wire.HOLD, wire.NEXT, wire.CLONED, b"?")
ENDS = ("reading", "writing", "stream", "datagram", "null", "memory", "same")
# Everything but what ends the launcher; sandboxes are made more often than all else, so that there are some.
ASKED = (*(verb for verb in VERBS if verb != "shutdown"), *["create"] * 5)
# Told, and never answered.
TOLD = ("keep", "let_go", "hold")
# Longer than any test; with less, others would find what they keep on this launcher ended.
_HELD_S = 86_400
NAMES = tuple(EnvironmentId(f"env-fuzz{number:012}") for number in range(5))

small = st.integers(0, 4) | st.integers(0, 2**64 - 1)
proper = st.builds(wire.pack_numbered, st.sampled_from(KINDS), small) | st.builds(
    wire.pack_exited, small, st.integers(-(2**31), 2**31 - 1), small, small, small
)


@st.composite
def spoiled(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> bytes:
    """Bytes in order, or with a piece that is cut out, repeated or replaced."""
    data = draw(whole)
    for _change in range(draw(st.integers(0, 2))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, len(data)))
        data = data[:start] + draw(st.just(b"") | st.just(data[start:end] * 2) | st.binary(max_size=40)) + data[end:]
    return data


actions = st.lists(
    st.tuples(st.just("send"), spoiled(proper), st.lists(st.sampled_from(ENDS), max_size=5))
    | st.tuples(st.sampled_from(("child", "exit", "execute", "cancel", "close", "reset")), st.just(b""), st.just([])),
    max_size=14,
)


class Talker:
    """The far side of a slot, which says whatever it is told to."""

    def __init__(self) -> None:
        near, self.far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.far.setblocking(False)
        self.lost = 0
        self.number = 0
        self.kept: list[int] = []
        self.running: list[ZygoteExecution] = []
        self.slot = Slot(near, lambda _slot: None, self._on_lost)

    def _on_lost(self, _slot: Slot) -> None:
        self.lost += 1

    def _end(self, kind: str) -> int:
        if kind in ("reading", "writing"):
            pair = os.pipe()
            self.kept.append(pair[kind == "reading"])
            return pair[kind == "writing"]
        if kind in ("stream", "datagram"):
            one, other = socket.socketpair(type=socket.SOCK_STREAM if kind == "stream" else socket.SOCK_DGRAM)
            self.kept.append(one.detach())
            return other.detach()
        if kind == "null" or (kind == "same" and self.far.fileno() < 0):
            return os.open("/dev/null", os.O_RDONLY)
        return os.memfd_create("x") if kind == "memory" else os.dup(self.far.fileno())

    def send(self, message: bytes, kinds: Sequence[str]) -> None:
        """Say something, with descriptors."""
        ends = [self._end(kind) for kind in kinds]
        with suppress(OSError):
            descriptors.send(self.far, message, ends)
        for end in ends:
            os.close(end)

    def act(self, what: str, message: bytes, kinds: Sequence[str]) -> None:
        """Do one thing."""
        if what == "send":
            self.send(message, kinds)
        elif what == "child":
            self.number += 1
            self.send(wire.pack_numbered(wire.CHILD, self.number), ("stream", "reading", "reading"))
        elif what == "exit":
            self.send(wire.pack_exited(self.number, 0, 1, 1, 1), ())
        elif what == "execute" and self.slot.is_ready:
            self.running.append(ZygoteExecution(ExecutionRequest("pass", 60), Limits(), KernelKills(_none)))
            self.slot.start(self.running[-1], 0)
        elif what == "cancel" and self.running:
            self.running[-1].cancel()
        elif what == "close":
            self.far.close()

    def close(self) -> None:
        """Let go of everything."""
        self.slot.close()
        self.far.close()
        for end in self.kept:
            os.close(end)


async def _none() -> int:
    return 0


async def _talk(said: Sequence[tuple[str, bytes, Sequence[str]]]) -> None:
    problems: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: problems.append(context))
    talker = Talker()
    for what, message, kinds in said:
        talker.act(what, message, kinds)
        for _turn in range(3):
            await asyncio.sleep(0)
    talker.close()
    async with asyncio.timeout(30):
        for each in talker.running:
            await each.wait()
    assert talker.lost <= 1
    assert problems == []


def check_talk(said: Sequence[tuple[str, bytes, Sequence[str]]]) -> None:
    """Whatever is said to a slot, it is lost once at most, every execution ends, and no descriptor stays."""
    before = len(os.listdir("/proc/self/fd"))
    asyncio.run(_talk(said))
    assert len(os.listdir("/proc/self/fd")) <= before


_SANDBOX, _VOLUME = re.compile(r"env-[0-9a-z]{12,40}"), re.compile(r"vol-[0-9a-z]{12,40}")
_TEMPLATE = re.compile(r"[0-9a-z][0-9a-z._-]{0,62}")
requests = st.sampled_from(sorted(VERBS)).map(lambda verb: json.dumps(whole(verb)).encode())


def check_request(data: bytes) -> None:
    """Whatever is asked of the launcher is refused in one way, or is a request whose names are names."""
    with suppress(ProtocolError):
        number, request = protocol.parse_request(data)
        assert 0 <= number < 2**53
        check_names(request)


def check_names(request: protocol.Request) -> None:
    """Names of a request are of the exact form, so that a path made of one leads nowhere else."""
    for field in ("environment_id", "source"):
        assert _SANDBOX.fullmatch(getattr(request, field, NAME))
    volumes = [each if isinstance(each, str) else each.volume for each in getattr(request, "volumes", ())]
    assert all(map(_VOLUME.fullmatch, [*volumes, getattr(request, "volume", VOLUME)]))
    assert _TEMPLATE.fullmatch(getattr(request, "template", "python"))
    for top in getattr(request, "tops", ()):
        assert all(part.isalpha() and part.isascii() for part in top.split("/"))


def check_answer(data: bytes) -> None:
    """Whatever a child says at its end is read within its bounds."""
    said, _left = wire.split_ending(data)
    outputs, rest = wire.split_outputs(said)
    assert outputs is None or len(outputs) <= wire.OUTPUTS_LIMIT
    report = wire.parse_report(rest)
    assert report is None or all(len(text) <= len(data) for text in report)


answers = spoiled(
    st.builds(
        lambda outputs, name, end: wire.pack_outputs(outputs) + wire.pack_report(name, "v", "t") + end,
        st.binary(max_size=99),
        st.text(max_size=20),
        st.sampled_from((wire.LEFT_FILES, wire.LEFT_NOTHING, b"")),
    )
)


async def _ask(client: LauncherClient, verb: str, name: EnvironmentId, source: EnvironmentId) -> None:
    """One request, with a file for those who want one."""
    fields = {**whole(verb), "environment_id": name, "source": source, "lifetime_s": 20}
    for field in ("verb", "number"):
        del fields[field]
    file = os.memfd_create("archive")
    try:
        if verb in TOLD:
            client.notify(verb, [file] * 3, **{**fields, "lifetime_s": _HELD_S})
        else:
            (await client.request_with([file], verb, limit_s=5, **fields)).close()
    finally:
        os.close(file)


async def any_order(bench: Bench, seed: int, count: int) -> None:
    """Ask a launcher that runs for everything in any order; it goes on, and in the end nothing is left."""
    chance = random.Random(seed)
    runtime, client = bench.runtime, bench.runtime._client
    template = f"python-{available_versions()[-1]}"

    async def ask(name: EnvironmentId) -> None:
        verb = chance.choice(ASKED)
        await asyncio.sleep(chance.random() * 0.01)
        with suppress(MechanismFault, TimeoutError):
            if verb == "create":
                limits = Limits(memory_bytes=chance.choice((64, 512)) << 20)
                async with asyncio.timeout(chance.choice((0.001, 0.01, 5))):
                    await runtime.create(SandboxSpec(name, template, limits, chance.choice((0.01, 30.0))))
            elif verb == "destroy":
                await runtime.destroy(name)
            else:
                await _ask(client, verb, name, chance.choice(NAMES))

    for _round in range(count // 10):
        await asyncio.gather(*(ask(chance.choice(NAMES)) for _each in range(10)))
    for name in NAMES:
        await runtime.destroy(name)
    (await client.request("remove_volume", limit_s=60, volume=VOLUME)).close()
    await runtime.check()


async def _alone(seed: int, count: int) -> None:
    with launcher_host(Isolation.STANDARD, spares=2) as host:
        bench = Bench(host, host.runtime())
        await bench.runtime.start(bench.on_end)
        await any_order(bench, seed, count)
        assert await bench.works(await bench.make())
        await bench.runtime.stop(keep_sandboxes=False)
        await until(lambda: not host.groups())


def main() -> None:
    """Try as much as the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=5000, help="made-up examples of each kind")
    parser.add_argument("--verbs", type=int, default=2000, help="requests to a launcher that runs, as root only")
    parser.add_argument("--seed", type=int, default=1, help="of the requests to a launcher that runs")
    asked = parser.parse_args()
    some = settings(max_examples=asked.examples, deadline=None, suppress_health_check=list(HealthCheck))
    for strategy, check in ((actions, check_talk), (spoiled(requests), check_request), (answers, check_answer)):
        some(given(strategy)(check))()
        sys.stdout.write(f"{check.__name__}: {asked.examples} examples\n")
    if asked.verbs and os.geteuid() == 0:
        asyncio.run(_alone(asked.seed, asked.verbs))
        sys.stdout.write(f"any order: {asked.verbs} requests\n")


if __name__ == "__main__":
    main()
