"""The functions of expressions. Each gets values and the work it may do, and refuses what is not of its types."""

from collections.abc import Callable, Mapping, Sequence

from sandgate.core.workflow import Json
from sandgate.workflows.expressions.values import MAX_TEXT_CHARACTERS, Work, equal, from_json, kind, to_json, to_text

STATUS_FUNCTIONS = frozenset({"success", "failure", "always", "cancelled"})

ARITIES: Mapping[str, tuple[int, int]] = {
    "length": (1, 1),
    "keys": (1, 1),
    "join": (1, 2),
    "split": (2, 2),
    "contains": (2, 2),
    "starts_with": (2, 2),
    "ends_with": (2, 2),
    "to_json": (1, 1),
    "from_json": (1, 1),
    "default": (2, 2),
    **dict.fromkeys(sorted(STATUS_FUNCTIONS), (0, 0)),
}
"""How many arguments each function takes, at least and at most."""


def contains(whole: Json, part: Json, work: Work) -> bool:
    """Whether a text holds a text, a list an element, an object a key."""
    if isinstance(whole, list):
        return any(equal(item, part, work) for item in whole)
    if isinstance(whole, str | dict):
        searched = _text(part, "what is searched in " + kind(whole), work)
        work.spend(len(searched) + (len(whole) if isinstance(whole, str) else 0))
        return searched in whole
    raise work.error(f"A text, a list or an object can contain something, {kind(whole)} cannot")


def call(name: str, arguments: Sequence[Json], work: Work) -> Json:
    """The value of a function that is no status function and evaluates all its arguments."""
    return _IMPLEMENTATIONS[name](arguments, work)


def _text(value: Json, what: str, work: Work) -> str:
    if not isinstance(value, str):
        raise work.error(f"{what} has to be a text, not {kind(value)}")
    return value


def _length(arguments: Sequence[Json], work: Work) -> int:
    (value,) = arguments
    if not isinstance(value, str | list | dict):
        raise work.error(f"length() takes a text, a list or an object, not {kind(value)}")
    return len(value)


def _keys(arguments: Sequence[Json], work: Work) -> list[Json]:
    (value,) = arguments
    if not isinstance(value, dict):
        raise work.error(f"keys() takes an object, not {kind(value)}")
    work.spend(sum(map(len, value)))
    return sorted(value)


def _join(arguments: Sequence[Json], work: Work) -> str:
    items, separator = (*arguments, ",")[:2]
    between = _text(separator, "The separator of join()", work)
    if not isinstance(items, list):
        raise work.error(f"join() takes a list, not {kind(items)}")
    odd = next((item for item in items if item is None or isinstance(item, list | dict)), "")
    if odd != "":
        raise work.error(f"join() takes a list of texts, numbers and booleans; it holds {kind(odd)}")
    texts = [to_text(item, work) for item in items]
    work.check_text(sum(map(len, texts)) + len(between) * len(texts))
    return between.join(texts)


def _split(arguments: Sequence[Json], work: Work) -> list[Json]:
    text, separator = (_text(value, "What is given to split()", work) for value in arguments)
    if not separator:
        raise work.error("The separator of split() is empty")
    # Each part is an object of its own, which costs more than its characters.
    work.spend(len(text) + 8 * text.count(separator))
    return list(text.split(separator))


def _starts_with(arguments: Sequence[Json], work: Work) -> bool:
    text, start = (_text(value, "What is given to starts_with()", work) for value in arguments)
    work.spend(len(start))
    return text.startswith(start)


def _ends_with(arguments: Sequence[Json], work: Work) -> bool:
    text, end = (_text(value, "What is given to ends_with()", work) for value in arguments)
    work.spend(len(end))
    return text.endswith(end)


def _from_json(arguments: Sequence[Json], work: Work) -> Json:
    text = _text(arguments[0], "What is given to from_json()", work)
    if len(text) > MAX_TEXT_CHARACTERS:
        raise work.error(f"from_json() takes a text of at most {MAX_TEXT_CHARACTERS} characters")
    return from_json(text, work)


_IMPLEMENTATIONS: Mapping[str, Callable[[Sequence[Json], Work], Json]] = {
    "length": _length,
    "keys": _keys,
    "join": _join,
    "split": _split,
    "contains": lambda arguments, work: contains(arguments[0], arguments[1], work),
    "starts_with": _starts_with,
    "ends_with": _ends_with,
    "to_json": lambda arguments, work: to_json(arguments[0], work),
    "from_json": _from_json,
}
