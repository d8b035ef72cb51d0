"""Text from elsewhere on a terminal."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandgate.cli.printable import neutralise, one_line

TURNS = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@given(st.text(st.characters()))
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    """No control character but newline and tab, no mark of direction, no separator of lines, no half of a pair."""
    kept = set(neutralise(text)) - {"\n", "\t"}
    assert not {character for character in kept if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")}
    assert not kept & TURNS
    assert "\n" not in one_line(text)
    neutralise(text).encode()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("50%\r100%\r\n", "50%\\r100%\n"),
        ("back\x08space\x7f", "back\\x08space\\x7f"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\ud800", "\\ud800"),
        ("naïve 日本 🎉 👩\u200d💻\ttab", "naïve 日本 🎉 👩\u200d💻\ttab"),
    ],
)
def test_what_is_obeyed_is_spelled_out(text: str, shown: str) -> None:
    """And everything else is as it was."""
    assert neutralise(text) == shown


def test_a_line_is_not_longer_than_it_may_be() -> None:
    """The rest is left out, and that is shown."""
    assert one_line("x" * 100, 10) == "x" * 9 + "…"
    assert one_line("a\nb\tc") == "a\\nb c"
