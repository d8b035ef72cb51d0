"""Requests to the launcher, which runs as root: what is not exactly one of its verbs is refused."""

import json
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandgate.config.settings import Settings
from sandgate.core.ids import make_environment_id, make_volume_id
from sandgate.core.limits import Limits
from sandgate.core.states import Isolation
from sandgate.core.template import Layer
from sandgate.sandbox.launcher import protocol
from sandgate.sandbox.launcher.copy_verbs import CopyFiles, PackFiles, UnpackFiles
from sandgate.sandbox.launcher.fields import ProtocolError
from sandgate.sandbox.launcher.protocol import parse_request
from sandgate.sandbox.launcher.volume_verbs import MakeVolume, MeasureVolumes, MountVolumes, RemoveVolume, VolumeMount
from tests.security.verbs import ABOUT_SANDBOXES, VERBS, whole

ID, OTHER = make_environment_id(), make_environment_id()
CREATE = {
    "verb": "create",
    "isolation": "gvisor",
    "number": 1,
    "environment_id": ID,
    "template": "python-3.9",
    "limits": asdict(Limits()),
    "lifetime_s": 5,
}
VOLUME = make_volume_id()
MOUNT = {"volume": VOLUME, "size_bytes": 5, "path": "/data", "read_only": False}
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=8,
)


def parse(message: object) -> tuple[int, protocol.Request]:
    """What a message says."""
    return parse_request(json.dumps(message).encode())


@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    """They are refused in one way, or are a request."""
    try:
        number, _request = parse_request(data)
    except ProtocolError:
        return
    assert number >= 0


@given(st.sampled_from([*CREATE, "more"]), anything)
def test_any_value_in_any_field(field: str, value: object) -> None:
    """They are refused in one way, or are a request."""
    try:
        number, request = parse({**CREATE, field: value})
    except ProtocolError:
        return
    assert 0 <= number < 2**53
    if isinstance(request, protocol.Create):
        assert 0 <= request.lifetime_s <= 32 * 86_400
        assert all(isinstance(limit, int) and limit > 0 for limit in asdict(request.limits).values())


def test_requests() -> None:
    """Each verb is what it says."""
    assert parse(CREATE) == (1, protocol.Create(ID, Isolation.GVISOR, "python-3.9", Limits(), 5.0))
    named = {"environment_id": ID, "number": 7}
    assert parse({"verb": "adopt", **named}) == (7, protocol.Adopt(ID))
    assert parse({"verb": "add_slot", **named}) == (7, protocol.AddSlot(ID, apart=False))
    assert parse({"verb": "add_slot", "apart": True, **named}) == (7, protocol.AddSlot(ID, apart=True))
    assert parse({"verb": "destroy", **named}) == (7, protocol.Destroy(ID))
    assert parse({"verb": "usage", **named}) == (7, protocol.Usage(ID))
    assert parse({"verb": "usage", **named, "looks_inside": True}) == (7, protocol.Usage(ID, looks_inside=True))
    assert parse({"verb": "freeze", **named}) == (7, protocol.Freeze(ID, but_apart=False))
    assert parse({"verb": "freeze", "but_apart": True, **named}) == (7, protocol.Freeze(ID, but_apart=True))
    assert parse({"verb": "thaw", **named}) == (7, protocol.Thaw(ID))
    assert parse({"verb": "extend", "lifetime_s": 0.5, **named}) == (7, protocol.Extend(ID, 0.5))
    mount = {"volume": VOLUME, "size_bytes": 5, "path": "/data", "read_only": True}
    mounted = MountVolumes(ID, (VolumeMount(VOLUME, 5, "/data", True),))
    assert parse({"verb": "mount_volumes", "volumes": [mount], **named}) == (7, mounted)
    assert parse({"verb": "make_volume", "number": 1, "volume": VOLUME, "size_bytes": 5}) == (1, MakeVolume(VOLUME, 5))
    assert parse({"verb": "remove_volume", "number": 1, "volume": VOLUME}) == (1, RemoveVolume(VOLUME))
    copied = {"verb": "copy_files", "source": OTHER, "tops": ["tmp", "var/tmp"], "most_entries": 2, "most_bytes": 3}
    copied["within_s"] = 0.5
    assert parse({**copied, **named}) == (7, CopyFiles(ID, ("tmp", "var/tmp"), 2, 3, 0.5, OTHER))
    packed = {"tops": ["tmp"], "most_entries": 2, "most_bytes": 3, "within_s": 5, **named}
    assert parse({"verb": "pack_files", **packed}) == (7, PackFiles(ID, ("tmp",), 2, 3, 5.0))
    assert parse({"verb": "unpack_files", **packed}) == (7, UnpackFiles(ID, ("tmp",), 2, 3, 5.0))
    measured = {"verb": "measure_volumes", "number": 1, "volumes": [VOLUME]}
    assert parse(measured) == (1, MeasureVolumes((VOLUME,)))
    assert parse({"verb": "list", "number": 0}) == (0, protocol.ListSandboxes())
    assert parse({"verb": "hello", "number": 0}) == (0, protocol.Hello())
    assert parse({"verb": "shutdown", "number": 0}) == (0, protocol.Shutdown())


LAYER = {
    "base": "python-3.9", "folder": "tpl-0123456789ab", "preload": ["a.b"], "env": {"A": "b"}, "under": "", "root": "",
    "interpreter": "", "begins_in": "", "changes_root": False, "limits": None,
}  # fmt: skip
ROOTED = {**LAYER, "base": "", "root": "root-0123456789ab", "interpreter": "/usr/bin/python3", "begins_in": "/app"}
CHANGING = {**ROOTED, "folder": "", "root": "root-0123456789abapt", "changes_root": True}


def test_a_layer_is_what_it_says() -> None:
    """And none is none."""
    request = parse({**CREATE, "layer": LAYER})[1]
    assert isinstance(request, protocol.Create)
    assert request.layer == Layer("python-3.9", "tpl-0123456789ab", ("a.b",), {"A": "b"})
    request = parse({**CREATE, "layer": ROOTED})[1]
    assert isinstance(request, protocol.Create)
    assert request.layer == Layer(
        "", "tpl-0123456789ab", ("a.b",), {"A": "b"}, "", "root-0123456789ab", "/usr/bin/python3", "/app"
    )
    request = parse({**CREATE, "layer": CHANGING})[1]
    assert isinstance(request, protocol.Create)
    assert request.layer is not None
    assert (request.layer.root, request.layer.changes_root) == ("root-0123456789abapt", True)
    limits = Limits(memory_bytes=123_456_789)
    request = parse({**CREATE, "layer": {**LAYER, "limits": asdict(limits)}})[1]
    assert isinstance(request, protocol.Create)
    assert request.layer is not None
    assert request.layer.limits == limits
    assert parse({**CREATE, "layer": None}) == parse(CREATE)


@pytest.mark.parametrize(
    "wrong",
    [
        [], "", {}, {**LAYER, "more": 1}, {**LAYER, "base": "../x"}, {**LAYER, "folder": "../x"},
        {**LAYER, "folder": "tpl-../../etc/x"}, {**LAYER, "folder": None}, {**LAYER, "preload": "os"},
        {**LAYER, "preload": ["os; x"]}, {**LAYER, "preload": [1]}, {**LAYER, "preload": ["a"] * 300},
        {**LAYER, "env": []}, {**LAYER, "env": {"A=": "b"}}, {**LAYER, "env": {"A": 1}}, {**LAYER, "env": {"A": "\0"}},
        {**LAYER, "base": ""}, {**ROOTED, "root": "../x"}, {**ROOTED, "root": "tpl-0123456789ab"},
        {**ROOTED, "interpreter": "python3"}, {**ROOTED, "interpreter": "/a\0b"}, {**ROOTED, "base": "python-3.9"},
        {**ROOTED, "begins_in": "app"}, {**ROOTED, "changes_root": True}, {**CHANGING, "changes_root": 1},
        {**LAYER, "folder": "", "changes_root": True}, {**LAYER, "limits": {}}, {**LAYER, "limits": {"processes": 1}},
    ],
)  # fmt: skip
def test_layers_that_are_none(wrong: object) -> None:
    """No path, no code, no variable that is none."""
    with pytest.raises(ProtocolError):
        parse({**CREATE, "layer": wrong})


def test_the_longest_life_that_settings_allow() -> None:
    """A day, and as long as it may be paused: no environment is refused for that."""
    longest = next(each.le for each in Settings.model_fields["max_paused_s"].metadata if hasattr(each, "le"))
    assert longest == 30 * 86_400
    lifetime_s = 86_400 + longest + 600
    assert parse({**CREATE, "lifetime_s": lifetime_s})[1].lifetime_s == lifetime_s  # type: ignore[union-attr]


WRONG_IDS = [
    "env-../../etc", "../env-0123456789ab", "env-0123456789ab/..", "env-0123456789ab\n", "env-0123456789ab\0",
    "ENV-0123456789AB",     "env-", "env-short", "env-" + "0" * 41, "exec-0123456789abcdef",
    "", " env-0123456789ab", "env-0123456789a\xdf",
    "env-\uff10123456789ab",     None, 7, True, ["env-0123456789ab"], {"a": 1},
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG_IDS)
@pytest.mark.parametrize("verb", ABOUT_SANDBOXES)
def test_ids_that_are_none(verb: str, wrong: object) -> None:
    """No path, no other kind of id, nothing that looks like one."""
    with pytest.raises(ProtocolError):
        parse({**whole(verb), "environment_id": wrong})


def test_requests_that_are_spoiled_are_whole() -> None:
    """What is refused above is refused for the one thing that is wrong about it."""
    assert all(parse(whole(verb))[0] == 1 for verb in VERBS)
    assert set(VERBS) - set(ABOUT_SANDBOXES) == {
        "hello", "hold", "list", "shutdown", "make_volume", "remove_volume", "measure_volumes",
    }  # fmt: skip


_TEMPLATES: list[object] = ["../x", "/x", "", "x/y", ".x", "X", "x" * 64, "x\n", None, 3]
_LIFETIMES: list[object] = [-1, 10**400, 32 * 86_400 + 1, float("nan"), float("inf"), "5", None, True, []]
_NUMBERS: list[object] = [-1, 2**53, 1.0, "1", None, True]
_VERBS: list[object] = ["", "Create", "run", None, 1, [], {}]
_COUNTS: list[object] = [0, -1, 1.5, "64", None, True, 2**53, 10**400]
WRONG_FIELDS: list[tuple[str, object]] = [
    *(("template", value) for value in _TEMPLATES),
    *(("lifetime_s", value) for value in _LIFETIMES),
    *(("number", value) for value in _NUMBERS),
    *(("verb", value) for value in _VERBS),
    ("limits", None),
    ("limits", []),
    ("limits", {}),
    ("limits", {**asdict(Limits()), "more": 1}),
    *(("limits", {**asdict(Limits()), "processes": value}) for value in _COUNTS),
]


@pytest.mark.parametrize(("field", "value"), WRONG_FIELDS, ids=range(len(WRONG_FIELDS)))
def test_fields_that_are_wrong(field: str, value: object) -> None:
    """Each is refused before anything is done."""
    with pytest.raises(ProtocolError):
        parse({**CREATE, field: value})


WRONG_MOUNTS: list[object] = [
    None, {}, [None], [[]], [{}], [MOUNT, {**MOUNT, "path": "/data/inner"}], [MOUNT, MOUNT],
    [{**MOUNT, "path": f"/d{number}"} for number in range(17)], [{**MOUNT, "more": 1}],
    *([{**MOUNT, "path": value}] for value in (
        "", "/", "data", "/data/", "/data//x", "/data/../etc", "/data/./x", "/proc", "/proc/1", "/usr/x", "/etc",
        "/dev/x", "/workspace", "/home/user", "/tmp", "/a\0b", "/a\nb", "/\ud800", "/" + "x" * 256,
        "/x" * 17, None, 7, ["/data"],
    )),
    *([{**MOUNT, "volume": value}] for value in (
        "", "vol-", "vol-../../etc/passwd", "../x", "vol-0123456789ab/..", "vol-0123456789AB", "env-0123456789ab",
        "vol-" + "0" * 41, "vol-0123456789ab\n", None, 7,
    )),
    *([{**MOUNT, "size_bytes": value}] for value in (0, -1, 1.5, "5", None, True, 2**53)),
    *([{**MOUNT, "read_only": value}] for value in (None, 1, "true")),
]  # fmt: skip


@pytest.mark.parametrize("value", WRONG_MOUNTS, ids=range(len(WRONG_MOUNTS)))
def test_volumes_that_are_wrong(value: object) -> None:
    """No path, no id and no size that is not exactly one gets to where volumes are."""
    with pytest.raises(ProtocolError):
        parse({"verb": "mount_volumes", "number": 1, "environment_id": ID, "volumes": value})


COPY = {
    "verb": "copy_files", "number": 1, "environment_id": ID,
    "source": OTHER, "tops": ["tmp"], "most_entries": 1, "most_bytes": 1, "within_s": 1,
}  # fmt: skip
WRONG_TOPS: list[object] = [
    None, "tmp", [], {}, [None], [7], [""], ["/"], ["/tmp"], ["tmp/"], [".."], ["tmp/.."], ["a//b"], ["a\0b"], ["a\n"],
    ["tmp"] * 17, ["x" * 200], ["."],
]  # fmt: skip
WRONG_COPIES: list[tuple[str, object]] = [
    *(("source", source) for source in ("", None, 7, "env-", f"{OTHER}/..", f"../{OTHER}")),
    *(("tops", tops) for tops in WRONG_TOPS),
    *((name, number) for name in ("most_entries", "most_bytes") for number in (0, -1, 1.5, "5", None, True, 2**53)),
    *(("within_s", seconds) for seconds in (-1, 3601, "5", None, True, float("nan"), float("inf"))),
]


@pytest.mark.parametrize(("field", "value"), WRONG_COPIES, ids=range(len(WRONG_COPIES)))
def test_copies_that_are_wrong(field: str, value: object) -> None:
    """No folder that is not exactly a path downwards gets to where files are copied."""
    assert isinstance(parse(COPY)[1], CopyFiles)
    with pytest.raises(ProtocolError):
        parse({**COPY, field: value})
    if field in ("tops", "most_entries", "within_s"):
        for verb in ("pack_files", "unpack_files"):
            with pytest.raises(ProtocolError):
                parse({**COPY, "verb": verb, field: value})


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"7", b"null", b"{", b"\xff", b"[" * 50_000, b'{"a":' * 9000, b"9" * 9000]
)
def test_messages_that_are_none(data: bytes) -> None:
    """Each is refused before anything is done."""
    with pytest.raises(ProtocolError):
        parse_request(data)


@pytest.mark.parametrize(
    ("data", "number"),
    [(b'{"number":7,"verb":"none"}', 7), (b'{"number":8,"verb":"create"}', 8), (b'{"number":"9"}', None), (b"{", None)],
)
def test_refusals_know_what_they_are_about(data: bytes, number: int | None) -> None:
    """As far as it can be told."""
    with pytest.raises(ProtocolError) as refused:
        parse_request(data)
    assert refused.value.number == number


def test_long_messages_fit() -> None:
    """The longest request and a part of a list fit one datagram."""
    longest = {**CREATE, "environment_id": "env-" + "0" * 40, "template": "x" * 63, "number": 2**53 - 1}
    assert len(protocol.pack(longest)) < protocol.MESSAGE_LIMIT
    assert len(protocol.pack({"number": 1, "environment_ids": [ID] * 500, "more": True})) < protocol.MESSAGE_LIMIT
