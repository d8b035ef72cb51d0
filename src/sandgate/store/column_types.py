"""How values of the records are kept in columns, the same on every database."""

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

# What a text column of PostgreSQL refuses, and the character that marks the escapes.
_UNSAFE = re.compile("[\0\\\\\ud800-\udfff]")
_ESCAPE = re.compile(r"\\(u[0-9a-f]{4}|\\)")

_encode_json = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode


def _escape_character(match: re.Match[str]) -> str:
    character = match.group()
    return r"\\" if character == "\\" else f"\\u{ord(character):04x}"


def _unescape_character(match: re.Match[str]) -> str:
    escape = match.group(1)
    return "\\" if escape == "\\" else chr(int(escape[1:], 16))


def escape_text(text: str) -> str:
    r"""The text with NUL, lone surrogates and backslashes written as ``\uXXXX`` and ``\\``: valid in every database."""
    return _UNSAFE.sub(_escape_character, text)


def unescape_text(text: str) -> str:
    """What :func:`escape_text` was given."""
    return _ESCAPE.sub(_unescape_character, text) if "\\" in text else text


class ExactText(TypeDecorator[str]):
    """Any ``str``, compared and sorted by code point on every database."""

    impl = sa.Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """PostgreSQL sorts by a language's rules unless told otherwise."""
        return sa.Text(collation="C") if dialect.name == "postgresql" else sa.Text()

    def process_bind_param(self, value: str | None, _dialect: Dialect) -> str | None:
        """A plain ``str`` (drivers write an enum's member in ways of their own), escaped."""
        return None if value is None else escape_text(str(value))

    def process_result_value(self, value: str | None, _dialect: Dialect) -> str | None:
        """See :func:`unescape_text`."""
        return None if value is None else unescape_text(value)


class Instant(TypeDecorator[datetime]):
    """An aware datetime as whole microseconds since 1970."""

    impl = sa.BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _dialect: Dialect) -> int | None:
        """Exact; raises ``TypeError`` for a datetime without a time zone."""
        return None if value is None else (value - _EPOCH) // _MICROSECOND

    def process_result_value(self, value: int | None, _dialect: Dialect) -> datetime | None:
        """Aware, in UTC."""
        return None if value is None else _EPOCH + timedelta(microseconds=value)


class Utf8(TypeDecorator[str]):
    """Text of any content and size as bytes: PostgreSQL's text has no NUL, which output of programs may hold."""

    impl = sa.LargeBinary
    cache_ok = True

    def process_bind_param(self, value: str | None, _dialect: Dialect) -> bytes | None:
        """UTF-8; a lone surrogate, which UTF-8 does not have, is kept in the three bytes it would have."""
        return None if value is None else value.encode("utf-8", "surrogatepass")

    def process_result_value(self, value: bytes | None, _dialect: Dialect) -> str | None:
        """The same text."""
        return None if value is None else bytes(value).decode("utf-8", "surrogatepass")


def encode_pair(name: str, value: str) -> str:
    """How a name and its value stand in the text of a JSON object that :class:`JsonText` has written."""
    return f"{_encode_json(name)}:{_encode_json(value)}"


class JsonText(TypeDecorator[Any]):
    """A JSON value as ASCII text, so that NUL and lone surrogates are escapes.

    Of two surrogates in a row, which JSON cannot tell from the character that they stand for, it makes that.
    """

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: Any, _dialect: Dialect) -> str | None:
        """None is NULL."""
        return None if value is None else _encode_json(value)

    def process_result_value(self, value: str | None, _dialect: Dialect) -> Any:
        """What was encoded."""
        return None if value is None else json.loads(value)
