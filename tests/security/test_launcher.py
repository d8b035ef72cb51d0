"""The launcher under attack: through its verbs, by what is asked of it all at once, and by what is left half made."""

import asyncio
import json
import os
import socket
from contextlib import suppress
from typing import Any

import pytest

from sandgate.core.errors import MechanismFault, SandboxFailed
from sandgate.core.ids import EnvironmentId, make_environment_id
from sandgate.core.limits import Limits
from sandgate.sandbox.base import SandboxSpec
from sandgate.sandbox.launcher import protocol
from sandgate.sandbox.launcher.fields import ProtocolError
from tests.runtime.hosts import available_versions, until
from tests.security.siege import Siege
from tests.security.verbs import ABOUT_SANDBOXES, VERBS, whole
from tests.security.wire_fuzz import check_names

pytestmark = pytest.mark.needs_root_namespaces

TEMPLATE = f"python-{available_versions()[-1]}"
NAMES: list[Any] = [
    "", ".", "..", "env-", "env-../../../x", "env-0000000000000/..", "/etc/passwd", "env-aaaaaaaaaaaa\n",
    "env-aaaaaaaaaaaa\0", "ENV-AAAAAAAAAAAA", "env-" + "a" * 41, "env-" + "a" * 60_000, "env-åååååååååååå",
    "env-aaaaaaaaaaaa ", "$(id)", "%s%n", "\ud800", None, 7, [], {}, True,
]  # fmt: skip
TEMPLATES: list[Any] = [
    "", "../python-3.9", "python-3.9/../..", "Python", "a" * 64, "p\0", "p\n", ".", "-x", None, 3, ["python-3.9"],
]  # fmt: skip
VOLUMES: list[Any] = [
    "", "..", "vol-", "vol-../../etc/passwd", "vol-0123456789ab/..", "env-0123456789ab", "vol-0123456789ab\n",
    "vol-" + "0" * 41, "vol-0123456789\xdf0", None, 7, {}, ["vol-0123456789ab"],
]  # fmt: skip
TOPS: list[Any] = ["", ".", "..", "/", "/etc", "tmp/", "tmp/..", "../tmp", "a//b", "a\0", "a\n", "\ud800", None, 7, []]

ODD_NUMBERS: list[Any] = [0, -1, 2**63, 1.5, "1", None, True, []]


def _create(**changes: Any) -> dict[str, Any]:
    limits = {name: getattr(Limits(), name) for name in Limits.__slots__}
    whole = {
        "verb": "create",
        "environment_id": "env-aaaaaaaaaaaa",
        "template": TEMPLATE,
        "limits": limits,
        "lifetime_s": 60,
        **changes,
    }
    return {"number": 1, **whole}


def _hostile() -> list[bytes]:
    """Requests that no gateway sends."""
    limits = {name: getattr(Limits(), name) for name in Limits.__slots__}
    odd_limits: list[Any] = [None, [], {}, {**limits, "privileged": 1}, {"memory_bytes": 1}]
    asked: list[Any] = [_create(environment_id=name) for name in NAMES]
    asked += [_create(template=name) for name in TEMPLATES]
    asked += [_create(limits={**limits, "memory_bytes": value}) for value in ODD_NUMBERS]
    asked += [_create(limits=value) for value in odd_limits]
    asked += [_create(lifetime_s=value) for value in (-1, 1e300, float("nan"), float("inf"), "60", None, True, 2**70)]
    for verb in ABOUT_SANDBOXES:
        asked += [{**whole(verb), "environment_id": name} for name in NAMES]
    asked += [{**whole("copy_files"), "source": name} for name in NAMES]
    for verb in ("make_volume", "remove_volume"):
        asked += [{**whole(verb), "volume": name} for name in VOLUMES]
    for verb in ("measure_volumes", "mount_volumes"):
        asked += [{**whole(verb), "volumes": [name]} for name in VOLUMES]
    for verb in ("pack_files", "unpack_files", "copy_files"):
        asked += [{**whole(verb), "tops": [top]} for top in TOPS]
    asked += [{**whole("dial"), "port": port} for port in (*ODD_NUMBERS, 65_536)]
    asked += [{**whole("dial"), "family": family} for family in (*ODD_NUMBERS, 5)]
    asked += [{"verb": verb, "number": 1} for verb in ("", "exec", "CREATE", "__init__", None, 7, ["create"])]
    asked += [{"verb": "hello", "number": number} for number in (-1, 2**60, 1.5, "1", None, True)]
    packed = [json.dumps(each).encode("utf-8", "surrogatepass") for each in asked]
    return [*packed, b"\xff" * 9, b"[" * 60_000, b'{"verb":' * 9000, b"1" * 60_000, b"null", b'""']


@pytest.mark.not_on_gvisor("nothing of it comes as far as a sandbox of any class")
async def test_hostile_verbs(siege: Siege) -> None:
    """Not one of them is carried out; what cannot be answered costs its sender the connection; the launcher goes on."""
    await siege.bench.runtime.stop(keep_sandboxes=True)
    kept = {siege.attacker.environment_id: Limits(), siege.neighbour.environment_id: Limits()}
    for message in _hostile():
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stranger:
            stranger.connect(str(siege.bench.host.config.socket_path))
            stranger.settimeout(60)
            stranger.send(message)
            heard = stranger.recv(1000)
            assert heard == b"" or json.loads(heard).get("ok") is False, (message[:200], heard)
    siege.bench.runtime = siege.bench.host.runtime()
    await siege.bench.runtime.start(siege.bench.on_end)
    adopted = await siege.bench.runtime.adopt(kept)
    assert {each.environment_id for each in adopted} == set(kept)
    siege.neighbour = next(each for each in adopted if each.environment_id == siege.neighbour.environment_id)


@pytest.mark.not_on_gvisor("nothing of it comes as far as a sandbox of any class")
async def test_a_request_that_is_refused_is_nobody_else_s_affair(siege: Siege) -> None:
    """What users have chosen gets as far as requests: a refusal is the answer to one, and the others go on."""
    client = siege.bench.runtime._client
    before = client._socket
    waiting = asyncio.ensure_future(siege.bench.make())
    for verb, fields in (("create", {"environment_id": "env-../../../x"}), ("no such verb", {})):
        with pytest.raises(SandboxFailed, match="refused"):
            await client.request_with([], verb, limit_s=60, **fields)
    with pytest.raises(SandboxFailed, match="bytes"):
        await client.request_with([], "create", limit_s=60, environment_id="x" * protocol.MESSAGE_LIMIT)
    client.notify("no such verb", [])
    assert await siege.bench.works(await waiting)
    assert client._socket is before


async def test_descriptors_that_come_with_requests(siege: Siege) -> None:
    """Whatever is sent along is closed again, however much of it and with whatever verb."""
    client = siege.bench.runtime._client
    name = siege.attacker.environment_id
    pid = siege.bench.host.process.pid
    before = len(os.listdir(f"/proc/{pid}/fd"))
    kept = {"tag": "t", "slot": 0, "child": 1, "kills": 0, "lifetime_s": 60}
    ends = [os.open("/dev/null", os.O_RDONLY) for _each in range(3)]
    try:
        for verb, count in (("keep", 1), ("keep", 2), ("keep", 3), ("keep", 3), ("hello", 3), ("usage", 3)):
            for _round in range(10):
                client.notify(verb, ends[:count], environment_id=name, **kept)
        client.notify("keep", ends, environment_id="env-bbbbbbbbbbbb", **kept)
        await siege.bench.runtime.check()
    finally:
        for end in ends:
            os.close(end)
    # Three of the last that was kept may stay.
    await until(lambda: len(os.listdir(f"/proc/{pid}/fd")) <= before + 3)
    await siege.bench.runtime.destroy(name)
    await until(lambda: len(os.listdir(f"/proc/{pid}/fd")) <= before)


async def test_many_creates_and_kills(siege: Siege) -> None:
    """Made, half made, killed while they are made, asked for again: nothing stays, and others are served meanwhile."""
    runtime = siege.bench.runtime

    async def make_and_leave(number: int) -> None:
        spec = SandboxSpec(make_environment_id(), TEMPLATE, Limits(), 30.0)
        making = asyncio.ensure_future(runtime.create(spec))
        await asyncio.sleep(0.0007 * (number % 17))
        if number % 3:
            making.cancel()
        with suppress(MechanismFault, asyncio.CancelledError):
            await making
        await asyncio.gather(*(runtime.destroy(spec.environment_id) for _twice in range(2)))

    attack = asyncio.gather(*(make_and_leave(number) for number in range(20 if siege.bench.on_gvisor else 120)))
    while not attack.done():
        assert await siege.bench.works(siege.neighbour)
    await attack
    await until(lambda: siege.bench.count_groups() == 2)
    await siege.bench.quiet(2)


async def test_same_name_at_once(siege: Siege) -> None:
    """Of many that ask for one name one gets it, and the others are refused with nothing of theirs left."""
    spec = SandboxSpec(EnvironmentId("env-cccccccccccc"), TEMPLATE, Limits(), 30.0)
    made = await asyncio.gather(*(siege.bench.runtime.create(spec) for _each in range(20)), return_exceptions=True)
    assert sum(not isinstance(each, BaseException) for each in made) == 1
    await siege.bench.runtime.destroy(spec.environment_id)
    await until(lambda: siege.bench.count_groups() == 2)


async def test_slots_that_nobody_waits_for(siege: Siege) -> None:
    """Slots that are asked for without end are bounded by the processes of their environment."""
    client, name = siege.bench.runtime._client, siege.attacker.environment_id
    for _each in range(300):
        client.notify("add_slot", [], environment_id=name)
    await siege.everybody_answers()
    await siege.bench.runtime.destroy(name)
    await until(lambda: siege.bench.count_groups() == 1)


def test_everything_hostile_is_refused_by_the_parser() -> None:
    """The words above do not even become requests, though all else about them is in order."""
    for verb in VERBS:
        check_names(protocol.parse_request(protocol.pack(whole(verb)))[1])
    for message in _hostile():
        with pytest.raises(ProtocolError):
            protocol.parse_request(message)
