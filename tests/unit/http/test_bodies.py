"""Reading what strangers send."""

import contextlib
import json
import math
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from starlette.types import Message

from sandgate.core.errors import InvalidRequest, PayloadTooLarge, UnsupportedMediaType
from sandgate.http.bodies import check_media_type, parse_form, parse_json, read_body, validate
from sandgate.http.connection import ClientGone
from sandgate.http.exchange import Exchange, begin_exchange
from sandgate.http.models.code import Execute
from sandgate.http.models.requests import CreateEnvironment

NEW = {"name": "a", "template": "t"}
CROWD = b"&".join([b"a%d=1" % number for number in range(60)])
# Texts without the two kinds of characters that are refused.
texts = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner) | st.dictionaries(texts, inner),
    max_leaves=20,
)


@given(values, st.booleans())
def test_json_is_read_as_it_was_written(value: Any, ascii_only: bool) -> None:
    """Whatever JSON can say comes back, escaped or not."""
    assert parse_json(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused_or_read(raw: bytes) -> None:
    """No bytes break the reader in any other way."""
    with contextlib.suppress(InvalidRequest):
        parse_json(raw)


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"{} {}", "is not JSON"),
        (b"\xff", "is not UTF-8"),
        (b"\xef\xbb\xbf{}", "is not JSON"),
        (b'{"a": NaN}', "NaN is not a number"),
        (b'{"a": -Infinity}', "-Infinity is not a number"),
        (b'{"a": 1, "a": 2}', "a key is given twice"),
        (b'{"a": {"b": 1, "b": 1}}', "a key is given twice"),
        (b"[" * 100_000 + b"]" * 100_000, "is nested too deeply"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "is nested too deeply"),
        (b"1" * 5000, "is not JSON"),
        (b'"\\u0000"', "has a NUL character"),
        (b'{"a": ["\\u0000"]}', "has a NUL character"),
        (b'{"\\u0000": 1}', "has a NUL character"),
        (b'"\\ud800"', "half of a surrogate pair"),
        (b'"\\udc00x"', "half of a surrogate pair"),
        (b'{"\\ud800": 1}', "half of a surrogate pair"),
        (b'"\x00"', "is not JSON"),
        (b'"\xed\xa0\x80"', "is not UTF-8"),
    ],
)
def test_ambiguous_or_broken_json_is_refused(raw: bytes, problem: str) -> None:
    """The refusal says what is wrong."""
    with pytest.raises(InvalidRequest) as caught:
        parse_json(raw)
    assert problem in caught.value.details["fields"][0]["problem"]


def test_surrogate_pairs_and_escaped_escapes_are_fine() -> None:
    """What only looks like the refused characters is read."""
    assert parse_json(b'["\\ud83d\\ude00", "\\\\u0000", "\\\\ud800"]') == ["😀", "\\u0000", "\\ud800"]


@pytest.mark.parametrize(
    ("model", "value", "fields"),
    [
        (Execute, {}, {"code": "is required"}),
        (Execute, [], {"body": "must be an object"}),
        (Execute, None, {"body": "must be an object"}),
        (Execute, {"code": 1}, {"code": "Input should be a valid string"}),
        (Execute, {"code": "", "tiemout": 1}, {"tiemout": "is not a field of this request"}),
        (Execute, {"code": "", "timeout": True}, {"timeout": "Input should be a valid number"}),
        (Execute, {"code": "", "timeout": "5"}, {"timeout": "Input should be a valid number"}),
        (Execute, {"code": "", "timeout": 10**400}, {"timeout": "Input should be a valid number"}),
        (Execute, {"code": "", "timeout": math.inf}, {"timeout": "Input should be a finite number"}),
        (Execute, {"code": "", "timeout": 0}, {"timeout": "Input should be greater than or equal to 0.1"}),
        (
            CreateEnvironment,
            {"name": "a", "template": "t", "timeout": 5.5},
            {"timeout": "Input should be a valid integer"},
        ),
        (
            CreateEnvironment,
            {"name": "a", "template": "t", "metadata": {"k": 1}},
            {"metadata.k": "Input should be a valid string"},
        ),
    ],
)
def test_fields_are_strict(model: type[BaseModel], value: Any, fields: dict[str, str]) -> None:
    """Every wrong field is named with its problem."""
    with pytest.raises(InvalidRequest) as caught:
        validate(model, value)
    assert {item["field"]: item["problem"] for item in caught.value.details["fields"]} == fields


def test_a_refusal_is_bounded() -> None:
    """A body of a million wrong names does not make an answer of a million lines."""
    with pytest.raises(InvalidRequest) as caught:
        validate(Execute, {"code": "", **{f"{number}" * 50: 0 for number in range(1000)}})
    assert len(caught.value.details["fields"]) == 20
    assert len(caught.value.message) < 5000


@given(st.dictionaries(texts.filter(bool), texts, max_size=10))
def test_forms_are_read_as_they_were_written(fields: dict[str, str]) -> None:
    """Percent-encoded fields come back."""
    assert parse_form(urlencode(fields).encode()) == fields


@pytest.mark.parametrize(
    "raw", [b"a=1&a=2", b"a=%ff", b"\xff=1", b"a=%00", b"&".join([b"a%d=1" % n for n in range(60)])]
)
def test_odd_forms_are_refused(raw: bytes) -> None:
    """Fields given twice, bytes that are no text, and crowds of fields."""
    with pytest.raises(InvalidRequest):
        parse_form(raw)


def _exchange(**headers: str) -> Exchange:
    return Exchange([(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()])


@pytest.mark.parametrize(
    "kind", ["application/json", "Application/JSON; charset=UTF-8", 'application/json;charset="utf-8"']
)
def test_json_may_be_declared_in_all_its_forms(kind: str) -> None:
    """Case and the one charset do not matter."""
    assert check_media_type(_exchange(content_type=kind), "application/json") == "application/json"


@pytest.mark.parametrize("kind", ["", "text/plain", "application/json; charset=utf-16", "application/json, text/html"])
def test_other_types_are_refused(kind: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(UnsupportedMediaType):
        check_media_type(_exchange(content_type=kind), "application/json")


async def _read(chunks: list[bytes], limit: int, **headers: str) -> bytes:
    exchange = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "headers": exchange}
    begin_exchange(scope)
    messages: list[Message] = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    messages.append({"type": "http.request", "body": b"", "more_body": False})

    async def receive() -> Message:
        return messages.pop(0)

    return await read_body(scope, receive, limit)


async def test_bodies_are_bounded_while_they_are_read() -> None:
    """Whatever the length says, or if there is none, no more than the limit is taken."""
    assert await _read([b"abc", b"de"], 5) == b"abcde"
    with pytest.raises(PayloadTooLarge):
        await _read([b"abc", b"def"], 5)
    with pytest.raises(PayloadTooLarge):
        await _read([], 5, content_length="6")
    assert await _read([b"abcde"], 5, content_length="5") == b"abcde"


async def test_compressed_bodies_are_refused() -> None:
    """A small body never becomes a large one."""
    with pytest.raises(UnsupportedMediaType):
        await _read([b"x"], 5, content_encoding="gzip")


async def test_a_body_that_breaks_off_is_nobodys() -> None:
    """Half a body is not taken for a whole one."""
    scope: dict[str, Any] = {"type": "http", "headers": []}
    begin_exchange(scope)
    messages: list[Message] = [
        {"type": "http.request", "body": b"{", "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> Message:
        return messages.pop(0)

    with pytest.raises(ClientGone):
        await read_body(scope, receive, 10)


@pytest.mark.parametrize("opening", ["[", '{"a":', '[{"a":'])
def test_nesting_is_bounded(opening: str) -> None:
    """A hundred levels are read; more would be too deep for somebody behind."""
    closing = "".join({"[": "]", "{": "}"}[character] for character in reversed(opening) if character in "[{")
    levels = sum(character in "[{" for character in opening)
    parse_json((opening * (100 // levels) + "1" + closing * (100 // levels)).encode())
    for times in (102 // levels, 900 // levels, 100_000):
        with pytest.raises(InvalidRequest, match=r"nested"):
            parse_json((opening * times + "1" + closing * times).encode())


@pytest.mark.parametrize("text", [str(2**64), str(-(2**63) - 1), "9" * 400, "9" * 5000, "1e309", "-1e999", "1" * 22])
def test_numbers_are_bounded(text: str) -> None:
    """To what every reader and every database can hold."""
    with pytest.raises(InvalidRequest, match="number"):
        parse_json(f'{{"a": [{text}]}}'.encode())


def test_brackets_in_texts_are_no_nesting() -> None:
    """Code is full of them."""
    assert parse_json(json.dumps({"code": "[{" * 500}).encode()) == {"code": "[{" * 500}
