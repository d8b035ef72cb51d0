"""How much of a text's end another one begins with, and the other way round."""

# How often the beginning of a form is looked at where it may be, before the slower way that always ends.
_MOST_TRIES = 32
_HEAD = 8


def end_in_common(text: str, form: str, *, exactly: bool = True) -> int:
    """How much of the form's beginning the text ends with, short of all of it; not ``exactly``: at least that much."""
    end = text[-(len(form) - 1) :]
    head = form[:_HEAD]
    start = end.find(head)
    tries = 0
    while start >= 0 and not form.startswith(end[start:]):
        tries += 1
        if tries == _MOST_TRIES:
            return _long_end_in_common(end[start:], form) if exactly else len(end) - start
        start = end.find(head, start + 1)
    if start >= 0:
        return len(end) - start
    return next((length for length in range(len(head) - 1, 0, -1) if end.endswith(form[:length])), 0)


def _long_end_in_common(end: str, form: str) -> int:
    """The same in a time that grows with the text only: the algorithm of Knuth, Morris and Pratt."""
    falls = [0] * len(end)
    length = 0
    for index in range(1, len(end)):
        while length and form[index] != form[length]:
            length = falls[length - 1]
        length += form[index] == form[length]
        falls[index] = length
    length = 0
    for sign in end:
        while length and sign != form[length]:
            length = falls[length - 1]
        length += sign == form[length]
    return length


def start_in_common(text: str, form: str) -> int:
    """How much of the form's end the text starts with, short of all of it."""
    head = text[: len(form) - 1]
    stop = head.rfind(form[-1])
    while stop >= 0 and not form.endswith(head[: stop + 1]):
        stop = head.rfind(form[-1], 0, stop)
    return stop + 1
