"""Requests to the launcher, which runs as root: what is not exactly one of its verbs is refused."""

import json
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandgate.core.ids import make_environment_id
from sandgate.core.limits import Limits
from sandgate.core.states import Isolation
from sandgate.sandbox.launcher import protocol
from sandgate.sandbox.launcher.protocol import ProtocolError, parse_request

ID = make_environment_id()
CREATE = {
    "verb": "create",
    "isolation": "gvisor",
    "number": 1,
    "environment_id": ID,
    "template": "python-3.9",
    "limits": asdict(Limits()),
    "lifetime_s": 5,
}
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
        assert 0 <= request.lifetime_s <= 2 * 86_400
        assert all(isinstance(limit, int) and limit > 0 for limit in asdict(request.limits).values())


def test_requests() -> None:
    """Each verb is what it says."""
    assert parse(CREATE) == (1, protocol.Create(ID, Isolation.GVISOR, "python-3.9", Limits(), 5.0))
    named = {"environment_id": ID, "number": 7}
    assert parse({"verb": "adopt", **named}) == (7, protocol.Adopt(ID))
    assert parse({"verb": "add_slot", **named}) == (7, protocol.AddSlot(ID))
    assert parse({"verb": "destroy", **named}) == (7, protocol.Destroy(ID))
    assert parse({"verb": "usage", **named}) == (7, protocol.Usage(ID))
    assert parse({"verb": "extend", "lifetime_s": 0.5, **named}) == (7, protocol.Extend(ID, 0.5))
    assert parse({"verb": "list", "number": 0}) == (0, protocol.ListSandboxes())
    assert parse({"verb": "hello", "number": 0}) == (0, protocol.Hello())
    assert parse({"verb": "shutdown", "number": 0}) == (0, protocol.Shutdown())


WRONG_IDS = [
    "env-../../etc", "../env-0123456789ab", "env-0123456789ab/..", "env-0123456789ab\n", "env-0123456789ab\0",
    "ENV-0123456789AB",     "env-", "env-short", "env-" + "0" * 41, "exec-0123456789abcdef",
    "", " env-0123456789ab", "env-0123456789a\xdf",
    "env-\uff10123456789ab",     None, 7, True, ["env-0123456789ab"], {"a": 1},
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG_IDS)
@pytest.mark.parametrize("verb", ["create", "adopt", "add_slot", "destroy", "usage", "extend"])
def test_ids_that_are_none(verb: str, wrong: object) -> None:
    """No path, no other kind of id, nothing that looks like one."""
    with pytest.raises(ProtocolError):
        parse({**CREATE, "verb": verb, "environment_id": wrong})


_TEMPLATES: list[object] = ["../x", "/x", "", "x/y", ".x", "X", "x" * 64, "x\n", None, 3]
_LIFETIMES: list[object] = [-1, 10**400, 172_801, float("nan"), float("inf"), "5", None, True, []]
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


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"7", b"null", b"{", b"\xff", b"[" * 50_000, b'{"a":' * 9000, b"9" * 9000]
)
def test_messages_that_are_none(data: bytes) -> None:
    """Each is refused before anything is done."""
    with pytest.raises(ProtocolError):
        parse_request(data)


def test_long_messages_fit() -> None:
    """The longest request and a part of a list fit one datagram."""
    longest = {**CREATE, "environment_id": "env-" + "0" * 40, "template": "x" * 63, "number": 2**53 - 1}
    assert len(protocol.pack(longest)) < protocol.MESSAGE_LIMIT
    assert len(protocol.pack({"number": 1, "environment_ids": [ID] * 500, "more": True})) < protocol.MESSAGE_LIMIT
