"""Reads the text of an expression into its tree, by precedence climbing.

From loose to tight: ``or ||``, ``and &&``, ``not``, comparison and ``in``, ``+ -``, ``* / %``, ``- !``, paths.
"""

from typing import NoReturn

from sandgate.core.errors import ExpressionError
from sandgate.workflows.expressions.functions import ARITIES
from sandgate.workflows.expressions.nodes import (
    Binary,
    Call,
    Expression,
    Index,
    ListOf,
    Literal,
    Name,
    Node,
    ObjectOf,
    Unary,
    walk,
)
from sandgate.workflows.expressions.tokens import Kind, Token, Tokens
from sandgate.workflows.suggestions import hint, shown, suggest

ROOTS = ("inputs", "steps", "item", "index", "env", "run", "secrets")
MAX_NODES = 1000
MAX_DEPTH = 100
MAX_NESTING = 32

_CONSTANTS = {"true": True, "false": False, "null": None}
_SPELLINGS = {"||": "or", "&&": "and"}
_WORDS = frozenset({"or", "and", "in", "not"})
_OR, _AND, _NOT, _COMPARISON, _SUM, _PRODUCT = range(1, 7)
_PRECEDENCE = {
    "or": _OR,
    "and": _AND,
    **dict.fromkeys(("==", "!=", "<", "<=", ">", ">=", "in", "not in"), _COMPARISON),
    **dict.fromkeys("+-", _SUM),
    **dict.fromkeys("*/%", _PRODUCT),
}


def parse(text: str) -> Expression:
    """The expression that is the whole of ``text``, without braces. Raises ``ExpressionError`` with the position."""
    parser = _Parser(text, 0)
    root = parser.whole()
    end = parser.tokens.following
    if end.kind is not Kind.END:
        _refuse_token(end, "the end of the expression, or an operator")
    return Expression(text, root)


def parse_braced(text: str, start: int) -> tuple[Expression, int]:
    """The expression that begins at ``start``, right after ``${{``, and where the text goes on after its ``}}``.

    Raises ``ExpressionError`` with the position in ``text``.
    """
    parser = _Parser(text, start)
    root = parser.whole()
    end = parser.tokens.following
    if end.kind is Kind.END:
        raise ExpressionError("The expression is not closed; write }} after it", start)
    if text[end.start : end.start + 2] != "}}":
        _refuse_token(end, "}} or an operator")
    return Expression(text[start : end.start], root), end.start + 2


class _Parser:
    """One pass over the tokens; what it calls itself with is bounded by ``MAX_NESTING``."""

    def __init__(self, text: str, start: int) -> None:
        self.tokens = Tokens(text, start)
        self._depth = 0
        self._nodes = 0

    def whole(self) -> Node:
        """The whole expression."""
        root = self._expression(_OR)
        for node, depth in walk(root):
            if depth > MAX_DEPTH:
                raise ExpressionError(f"More than {MAX_DEPTH} operators or members in a row", node.position)
        return root

    def _expression(self, least: int) -> Node:
        """Operands joined by operators that bind at least as tightly as ``least``."""
        left = self._operand(least)
        while (operator := self._operator()) and _PRECEDENCE[operator] >= least:
            position = self._take_operator(operator)
            right = self._expression(_PRECEDENCE[operator] + 1)
            left = self._count(Binary(position, operator, left, right))
            following = self._operator()
            if _PRECEDENCE[operator] == _COMPARISON and following and _PRECEDENCE[following] == _COMPARISON:
                _refuse_token(self.tokens.following, "only one comparison; join two with `and`")
        return left

    def _operator(self) -> str | None:
        """The operator that follows, in its one spelling."""
        token = self.tokens.following
        word = str(token.value) if token.kind in (Kind.SYMBOL, Kind.NAME) else ""
        word = "not in" if word == "not" else _SPELLINGS.get(word, word)
        return word if word in _PRECEDENCE else None

    def _take_operator(self, operator: str) -> int:
        position = self.tokens.take().start
        if operator == "not in":
            self._take_word("in")
        return position

    def _operand(self, least: int) -> Node:
        """A value with what stands before it; deeper nesting always goes through here."""
        self._depth += 1
        token = self.tokens.following
        if self._depth > MAX_NESTING:
            raise ExpressionError(f"Brackets are nested deeper than {MAX_NESTING} levels", token.start)
        node = self._prefixed(token, least)
        self._depth -= 1
        return node

    def _prefixed(self, token: Token, least: int) -> Node:
        if token.kind is Kind.NAME and token.value == "not":
            if least > _NOT:
                _refuse_token(token, "a value; put brackets around `not …`")
            self.tokens.take()
            return self._count(Unary(token.start, "not", self._expression(_COMPARISON)))
        if token.kind is Kind.SYMBOL and token.value in ("!", "-"):
            self.tokens.take()
            operator = "not" if token.value == "!" else "-"
            return self._count(Unary(token.start, operator, self._operand(_PRODUCT + 1)))
        return self._path(self._value())

    def _value(self) -> Node:
        token = self.tokens.take()
        if token.kind in (Kind.NUMBER, Kind.TEXT):
            return self._count(Literal(token.start, token.value))
        if token.kind is Kind.NAME and token.value not in _WORDS:
            return self._named(token, str(token.value))
        return self._bracketed(token)

    def _bracketed(self, token: Token) -> Node:
        opening = token.value if token.kind is Kind.SYMBOL else None
        if opening == "[":
            return self._count(ListOf(token.start, self._listed("]")))
        if opening == "{":
            return self._object(token)
        if opening != "(":
            _refuse_token(token, "a value")
        inner = self._expression(_OR)
        self._take_symbol(")")
        return inner

    def _named(self, token: Token, name: str) -> Node:
        if name in _CONSTANTS:
            return self._count(Literal(token.start, _CONSTANTS[name]))
        if self._follows("("):
            return self._call(token, name)
        if name in ROOTS:
            return self._count(Name(token.start, name))
        hint = "write it as a function: " + name + "()" if name in ARITIES else suggest(name, ROOTS)
        raise ExpressionError(
            f"{shown(name)} is not known; {hint} (texts need quotes; a name with a dash is written steps['a-b'])",
            token.start,
        )

    def _call(self, token: Token, name: str) -> Node:
        if name not in ARITIES:
            raise ExpressionError(f"There is no function {shown(name)}{hint(name, ARITIES)}", token.start)
        self.tokens.take()
        arguments = self._listed(")")
        least, most = ARITIES[name]
        if not least <= len(arguments) <= most:
            wanted = str(least) if least == most else f"{least} to {most}"
            problem = f"{name}() takes {wanted} argument{'' if wanted == '1' else 's'}, not {len(arguments)}"
            raise ExpressionError(problem, token.start)
        return self._count(Call(token.start, name, arguments))

    def _path(self, node: Node) -> Node:
        """The value with its members and elements."""
        while self._follows(".") or self._follows("["):
            token = self.tokens.take()
            node = self._count(Index(token.start, node, self._key(token)))
        return node

    def _key(self, token: Token) -> Node:
        if token.value == ".":
            name = self.tokens.take()
            if name.kind is not Kind.NAME:
                _refuse_token(name, "a name after the dot")
            return self._count(Literal(name.start, name.value))
        key = self._expression(_OR)
        self._take_symbol("]")
        return key

    def _listed(self, closing: str) -> tuple[Node, ...]:
        """Expressions with commas between them, up to and with ``closing``."""
        items: list[Node] = []
        while not self._follows(closing):
            items.append(self._expression(_OR))
            if not self._follows(","):
                break
            self.tokens.take()
        self._take_symbol(closing)
        return tuple(items)

    def _object(self, opening: Token) -> Node:
        items: dict[str, Node] = {}
        while not self._follows("}"):
            key = self.tokens.take()
            if key.kind is not Kind.TEXT or key.value in items:
                _refuse_token(key, "a key in quotes, each once")
            self._take_symbol(":")
            items[str(key.value)] = self._expression(_OR)
            if not self._follows(","):
                break
            self.tokens.take()
        self._take_symbol("}")
        return self._count(ObjectOf(opening.start, tuple(items.items())))

    def _follows(self, symbol: str) -> bool:
        token = self.tokens.following
        return token.kind is Kind.SYMBOL and token.value == symbol

    def _take_symbol(self, symbol: str) -> None:
        if not self._follows(symbol):
            _refuse_token(self.tokens.following, f"`{symbol}`")
        self.tokens.take()

    def _take_word(self, word: str) -> None:
        token = self.tokens.take()
        if token.kind is not Kind.NAME or token.value != word:
            _refuse_token(token, f"`{word}`")

    def _count(self, node: Node) -> Node:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise ExpressionError(f"The expression has more than {MAX_NODES} parts", node.position)
        return node


def _refuse_token(token: Token, wanted: str) -> NoReturn:
    found = "the end" if token.kind is Kind.END else shown(str(token.value))
    raise ExpressionError(f"Expected {wanted}, found {found}", token.start)
