"""What comes from inside is hostile: parsing it answers, or raises one error."""

import json
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandgate_agent import wire

numbers = st.integers(0, 2**64 - 1)
texts = st.text(st.characters(), max_size=200)


@given(st.binary(max_size=64))
def test_any_bytes(data: bytes) -> None:
    """Nothing but the one error leaves a parser."""
    for parse in (wire.parse_numbered, wire.parse_exited, wire.parse_held):
        try:
            parse(data)
        except wire.WireError:
            continue


@given(numbers)
def test_numbered(number: int) -> None:
    """What is packed is what is parsed."""
    assert wire.parse_numbered(wire.pack_numbered(wire.KILL, number)) == (wire.KILL, number)


@given(numbers, st.integers(-(2**31), 2**31 - 1), st.integers(0, 2**53), st.integers(0, 2**53), st.integers(0, 2**43))
def test_exited(number: int, status: int, user_us: int, system_us: int, peak_kib: int) -> None:
    """What is packed is what is parsed; memory is counted in KiB."""
    packed = wire.pack_exited(number, status, user_us, system_us, peak_kib * 1024 + 1023)
    assert wire.parse_exited(packed) == (number, status, user_us, system_us, peak_kib * 1024)
    assert len(packed) < wire.MESSAGE_LIMIT


@pytest.mark.parametrize("place", [0, 1, 2])
def test_figures_that_nothing_can_have_used(place: int) -> None:
    """They would not fit where the answer is kept."""
    figures = [0, 0, 0]
    figures[place] = 2**64 - 1
    with pytest.raises(wire.WireError):
        wire.parse_exited(wire.pack_exited(1, signal.SIGKILL, *figures))


@given(
    st.binary(max_size=400) | st.recursive(texts, lambda inner: st.lists(inner)).map(lambda v: json.dumps(v).encode())
)
def test_any_report(data: bytes) -> None:
    """A report is three texts that can be printed, or none."""
    report = wire.parse_report(data)
    if report is not None:
        assert [part.encode() for part in report]


@given(texts, texts, texts)
def test_report(name: str, value: str, traceback: str) -> None:
    """A report arrives as it was, but for what cannot be printed."""
    packed = wire.pack_report(name, value, traceback)
    assert len(packed) <= wire.REPORT_LIMIT
    report = wire.parse_report(packed)
    assert report is not None
    printable = [text.encode("utf-8", "replace").decode() for text in (name, value, traceback)]
    assert list(report) == printable


@pytest.mark.parametrize("character", ["x", "\0", "é", "\ud800", "\U0001f40d", '"', "\\"])
def test_longest_report_fits(character: str) -> None:
    """Whatever it is made of, because nobody reads it before its writer is gone."""
    packed = wire.pack_report(character * 10**5, character * 10**5, character * 10**5)
    assert len(packed) <= wire.REPORT_LIMIT
    assert wire.parse_report(packed) is not None


@given(st.binary(max_size=200), st.none() | st.dictionaries(texts, texts, max_size=3))
def test_code(code: bytes, options: dict[str, str] | None) -> None:
    """The lengths in the header are those of what follows."""
    packed = wire.pack_code(code, options)
    options_length, code_length = wire.unpack_code_header(packed[: wire.CODE_HEADER_BYTES])
    rest = packed[wire.CODE_HEADER_BYTES :]
    assert len(rest) == options_length + code_length
    assert rest[options_length:] == code


@given(st.binary(max_size=64))
def test_any_outputs(data: bytes) -> None:
    """Splitting answers what there is, and reads nothing beyond it."""
    outputs, report = wire.split_outputs(data)
    assert report in data
    assert outputs is None or outputs in data
