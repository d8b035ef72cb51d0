"""Cuts the text of an expression into tokens, one at a time and each in linear time."""

import math
import re
from dataclasses import dataclass
from enum import Enum, auto

from sandgate.core.errors import ExpressionError

MAX_EXPRESSION_CHARACTERS = 8192
LARGEST_INTEGER = 2**63 - 1

# No part of it can match the same characters in two ways, so that it never goes back.
_PLAIN = re.compile(
    r"(?P<space>[ \t\r\n]+)"
    r"|(?P<number>[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<symbol>==|!=|<=|>=|&&|\|\||[-<>!+*/%.,:()\[\]{}])"
)
_LONGEST_NUMBER = 40


class Kind(Enum):
    """What a token is."""

    NUMBER = auto()
    TEXT = auto()
    NAME = auto()
    SYMBOL = auto()
    END = auto()


@dataclass(frozen=True, slots=True)
class Token:
    """A token and where it starts and ends; ``value`` is a number, a text, a word or a symbol."""

    kind: Kind
    value: str | int | float
    start: int
    end: int


class Tokens:
    """The tokens of ``text`` from ``start`` on. Nothing is read before it is asked for.

    ``following`` is the next token. Raises ``ExpressionError`` where no token can be read.
    """

    def __init__(self, text: str, start: int = 0) -> None:
        self._text = text
        self._start = start
        self.following = self._read(start)

    def take(self) -> Token:
        """The next token; the one after it becomes ``following``."""
        token = self.following
        self.following = self._read(token.end)
        return token

    def _read(self, position: int) -> Token:
        found = _PLAIN.match(self._text, position)
        if found and found.lastgroup == "space":
            position = found.end()
            found = _PLAIN.match(self._text, position)
        if position - self._start > MAX_EXPRESSION_CHARACTERS:
            raise ExpressionError(f"The expression is longer than {MAX_EXPRESSION_CHARACTERS} characters", position)
        if position >= len(self._text):
            return Token(Kind.END, "", position, position)
        if found:
            return _plain_token(found)
        if self._text[position] in "'\"":
            return self._read_text(position)
        raise ExpressionError(f"{self._text[position]!r} has no meaning here", position)

    def _read_text(self, start: int) -> Token:
        """A quoted text, in which the quote itself is written twice."""
        quote = self._text[start]
        limit = self._start + MAX_EXPRESSION_CHARACTERS
        end = start + 1
        while True:
            end = self._text.find(quote, end, limit + 1)
            if end < 0:
                raise ExpressionError(f"The text that starts here has no closing {quote}", start)
            if self._text[end + 1 : end + 2] != quote:
                break
            end += 2
        value = self._text[start + 1 : end].replace(quote * 2, quote)
        return Token(Kind.TEXT, value, start, end + 1)


def _plain_token(found: re.Match[str]) -> Token:
    start, end = found.span()
    match found.lastgroup:
        case "number":
            return Token(Kind.NUMBER, _number(found.group(), start), start, end)
        case "name":
            return Token(Kind.NAME, found.group(), start, end)
        case _:
            return Token(Kind.SYMBOL, found.group(), start, end)


def _number(text: str, position: int) -> int | float:
    if len(text) > _LONGEST_NUMBER:
        raise ExpressionError(f"A number has at most {_LONGEST_NUMBER} characters", position)
    value = int(text) if text.isdigit() else float(text)
    if not math.isfinite(value) or (isinstance(value, int) and value > LARGEST_INTEGER):
        raise ExpressionError("The number is too large", position)
    return value
