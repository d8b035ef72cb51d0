"""Secrets do not show in what is recorded of steps."""

import base64
import json
import time
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandgate.core.execution import ErrorReport
from sandgate.core.run import StepResult, StepStatus
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


def test_without_secrets_nothing_changes() -> None:
    """And nothing is looked for."""
    masker = Masker()
    result = StepResult(StepStatus.SUCCEEDED, "succeeded", {"a": 1}, stdout="x")
    assert not masker
    assert masker.mask_result(result) is result
