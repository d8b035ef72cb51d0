"""Values survive their way into columns and back."""

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.types import TypeDecorator

from sandgate.core.states import EnvironmentStatus
from sandgate.store.column_types import ExactText, Instant, JsonText, Utf8, escape_text, unescape_text

ANY_TEXT = st.text(st.characters())
NASTY_TEXT = st.text(st.sampled_from("\\u0d8af\0\ud800\udfff\ue000A"))
DIALECT = sqlite.dialect()


def _there_and_back(column_type: TypeDecorator[Any], value: Any) -> Any:
    return column_type.process_result_value(column_type.process_bind_param(value, DIALECT), DIALECT)


@given(ANY_TEXT | NASTY_TEXT)
def test_any_text_is_escaped_and_comes_back(text: str) -> None:
    """What is kept is UTF-8 without NUL, which every database takes."""
    kept = escape_text(text)
    assert "\0" not in kept
    kept.encode()
    assert unescape_text(kept) == text


@given(NASTY_TEXT, NASTY_TEXT)
def test_different_texts_stay_different(first: str, second: str) -> None:
    """So that a comparison in the database is one of the texts."""
    assert (escape_text(first) == escape_text(second)) == (first == second)


@given(st.text(st.characters(exclude_characters="\0\\", exclude_categories=["Cs"])))
def test_usual_text_is_kept_as_it_is(text: str) -> None:
    """It can be read and searched in the database, and sorts as it should."""
    assert escape_text(text) == text


def test_an_enum_is_kept_as_plain_text() -> None:
    """Drivers would write a member in ways of their own."""
    kept = ExactText().process_bind_param(EnvironmentStatus.RUNNING, DIALECT)
    assert (type(kept), kept) == (str, "running")


@given(st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=-11, minutes=-30))])))
def test_an_instant_comes_back_in_utc(value: datetime) -> None:
    """To the microsecond, whatever zone it was given in."""
    found = _there_and_back(Instant(), value)
    assert found == value
    assert found.tzinfo is UTC


@given(st.lists(st.datetimes(timezones=st.just(UTC)), min_size=2))
def test_instants_sort_as_their_columns_do(values: list[datetime]) -> None:
    """Also those before 1970."""
    assert sorted(values) == sorted(values, key=lambda value: Instant().process_bind_param(value, DIALECT) or 0)


def test_a_datetime_without_a_zone_is_a_bug() -> None:
    """It would be kept as another instant on another machine."""
    with pytest.raises(TypeError):
        Instant().process_bind_param(datetime(2026, 1, 1), DIALECT)  # noqa: DTZ001 - that is the point


@given(ANY_TEXT | NASTY_TEXT)
def test_output_comes_back(text: str) -> None:
    """Any text."""
    assert _there_and_back(Utf8(), text) == text


# JSON cannot tell two surrogates in a row from the character that they stand for.
JSON_TEXT = (ANY_TEXT | NASTY_TEXT).filter(lambda text: not re.search("[\ud800-\udbff][\udc00-\udfff]", text))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | JSON_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(JSON_TEXT, inner, max_size=3),
    max_leaves=6,
)


@given(JSON)
def test_json_is_ascii_and_comes_back(value: object) -> None:
    """NUL and lone surrogates are escapes in it."""
    kept = JsonText().process_bind_param(value, DIALECT)
    assert kept is None or (kept.isascii() and "\0" not in kept)
    assert _there_and_back(JsonText(), value) == value


@pytest.mark.parametrize("column_type", [ExactText(), Instant(), Utf8(), JsonText()])
def test_nothing_stays_nothing(column_type: TypeDecorator[Any]) -> None:
    """None is NULL."""
    assert column_type.process_bind_param(None, DIALECT) is None
    assert column_type.process_result_value(None, DIALECT) is None


def test_postgresql_compares_by_code_point() -> None:
    """Its default is the order of a language."""
    table = sa.Table("t", sa.MetaData(), sa.Column("c", ExactText))
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    made = str(sa.schema.CreateTable(table).compile(dialect=dialect))
    assert 'c TEXT COLLATE "C"' in made
