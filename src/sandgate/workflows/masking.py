"""Puts ``***`` in the place of secrets in whatever is recorded or shown of a step.

A secret is looked for as it is, line by line, and in the forms that JSON, Python, addresses and base64 give it. Code
that takes it apart, or turns it into something else, is not stopped by this.
"""

import base64
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from urllib.parse import quote, quote_plus

from sandgate.core.execution import ErrorReport, Termination
from sandgate.core.run import StepResult
from sandgate.core.states import ExecutionStatus
from sandgate.core.workflow import Json
from sandgate.workflows.overlaps import end_in_common, start_in_common

MASK = "***"
SHORTEST_SECRET = 8
"""Characters, of a secret and of a line of one: what is shorter is too likely to stand for something else."""

Span = tuple[int, int]

# Where the parts of an error are cut inside; a shorter one is whole.
_CUT_NAME, _CUT_VALUE, _CUT_TRACEBACK = 256, 4096, 12_000
# Up to here looking for each form by itself is faster.
_FEW_FORMS = 64
_LONGEST_STEP = 16_384
# How much is compared in one text, in forms of up to so many characters.
_LEAST_WORK, _WORK_PER_CHARACTER, _CHARACTERS_AT_ONCE = 100_000, 4, 256
# What a workflow's secrets may look like in all. One that has more is a workflow of which nothing is shown.
_MOST_FORMS = 50_000
# What waits and is longer is looked at again only when it has grown by this part of it.
_LONG_WAIT, _GROWTH = 2048, 8
# In the place of how far a mask reaches: what was shown last is none.
_PLAIN = -1
# What the service shows of a value stands in these.
_QUOTED = re.compile("`.*`", re.DOTALL)


class Form:
    """One of the texts to be masked, and how it repeats itself."""

    __slots__ = ("period", "tail", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        # The smallest distance at which two of it can overlap, or touch.
        self.period = len(text) - end_in_common(text[1:], text)
        self.tail = text[-self.period :]

    def find_end(self, text: str, start: int) -> int:
        """Where the stretch ends that begins with this form; each further one of it overlaps or touches the one before.

        Looks at many repetitions at a time.
        """
        end = start + len(self.text)
        steps = [self.tail]
        while text.startswith(steps[-1], end):
            end += len(steps[-1])
            if len(steps[-1]) < _LONGEST_STEP:
                steps.append(2 * steps[-1])
        for step in reversed(steps):
            while text.startswith(step, end):
                end += len(step)
        return end


class _Alike:
    """Forms that start alike and are of one length."""

    def __init__(self) -> None:
        self.forms: dict[str, Form] = {}
        self.tails: set[str] = set()

    def add(self, form: Form) -> None:
        """Add one of them."""
        self.forms[form.text] = form
        self.tails.add(form.text[-SHORTEST_SECRET:])


_NO_FORMS: Mapping[int, _Alike] = {}


class _Effort:
    """How much may still be compared in one text, whatever the pieces in which it comes."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = _LEAST_WORK

    def allow(self, text: str) -> "_Effort":
        """So much more, for more text."""
        self.left += _WORK_PER_CHARACTER * len(text)
        return self


class Masker:
    """Knows the secrets of one workflow. Making one takes a time that grows with them, but is bounded."""

    def __init__(self, secrets: Collection[str] = ()) -> None:
        forms: set[str] = set()
        for text in (text for secret in secrets for text in _forms(secret)):
            forms.add(text)
            if len(forms) > _MOST_FORMS:
                # Any text is a secret then: of nothing it can be said in a bounded time that it is none.
                forms = {""}
                break
        self._hides_all = "" in forms
        self._forms = [Form(text) for text in sorted(forms, key=lambda form: (-len(form), form))]
        # By how they start, then by length.
        self._by_start: dict[str, dict[int, _Alike]] = {}
        for form in self._forms:
            lengths = self._by_start.setdefault(form.text[:SHORTEST_SECRET], {})
            lengths.setdefault(len(form.text), _Alike()).add(form)
        # All that is shorter than the beginnings above; of few forms it is not needed.
        many = self._by_start if len(self._forms) > _FEW_FORMS else ()
        self._maybe = _pattern_of(many)
        self._short_starts = {start[:length] for start in many for length in range(1, SHORTEST_SECRET)}

    def __bool__(self) -> bool:
        return bool(self._forms)

    def mask(self, text: str, *, cut_start: bool = False, cut_end: bool = False) -> str:
        """The text without secrets; of one that was cut, also without the rest of a secret at that end."""
        if not self._forms or not text:
            return text
        if self._hides_all:
            return MASK
        spans = list(self._find(text))
        for is_cut, at_end in ((cut_end, True), (cut_start, False)):
            cut = self._find_cut(text, at_end=at_end) if is_cut else None
            if cut is not None:
                spans.append(cut)
        return _show(text, spans, len(text))[0] if spans else text

    def mask_message(self, text: str) -> str:
        """A sentence of the service's own about an expression, which may show a part of a value."""
        return self.mask(_QUOTED.sub(f"`{MASK}`", text)) if self._forms else text

    def mask_json(self, value: Json) -> Json:
        """A value of JSON with every text in it masked, names too; a number that shows a secret becomes a text."""
        if not self._forms:
            return value
        match value:
            case str():
                return self.mask(value)
            case list():
                return [self.mask_json(item) for item in value]
            case dict():
                return {self.mask(key): self.mask_json(item) for key, item in value.items()}
            case bool() | None:
                return value
            case _:
                return MASK if any(self._find(json.dumps(value))) else value

    def mask_result(self, result: StepResult, *, stdout_cut: bool = False, stderr_cut: bool = False) -> StepResult:
        """How an attempt ended, with everything in it masked."""
        if not self._forms:
            return result
        error = result.error
        return replace(
            result,
            stdout=self.mask(result.stdout, cut_end=stdout_cut),
            stderr=self.mask(result.stderr, cut_end=stderr_cut),
            outputs=self.mask_json(result.outputs),
            error=None if error is None else self._mask_error(error),
        )

    def mask_termination(self, ended: Termination) -> Termination:
        """How an execution ended, with its output and its error masked. Outputs stay as they are."""
        if not self._forms:
            return ended
        stdout_cut, stderr_cut = are_cut(ended)
        return replace(
            ended,
            stdout=self.mask(ended.stdout.decode("utf-8", "replace"), cut_end=stdout_cut).encode(),
            stderr=self.mask(ended.stderr.decode("utf-8", "replace"), cut_end=stderr_cut).encode(),
            error=None if ended.error is None else self._mask_error(ended.error),
        )

    def _mask_error(self, error: ErrorReport) -> ErrorReport:
        return ErrorReport(
            self.mask(error.name, cut_end=len(error.name) >= _CUT_NAME),
            self.mask(error.value, cut_end=len(error.value) >= _CUT_VALUE),
            self.mask(error.traceback, cut_start=len(error.traceback) >= _CUT_TRACEBACK),
        )

    def _find(self, text: str, effort: _Effort | None = None) -> Iterator[Span]:
        """Every stretch that secrets cover; stretches may overlap or touch, and are masked as one then."""
        if self._hides_all:
            yield 0, len(text)
            return
        if len(self._forms) > _FEW_FORMS:
            yield from self._find_many(text, effort or _Effort().allow(text))
            return
        for form in self._forms:
            start = text.find(form.text)
            while start >= 0:
                end = form.find_end(text, start)
                yield start, end
                start = text.find(form.text, end - len(form.text) + 1)

    def _find_many(self, text: str, effort: _Effort) -> Iterator[Span]:
        """Look at each place once, however many forms there are.

        Of secrets that are made to be long to look for nothing is shown, instead of all of it being looked for.
        """
        head, by_start = SHORTEST_SECRET, self._by_start
        done: dict[str, int] = {}
        left = effort.left
        for place in self._maybe.finditer(text):
            start = place.start()
            for length, alike in by_start.get(text[start : start + head], _NO_FORMS).items():
                left -= 1
                end = start + length
                if text[end - head : end] not in alike.tails:
                    continue
                left -= length // _CHARACTERS_AT_ONCE
                form = alike.forms.get(text[start:end])
                # Within a stretch of its own it has been looked for already.
                if form is not None and start >= done.get(form.text, 0):
                    end = form.find_end(text, start)
                    done[form.text] = end - len(form.text) + 1
                    yield start, end
            if left < 0:
                yield start, len(text)
                break
        effort.left = left

    def _find_cut(self, text: str, *, at_end: bool) -> Span | None:
        """The longest stretch at an end of the text that is a part of a secret."""
        find = end_in_common if at_end else start_in_common
        length = max((find(text, form.text) for form in self._forms if form.text), default=0)
        if not length:
            return None
        return (len(text) - length, len(text)) if at_end else (0, length)

    def _find_waiting(self, text: str, effort: _Effort) -> int:
        """Where the end of the text begins that may come to be a secret; it may be none as well."""
        if self._hides_all:
            return len(text)
        if len(self._forms) > _FEW_FORMS:
            return self._find_waiting_of_many(text, effort)
        return len(text) - max((end_in_common(text, form.text, exactly=False) for form in self._forms), default=0)

    def _find_waiting_of_many(self, text: str, effort: _Effort) -> int:
        """Look at each place near the end once, however many forms there are."""
        end, head = len(text), SHORTEST_SECRET
        for place in self._maybe.finditer(text, max(0, end - len(self._forms[0].text) + 1)):
            start = place.start()
            for length, alike in self._by_start.get(text[start : start + head], _NO_FORMS).items():
                if length <= end - start:
                    continue
                rest = text[start:]
                effort.left -= len(alike.forms) * (1 + len(rest) // _CHARACTERS_AT_ONCE)
                if effort.left < 0 or any(form.startswith(rest) for form in alike.forms):
                    return start
        places = range(max(0, end - head + 1), end)
        return next((start for start in places if text[start:] in self._short_starts), end)


def are_cut(ended: Termination) -> tuple[bool, bool]:
    """Whether stdout and stderr would have gone on: of what was killed, and beyond the cap."""
    killed = ended.status not in (ExecutionStatus.COMPLETED, ExecutionStatus.FAILED)
    return killed or ended.stdout_truncated, killed or ended.stderr_truncated


class MaskedStream:
    """Masks a text that comes in pieces: what may be the beginning of a secret waits for the next piece.

    What it shows, put together, is what ``Masker.mask`` makes of the whole, wherever that is cut into pieces.
    """

    def __init__(self, masker: Masker) -> None:
        self._masker = masker
        self._effort = _Effort()
        self._is_blind = False
        self._held = ""
        # How much of it has been looked at.
        self._seen = 0
        # How far into what is held a mask reaches that was shown already; 0: it ends where that begins.
        self._masked = _PLAIN

    def feed(self, text: str) -> str:
        """As much of the text so far as is sure."""
        if not self._masker:
            return text
        self._effort.allow(text)
        self._held += text
        if self._seen > _LONG_WAIT and len(self._held) - self._seen < self._seen // _GROWTH:
            return ""
        return self._show_held()

    def finish(self, *, cut: bool = False) -> str:
        """The rest; ``cut`` when more would have come."""
        held, self._held = self._held, ""
        spans = self._find(held)
        rest = self._masker._find_cut(held, at_end=True) if cut else None
        return _show(held, spans if rest is None else [*spans, rest], len(held), self._masked)[0]

    def _show_held(self) -> str:
        text = self._held
        end = len(text) if self._is_blind else self._masker._find_waiting(text, self._effort)
        spans = self._find(text)
        if self._is_blind:
            end = len(text)
        shown, self._masked = _show(text, spans, end, self._masked)
        self._held = text[end:]
        self._seen = len(self._held)
        return shown

    def _find(self, text: str) -> list[Span]:
        """What is masked of a text; all of it, and of all that comes, once there was too much to compare."""
        spans = [] if self._is_blind else list(self._masker._find(text, self._effort))
        self._is_blind = self._is_blind or self._effort.left < 0
        return [(0, len(text))] if self._is_blind else spans


def _pattern_of(starts: Collection[str]) -> "re.Pattern[str]":
    """Finds each place where one of these may stand: the characters there are, each for itself, some that they have."""
    columns = ("".join(sorted({start[index] for start in starts})) for index in range(SHORTEST_SECRET) if starts)
    return re.compile(f"(?={''.join(f'[{re.escape(column)}]' for column in columns)})")


def _forms(secret: str) -> Iterator[str]:
    """What a secret may look like."""
    whole = {secret, secret.strip()}
    for text in whole | {line.strip() for line in secret.splitlines()}:
        if len(text) < SHORTEST_SECRET:
            continue
        data = text.encode("utf-8", "surrogatepass")
        yield text
        yield json.dumps(text)[1:-1]
        yield json.dumps(text, ensure_ascii=False)[1:-1]
        yield repr(text)[1:-1]
        yield quote(data, safe="")
        yield quote(data)
        yield quote_plus(data)
        if text in whole:
            yield base64.b64encode(data).decode().rstrip("=")
            yield base64.urlsafe_b64encode(data).decode().rstrip("=")


def _show(text: str, spans: Iterable[Span], end: int, masked: int = _PLAIN) -> tuple[str, int]:
    """The text up to an end, with one mask in the place of each stretch that spans cover together.

    ``masked`` is how far a mask reaches that was shown before; answers also how far beyond the end the last one does.
    """
    parts: list[str] = []
    for start, stop in sorted(spans):
        if start >= end:
            break
        if start > masked:
            parts += [text[max(0, masked) : start], MASK]
        masked = max(masked, stop)
    if masked < end:
        parts.append(text[max(0, masked) : end])
        masked = end + _PLAIN
    return "".join(parts), masked - end
