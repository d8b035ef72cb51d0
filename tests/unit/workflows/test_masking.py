"""Secrets do not show in what is recorded of steps."""

import asyncio
import base64
import gc
import json
import sys
import threading
import time
from collections.abc import Callable, Collection
from types import FrameType
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandgate.core.execution import ErrorReport
from sandgate.core.run import StepResult, StepStatus
from sandgate.workflows import maskers, masking
from sandgate.workflows.masking import MASK, MaskedStream, Masker

SECRET = 'p"a$$w\\ord é/1'
KEY = "-----BEGIN KEY-----\nMIIEvQIBADAN\n  BgkqhkiG9w0B\nab\n-----END KEY-----\n"
MANY = [f"secret-{number:05}" for number in range(100)]
texts = st.text("ab", max_size=40)
secrets = st.lists(st.text("ab", min_size=8, max_size=12), min_size=1, max_size=3)


@pytest.mark.parametrize(
    "form",
    [
        SECRET,
        json.dumps(SECRET),
        json.dumps(SECRET, ensure_ascii=False),
        repr(SECRET),
        quote(SECRET),
        quote(SECRET, safe=""),
        base64.b64encode(SECRET.encode()).decode(),
        json.dumps({"a": [SECRET]}),
    ],
)
@pytest.mark.parametrize("others", [[], MANY])
def test_a_secret_is_masked_in_every_usual_form(form: str, others: list[str]) -> None:
    """As it is, and as JSON, Python, addresses and base64 write it; the rest of the text stays."""
    masked = Masker([*others, SECRET]).mask(f"before {form} after")
    assert MASK in masked
    assert form not in masked
    assert masked.startswith("before ")
    assert masked.endswith(" after")


def test_each_line_of_a_secret_is_masked() -> None:
    """Those that are long enough; a short one would stand for too much else."""
    masker = Masker([KEY])
    assert masker.mask(KEY) == MASK
    assert masker.mask(KEY.strip()) == MASK
    assert masker.mask("x MIIEvQIBADAN y\r\n> BgkqhkiG9w0B\nab") == f"x {MASK} y\r\n> {MASK}\nab"


def test_what_a_cut_leaves_of_a_secret_is_masked() -> None:
    """At the end where something was cut off, and nowhere else."""
    masker = Masker(["hunter2-hunter2"])
    assert masker.mask("it is hunter2-hun", cut_end=True) == f"it is {MASK}"
    assert masker.mask("r2-hunter2 it was", cut_start=True) == f"{MASK} it was"
    assert masker.mask("oh") == "oh"
    assert masker.mask("it is hunter2-hun") == "it is hunter2-hun"


def test_everything_in_a_result_is_masked() -> None:
    """Output, outputs with their names and numbers, and the three parts of an error."""
    masker = Masker(["12345678", "hunter2-hunter2"])
    shown = "x hunter2-hunter2 y"
    outputs = {shown: [shown, 12345678, {"n": -123456789.5}, 1, None, True]}
    result = StepResult(
        StepStatus.FAILED, "failed", outputs, ErrorReport(shown, shown, shown), shown, shown + " hunter2"
    )
    masked = masker.mask_result(result, stderr_cut=True)
    hidden = f"x {MASK} y"
    assert masked.outputs == {hidden: [hidden, MASK, {"n": MASK}, 1, None, True]}
    assert masked.error == ErrorReport(hidden, hidden, hidden)
    assert (masked.stdout, masked.stderr) == (hidden, f"{hidden} {MASK}")


def test_parts_of_an_error_that_were_cut_inside() -> None:
    """The end of a long value, and the beginning of a long traceback."""
    masker = Masker(["hunter2-hunter2"])
    error = ErrorReport("E", "x" * 4089 + "hunter2", "2-hunter2" + "x" * 12_000)
    masked = masker.mask_result(StepResult(StepStatus.FAILED, "failed", error=error)).error
    assert masked == ErrorReport("E", "x" * 4089 + MASK, MASK + "x" * 12_000)


def test_messages_about_expressions_show_no_values() -> None:
    """Not even a part of one, which no comparison would find."""
    masked = Masker([SECRET]).mask_message("There is no `pa`rt` in it; did you mean `x`? (at character 3)")
    assert masked == f"There is no `{MASK}`? (at character 3)"


@given(secrets, texts)
@settings(max_examples=300)
def test_no_character_of_a_secret_stays(secrets: list[str], text: str) -> None:
    """Whatever overlaps what: all that any secret covers is gone, and all else is there."""
    covered = [False] * len(text)
    for secret in {form for one in secrets for form in (one, base64.b64encode(one.encode()).decode().rstrip("="))}:
        for start in range(len(text) - len(secret) + 1):
            if text.startswith(secret, start):
                covered[start : start + len(secret)] = [True] * len(secret)
    rest = "".join(sign for sign, is_covered in zip(text, covered, strict=True) if not is_covered)
    for more in ([], MANY):
        assert Masker([*secrets, *more]).mask(text).replace(MASK, "") == rest


@given(secrets, st.lists(texts, max_size=8))
@settings(max_examples=300)
def test_pieces_are_masked_like_the_whole(secrets: list[str], pieces: list[str]) -> None:
    """Wherever a stream is cut, no part of a secret leaves before it is known to be none."""
    masker = Masker(secrets)
    for cut in (False, True):
        stream = MaskedStream(masker)
        shown = "".join([*map(stream.feed, pieces), stream.finish(cut=cut)])
        assert shown == masker.mask("".join(pieces), cut_end=cut)


def test_a_stream_shows_nothing_that_may_become_a_secret() -> None:
    """The beginning of one waits, and is shown as soon as it is known to be none."""
    stream = MaskedStream(Masker(["hunter2-hunter2"]))
    assert [stream.feed(piece) for piece in ("it is hun", "ter2-h", "unter2", " or hunter", "s")] == [
        "it is ",
        "",
        MASK,
        " or ",
        "hunters",
    ]


@given(
    st.lists(st.text("ab", min_size=40, max_size=80), min_size=1, max_size=2),
    st.lists(st.integers(1, 90), max_size=8),
    st.text("ab", max_size=8),
)
def test_long_secrets_are_masked_in_pieces_like_the_whole(secrets: list[str], lengths: list[int], end: str) -> None:
    """Also those that begin again and again."""
    secrets = [*secrets, "a" * 60 + "b", "ab" * 40]
    whole = "".join(secrets[length % len(secrets)][:length] for length in lengths) + end
    masker = Masker(secrets)
    for step in (1, 7, 33):
        stream = MaskedStream(masker)
        shown = [stream.feed(whole[start : start + step]) for start in range(0, len(whole), step)]
        assert "".join([*shown, stream.finish(cut=True)]) == masker.mask(whole, cut_end=True)


def test_what_waits_is_bounded_by_the_longest_secret() -> None:
    """And so is what is looked at for each piece, for secrets that are made to begin everywhere."""
    stream = MaskedStream(Masker(["a" * 10_000 + "b", "a" * 9_000]))
    shown = "".join(stream.feed("a" * 100) for _ in range(2000))
    assert shown == MASK
    assert stream.feed("c" * 8) + stream.feed("c" * 10_000) == "c" * 10_008


def test_masking_takes_no_time_to_speak_of() -> None:
    """Not with secrets that repeat themselves, nor with many lines: what it looks at is bounded by the text."""
    text = "a" * 100_000
    assert Masker(["a" * 10_000]).mask(text) == MASK
    lines = "\n".join(f"line-{number:08}" for number in range(500))
    assert Masker([lines]).mask("y".join(lines.split("\n"))).count(MASK) == 500


def test_many_secrets_that_are_alike_are_found_soon() -> None:
    """What is looked for at a place does not grow with their number, of the whole and of pieces."""
    lines = [f"AAAAAAAA{number:08}" for number in range(2000)]
    masker = Masker(["\n".join(lines[:1000]), "\n".join(lines[1000:])])
    started = time.process_time()
    assert masker.mask(f"{'A' * 100_000} {lines[7]} b") == f"{'A' * 100_000} {MASK} b"
    stream = MaskedStream(masker)
    assert "".join(stream.feed("a line of a log\n") for _ in range(1000)) == "a line of a log\n" * 1000
    assert time.process_time() - started < 3


def test_secrets_that_take_too_long_to_look_for_hide_all_that_is_left() -> None:
    """Nobody else waits for somebody whose secrets are made for that, and none of them shows."""
    secrets = ["A" * length + "!" for length in range(700, 1400)]
    masker = Masker(secrets)
    started = time.process_time()
    masked = masker.mask("x" + "A" * 100_000 + secrets[3])
    assert masked.startswith("x")
    assert masked.endswith(MASK)
    assert secrets[3] not in masked
    stream = MaskedStream(masker)
    shown = "".join(stream.feed("A" * 100) for _ in range(100)) + stream.finish()
    assert time.process_time() - started < 6
    assert "!" not in shown


def _events(work: Callable[[], object]) -> int:
    """How many functions it calls, of Python and of C: the same on every machine, however busy."""
    count = 0

    def see(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(see)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


HOSTILE = {
    "begin alike, of many lengths": (["A" * length + "!" for length in range(700, 1400)], "A" * 100),
    "begin alike, of one length": ([f"{'A' * 40}{number:06}" for number in range(3000)], "A" * 100),
    "long, and begun again and again": ([f"{number:03}{'ab' * 4000}" for number in range(70)], "042" + "ab" * 49),
    "very long": (["A" * 32_000 + str(number) for number in range(20)], "A" * 100),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_the_cost_of_a_stream_is_bounded_by_its_length(kind: str) -> None:
    """Whatever the secrets, and however small the pieces: in all so much for each character, beside a fixed amount."""
    secrets, piece = HOSTILE[kind]
    masker = Masker(secrets)
    pieces = 600
    stream = MaskedStream(masker)
    costs = [_events(lambda: stream.feed(piece)) for _ in range(pieces)]
    assert sum(costs) <= 500_000 + 40 * pieces * len(piece)
    assert sum(costs[pieces // 2 :]) <= 40 * pieces * len(piece)
    assert "!" not in stream.finish()


def test_the_cost_of_a_whole_is_bounded_by_its_length() -> None:
    """Twice the text, at most twice the work, beside a fixed amount."""
    for secrets, piece in HOSTILE.values():
        masker = Masker(secrets)
        text = piece * 500
        assert _events(lambda masker=masker, text=text: masker.mask(text)) <= 500_000 + 40 * len(text)  # type: ignore[misc]


def test_usual_output_is_hardly_looked_at() -> None:
    """With the lines of a key and some tokens as secrets: a call for some characters of a log, not for each."""
    key = "\n".join(base64.b64encode(bytes(range(number, number + 48))).decode() for number in range(27))
    masker = Masker([key, *(f"ghp_{number:032x}" for number in range(5))])
    log = "".join(f"2026-01-31 08:00:00 step {number} has done what it was to do\n" for number in range(500))
    assert _events(lambda: masker.mask(log)) <= len(log) // 4
    assert masker.mask(log) == log


def test_what_has_too_many_secrets_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those beyond the bound are not even looked at, which would take seconds, and memory to match."""
    monkeypatch.setattr(masking, "_MOST_FORMS", 2000)
    secrets = ["\n".join(f"{number}-{line:06}-é" for line in range(200)) for number in range(40)]
    masker = Masker(secrets)
    few, many = (_events(lambda count=count: Masker(secrets[:count])) for count in (20, 40))  # type: ignore[misc]
    assert many <= 1.1 * few
    assert masker
    assert (masker.mask("hello"), masker.mask("hello", cut_end=True), masker.mask("")) == (MASK, MASK, "")
    assert masker.mask_json({"a": ["b", 1, None]}) == {MASK: [MASK, MASK, None]}
    stream = MaskedStream(masker)
    assert [stream.feed("he"), stream.feed("llo"), stream.finish(cut=True)] == [MASK, "", ""]


async def test_a_masker_is_made_once_where_it_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts that need the same one at a time share it; it is made in another thread, and forgotten afterwards."""
    made: list[int] = []

    def make(secrets: Collection[str]) -> Masker:
        made.append(threading.get_ident())
        return Masker(secrets)

    monkeypatch.setattr(maskers, "Masker", make)
    several = maskers.Maskers()
    secrets = ["x" * 600, "y" * 600]

    async def attempt() -> int:
        masker = await several.get(secrets)
        again = await several.get(secrets[::-1])
        assert masker is again
        return id(masker)

    assert len(set(await asyncio.gather(*(attempt() for _attempt in range(5))))) == 1
    assert len(made) == 1
    assert made[0] != threading.get_ident()
    assert (await several.get(["short-secret"])).mask("a short-secret") == f"a {MASK}"
    assert made[1:] == [threading.get_ident()]
    await asyncio.sleep(0)
    gc.collect()
    assert (dict(several._kept), several._making) == ({}, {})


async def test_much_output_is_masked_where_it_holds_nobody_up() -> None:
    """Little of it is masked at once."""
    threads: list[int] = []
    for masker, size in ((Masker(), 10**6), (Masker([SECRET]), 10), (Masker([SECRET]), 10**6)):
        await maskers.mask_apart(masker, size, lambda: threads.append(threading.get_ident()))
    assert [thread == threading.get_ident() for thread in threads] == [True, True, False]


def test_without_secrets_nothing_changes() -> None:
    """And nothing is looked for."""
    masker = Masker()
    result = StepResult(StepStatus.SUCCEEDED, "succeeded", {"a": 1}, stdout="x")
    assert not masker
    assert masker.mask_result(result) is result
