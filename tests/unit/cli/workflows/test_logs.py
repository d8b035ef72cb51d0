"""What the code of a run has printed, on the terminal and in files."""

import io
import json
import sys
from typing import Any

import pytest

from sandgate.cli.workflows.logs import LogPrinter
from sandgate.sdk.answers import Attempted
from sandgate.sdk.events import ServerEvent
from tests.unit.cli.workflows.views import attempt, step, view


class Screen(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """See the class."""
        return True


def not_wanted(step: str, item: int | None) -> Attempted:
    """Nothing is left out here."""
    raise AssertionError(f"{step} {item} was asked for")


def printed(capsys: pytest.CaptureFixture[str], *views: Any, **options: Any) -> tuple[str, str]:
    """What was printed to stdout and stderr after these views."""
    printer = LogPrinter(options.pop("get_step", not_wanted), **options)
    for each in views:
        if isinstance(each, list):
            printer.show_events(each)
        else:
            printer.show(each)
    printer.close()
    captured = capsys.readouterr()
    return captured.out, captured.err


def test_lines_have_their_step_in_front(capsys: pytest.CaptureFixture[str]) -> None:
    """And their item; the two streams stay apart; a line without an end gets one."""
    shown = view(
        step("a", stdout="one\n\ntwo", stderr="oh\n"),
        step("b", items=[attempt(stdout="x\n"), attempt(stdout="y\n")]),
        step("c", "pending"),
    )
    assert printed(capsys, shown) == ("a | one\na | \na | two\nb[0] | x\nb[1] | y\n", "a | oh\n")


def test_one_step_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    """Byte for byte, for a file."""
    shown = view(step("a", stdout="no\n"), step("b", stdout="\x1b[1mone\r\ntwo", stderr="\x07"))
    assert printed(capsys, shown, step="b") == ("\x1b[1mone\r\ntwo", "\x07")


def events(*texts: str, step: str = "a", attempt: int = 1, kind: str = "stdout") -> list[ServerEvent]:
    """Output as the server streams it."""
    data = [{"step": step, "item": None, "attempt": attempt, "text": text} for text in texts]
    return [ServerEvent(kind, json.dumps(each)) for each in data]


def test_what_was_printed_is_not_printed_again(capsys: pytest.CaptureFixture[str]) -> None:
    """What came in events is not printed from rows, nor the other way round; half a line waits for its other half."""
    views = [
        events("on"),
        events("e\ntw", "o\n", "thr"),
        view(step("a", stdout="one\ntwo\nthree"), step("b", "running")),
        events("ee"),
        events("b\n", step="b"),
        view(step("a", stdout="one\ntwo\nthree"), step("b", stdout="b\n")),
        events("one\ntwo\nthree", step="a", attempt=0),
    ]
    assert printed(capsys, *views) == ("a | one\na | two\na | three\nb | b\n", "")


def test_output_that_was_left_out_is_asked_for_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Step by step and item by item, but not again while no other attempt has ended; nor that of steps not wanted."""
    asked: list[tuple[str, int | None]] = []

    def get_step(name: str, item: int | None) -> Attempted:
        asked.append((name, item))
        return Attempted.model_validate(attempt(stdout=f"{name} {item}\n"))

    left_out = view(
        step("a", output_omitted=True),
        step("b", items=[attempt(stdout="x\n"), attempt(output_omitted=True)]),
    )
    out = "a | a None\nb[0] | x\nb[1] | b 1\n"
    assert printed(capsys, left_out, left_out, get_step=get_step) == (out, "")
    assert asked == [("a", None), ("b", 1)]
    assert printed(capsys, left_out, step="b", get_step=get_step) == ("x\nb 1\n", "")
    assert asked[2:] == [("b", 1)]


def test_rows_first_and_events_later_is_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    """A stream that begins at the beginning repeats what rows had."""
    views = [view(step("a", stdout="one\ntwo")), events("one\n"), events("two"), view(step("a", stdout="one\ntwo"))]
    assert printed(capsys, *views) == ("a | one\na | two\n", "")


def test_one_step_is_printed_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Dots of progress are seen before their line ends."""
    printer = LogPrinter(not_wanted, step="a")
    printer.show_events([*events(".", "."), *events("no", step="b")])
    assert capsys.readouterr().out == ".."


def test_events_that_make_no_sense_are_passed_over(capsys: pytest.CaptureFixture[str]) -> None:
    """A newer server may say more."""
    strange = ["", "[]", "{}", '{"step": 1, "attempt": 1, "text": "x"}', "[" * 100_000]
    assert printed(capsys, [ServerEvent("stdout", data) for data in strange], [ServerEvent("new", "{}")]) == ("", "")


def test_another_attempt_has_output_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    """It is printed although it is the same."""
    views = [
        view(step("a", "waiting", attempts=1, stdout="try\n")),
        view(step("a", "running", attempts=2, stdout="try\n")),
        events("tr", attempt=2),
        view(step("a", attempts=2, stdout="try\n")),
    ]
    assert printed(capsys, *views)[0] == "a | try\na | try\n"


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("chosen", [None, "a"])
def test_a_terminal_is_not_given_orders(monkeypatch: pytest.MonkeyPatch, raw: bool, chosen: str | None) -> None:
    """Control characters are spelled out, in output and in names, unless they are asked for."""
    out, err = Screen(), Screen()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    printer = LogPrinter(not_wanted, step=chosen, raw=raw)
    printer.show(view(step("a", stdout="\x1b]0;title\x07\r\x9b2J\n", stderr="\x1b[31m")))
    printer.close()
    written = out.getvalue() + err.getvalue()
    assert ("\x1b" in written, "\x9b" in written, "\r" in written) == (raw, raw, raw)
    assert ("\\x1b]0;title\\x07\\r\\x9b2J\n" in written) is not raw
    assert written.endswith("\n")
