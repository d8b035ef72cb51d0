"""Reads request bodies and query strings: strict, bounded, and with one kind of refusal."""

import json
import math
from collections.abc import AsyncIterator
from typing import Any, NoReturn, TypeVar
from urllib.parse import parse_qsl

from pydantic import BaseModel, ValidationError
from starlette.types import Receive, Scope

from sandgate.core.errors import InvalidRequest, PayloadTooLarge, UnsupportedMediaType
from sandgate.http.connection import ClientGone
from sandgate.http.exchange import Exchange, exchange_of

ModelT = TypeVar("ModelT", bound=BaseModel)

JSON_TYPE = "application/json"
FORM_TYPE = "application/x-www-form-urlencoded"

_MOST_FIELDS_NAMED = 20
_LONGEST_NAME = 80
_MOST_QUERY_FIELDS = 50
_DEEPEST = 100
_LONGEST_NUMBER = 21

# Pydantic's words for these are about inputs and extras; callers know fields.
_PROBLEMS = {
    "missing": "is required",
    "extra_forbidden": "is not a field of this request",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
}


async def read_body(scope: Scope, receive: Receive, limit_bytes: int) -> bytes:
    """The whole body. Raises ``PayloadTooLarge`` as soon as it is known to be longer than the limit."""
    _check_encoding(exchange_of(scope))
    declared = exchange_of(scope).headers.get(b"content-length", b"")
    if declared.isdigit() and int(declared) > limit_bytes:
        _refuse_size(limit_bytes)
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > limit_bytes:
            _refuse_size(limit_bytes)
        if not message.get("more_body", False):
            return b"".join((*chunks, chunk)) if chunks else chunk
        chunks.append(chunk)


async def stream_body(scope: Scope, receive: Receive) -> AsyncIterator[bytes]:
    """The body piece by piece, as fast as it is asked for. Raises ``ClientGone`` when it breaks off."""
    _check_encoding(exchange_of(scope))
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        yield message.get("body", b"")
        more = message.get("more_body", False)


def media_type(exchange: Exchange) -> str:
    """The type of the body, without parameters, in lower case. Raises ``UnsupportedMediaType`` for odd charsets."""
    given = exchange.headers.get(b"content-type", b"")
    if given == b"application/json":
        return JSON_TYPE
    kind, *parameters = given.decode("latin-1").lower().split(";")
    for parameter in parameters:
        name, _, value = parameter.strip().partition("=")
        if name == "charset" and value.strip('" ') not in ("utf-8", "utf8", "us-ascii"):
            raise UnsupportedMediaType("Bodies are read as UTF-8 only", {"supported": ["utf-8"]})
    return kind.strip()


def check_media_type(exchange: Exchange, *supported: str) -> str:
    """The type of the body. Raises ``UnsupportedMediaType`` unless it is one of those supported."""
    kind = media_type(exchange)
    if kind not in supported:
        named = " or ".join(supported)
        found = f"not {kind[:_LONGEST_NAME]}" if kind else "and none was given"
        raise UnsupportedMediaType(f"The Content-Type has to be {named}, {found}", {"supported": list(supported)})
    return kind


def parse_json(raw: bytes) -> Any:
    """A JSON text as Python objects. Raises ``InvalidRequest``.

    Refused beyond what JSON itself refuses: NaN and Infinity, keys given twice, characters that no text can hold
    (NUL, lone surrogates), whole numbers beyond 64 bits, numbers beyond a double, nesting beyond 100 levels.
    """
    try:
        value = _decoder.decode(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        refuse_field("body", f"is not UTF-8 at byte {error.start}")
    except RecursionError:
        refuse_field("body", "is nested too deeply")
    except json.JSONDecodeError as error:
        refuse_field("body", f"is not JSON: {error.msg} at line {error.lineno}, column {error.colno}")
    except ValueError as error:
        refuse_field("body", f"is not JSON: {str(error)[:_LONGEST_NAME]}")
    # Brackets in texts count too, which only means that it is looked at closely.
    if raw.count(b"{") + raw.count(b"[") > _DEEPEST:
        _check_depth(value)
    # Without an escape there can be neither: raw control characters are refused, and so are encoded surrogates.
    if b"\\u" in raw:
        _check_texts(value)
    return value


def parse_form(raw: bytes) -> dict[str, str]:
    """The fields of a URL-encoded form or query string, each given once. Raises ``InvalidRequest``."""
    fields: dict[str, str] = {}
    for name, value in split_form(raw):
        if name in fields:
            refuse_field(name, "is given more than once")
        fields[name] = value
    return fields


def split_form(raw: bytes) -> list[tuple[str, str]]:
    """The fields of a URL-encoded form or query string in order. Raises ``InvalidRequest``."""
    try:
        pairs = parse_qsl(
            raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MOST_QUERY_FIELDS
        )
    except UnicodeDecodeError:
        refuse_field("query", "is not percent-encoded UTF-8")
    except ValueError:
        refuse_field("query", f"has more than {_MOST_QUERY_FIELDS} fields")
    for name, value in pairs:
        if "\x00" in name or "\x00" in value:
            refuse_field("query", "has a NUL character")
    return pairs


def validate(model: type[ModelT], value: Any) -> ModelT:
    """The value as a model. Raises ``InvalidRequest`` that names every wrong field."""
    try:
        return model.__pydantic_validator__.validate_python(value)  # type: ignore[no-any-return]
    except ValidationError as error:
        raise invalid_request(error) from None


def invalid_request(error: ValidationError) -> InvalidRequest:
    """Pydantic's refusal in the words of this API."""
    items = error.errors(include_url=False, include_input=False, include_context=False)
    problems = [(_name(item["loc"]), _PROBLEMS.get(item["type"], item["msg"])) for item in items]
    return InvalidRequest.for_fields(
        [(field, problem.removeprefix("Value error, ")) for field, problem in problems[:_MOST_FIELDS_NAMED]]
    )


def refuse_field(field: str, problem: str) -> NoReturn:
    """Raises ``InvalidRequest`` for one field."""
    raise InvalidRequest.for_fields([(field[:_LONGEST_NAME], problem)]) from None


def _name(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location)[:_LONGEST_NAME] or "body"


def _refuse_size(limit_bytes: int) -> NoReturn:
    raise PayloadTooLarge(f"The body is longer than {limit_bytes} bytes", {"limit_bytes": limit_bytes})


def _check_encoding(exchange: Exchange) -> None:
    coding = exchange.headers.get(b"content-encoding", b"identity").lower()
    if coding != b"identity":
        raise UnsupportedMediaType("Bodies are read as they are, not compressed", {"supported": ["identity"]})


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key is given twice in one object")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def _parse_whole(text: str) -> int:
    """Numbers that every reader and every database can hold."""
    if len(text) > _LONGEST_NUMBER or not -(2**63) <= (value := int(text)) < 2**64:
        raise ValueError("a whole number needs more than 64 bits; send it as a text")
    return value


def _parse_fraction(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is larger than any that can be held")
    return value


_decoder = json.JSONDecoder(
    object_pairs_hook=_unique_keys,
    parse_constant=_refuse_constant,
    parse_int=_parse_whole,
    parse_float=_parse_fraction,
)


def _check_depth(value: Any) -> None:
    """Raises ``InvalidRequest`` for what is nested deeper than anybody's recursion bears."""
    level, depth = [value], 0
    while level:
        if depth > _DEEPEST:
            refuse_field("body", f"is nested deeper than {_DEEPEST} levels")
        depth += 1
        level = [
            inner
            for item in level
            if isinstance(item, dict | list)
            for inner in (item.values() if isinstance(item, dict) else item)
        ]


def _check_texts(value: Any) -> None:
    """Raises ``InvalidRequest`` when a text in the value holds a character that cannot be stored or sent."""
    todo = [value]
    while todo:
        item = todo.pop()
        if isinstance(item, str):
            if "\x00" in item:
                refuse_field("body", "has a NUL character in a text")
            if not item.isascii() and any("\ud800" <= character <= "\udfff" for character in item):
                refuse_field("body", "has half of a surrogate pair in a text")
        elif isinstance(item, dict):
            todo.extend(item)
            todo.extend(item.values())
        elif isinstance(item, list):
            todo.extend(item)
