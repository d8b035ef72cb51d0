"""A run as a picture and as lines."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console, Group

from sandgate.cli.exits import WrongUsage
from sandgate.cli.workflows.given_inputs import read_inputs, split_inputs
from sandgate.cli.workflows.live_view import choose_steps, render_run
from sandgate.cli.workflows.plain_view import PlainLines
from sandgate.cli.workflows.rows import ending, show_seconds
from sandgate.sdk.answers import RunView
from tests.unit.cli.workflows.views import step, view

NOW = datetime(2026, 1, 1, 0, 0, 7, tzinfo=UTC)
HOSTILE = "\x1b[2J\x1b]0;owned\x07\n\r\u202e"
MANY = [step(f"s{index}", "succeeded") for index in range(100)]
FAILED = {"name": "ValueError", "value": "bad\nthing", "traceback": ""}


def picture(shown: RunView, width: int = 100, height: int = 20) -> str:
    """What is drawn, on a terminal with colours."""
    console = Console(width=width, height=height, force_terminal=True, color_system=None, highlight=False)
    with console.capture() as captured:
        console.print(Group(*render_run(shown, NOW, height)))
    return captured.get()


def test_each_step_has_a_row() -> None:
    """With its status, its time so far, and what there is to say."""
    drawn = picture(
        view(
            step("fetch", attempts=3),
            step("each", "running", items=["succeeded", "failed", "running", "pending"]),
            step("ask", "waiting", type="approval"),
            step("ship", "waiting", type="approval", outputs={"message": "ship 1.2?"}),
            step("bad", "failed", error=FAILED),
            step("next", "pending"),
        )
    )
    lines = [" ".join(line.split()) for line in drawn.splitlines()]
    assert lines == [
        "w run-1 running 7.0 s",
        "✓ fetch succeeded 5 ms attempt 3",
        "▸ each running 7.0 s 2 of 4 items, 1 failed",
        "‖ ask waiting 7.0 s decide with: sandgate workflow approve run-1 ask",
        "‖ ship waiting 7.0 s ship 1.2?; decide with: sandgate workflow approve run-1 ship",
        "✗ bad failed 5 ms ValueError: bad\\nthing",
        "· next pending",
    ]


@pytest.mark.parametrize("width", [20, 80])
def test_it_fits_the_terminal(width: int) -> None:
    """However many steps there are and however long what they say is, no line wraps, so that it can be redrawn."""
    shown = view(*MANY, step("bad", "failed", error=FAILED | {"value": "x" * 5000}))
    lines = picture(shown, width, height=12).splitlines()
    assert len(lines) <= 12
    assert max(map(len, lines)) <= width
    assert lines[-1].split() == ["and", "93", "more", "steps"]


def test_what_runs_is_shown_before_what_is_over() -> None:
    """Then what has failed, then what is to come; the order of the workflow stays."""
    steps = [*MANY, step("next", "pending"), step("run", "running"), step("bad", "failed")]
    chosen, left_out = choose_steps(view(*steps).steps, 3)
    assert [each.name for each in chosen] == ["next", "run", "bad"]
    assert left_out == 100


def hostile_view() -> RunView:
    """A run in which every text of the server wants to command the terminal."""
    error = {"name": HOSTILE, "value": HOSTILE, "traceback": HOSTILE}
    more: dict[str, Any] = {"workflow_name": HOSTILE, "run_id": HOSTILE, "error": error, "status": "failed" + HOSTILE}
    return view(step(HOSTILE, HOSTILE, type=HOSTILE, stdout=HOSTILE, error=error), **more)


def test_nothing_from_the_server_commands_the_terminal() -> None:
    """Neither in the picture nor in lines; nothing of it makes a line of its own."""
    shown = hostile_view()
    lines = [*PlainLines().changes(shown, NOW), ending(shown, NOW)]
    for text in (picture(shown), *lines):
        assert not {"\x1b", "\x07", "\r", "\u202e"} & set(text)
    assert not any("\n" in line for line in lines)
    assert len(picture(shown).splitlines()) == 2


def test_a_name_is_no_markup() -> None:
    """Brackets are shown."""
    assert "[red]x[/red]" in picture(view(step("[red]x[/red]")))


def test_lines_tell_what_has_changed_and_nothing_twice() -> None:
    """One for each change of a step or of the run."""
    lines = PlainLines()
    views = [
        view(step("a", "pending"), step("b", "pending"), status="pending"),
        view(step("a", "running"), step("b", "pending")),
        view(step("a", "running"), step("b", "pending")),
        view(step("a", "running", attempts=2), step("b", "pending")),
        view(
            step("a", attempts=2), step("b", "skipped", attempts=0, started_at=None, duration_ms=None), status="failed"
        ),
    ]
    told = [line.partition("  ")[2] for each in views for line in lines.changes(each, NOW)]
    assert told == [
        "run-1 pending", "a running", "run-1 running", "a running  attempt 2", "a succeeded (5 ms)  attempt 2",
        "b skipped",
    ]  # fmt: skip


def test_a_run_ends_with_one_line() -> None:
    """How, after how long, and why."""
    assert ending(view(status="succeeded"), NOW) == "run-1 succeeded after 2.0 s"
    failed = ending(view(status="failed", error=FAILED), NOW + timedelta(days=1))
    assert failed == "run-1 failed after 2.0 s: ValueError: bad\\nthing"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.0042, "4 ms"),
        (1.25, "1.2 s"),
        (59.9, "59.9 s"),
        (60, "1 min 00 s"),
        (3599, "59 min 59 s"),
        (90_061, "25 h 01 min"),
    ],
)
def test_durations_are_short(seconds: float, shown: str) -> None:
    """Two units at most."""
    assert show_seconds(seconds) == shown


def test_inputs_are_read_as_what_the_workflow_wants() -> None:
    """Texts as they are, all else as JSON; what is not declared is left to the server."""
    types = {
        "s": {"type": "string"},
        "u": {},
        "n": {"type": "integer"},
        "b": {"type": "boolean"},
        "l": {"type": "array"},
    }
    texts = split_inputs(["s=1=2", "u=true", "n=3", "b=true", "l=[1, 2]", "x=5", "e="])
    assert read_inputs(texts, {"inputs": types}) == {
        "s": "1=2", "u": "true", "n": 3, "b": True, "l": [1, 2], "x": "5", "e": "",
    }  # fmt: skip


@pytest.mark.parametrize("given", [["a"], ["=1"], ["a=1", "a=2"]])
def test_inputs_that_are_not_written_right_are_a_mistake_in_the_call(given: list[str]) -> None:
    """Nothing is guessed."""
    with pytest.raises(WrongUsage):
        split_inputs(given)


@pytest.mark.parametrize("text", ["", "yes", "NaN", "{", "[" * 100_000])
def test_values_that_are_no_json_are_a_mistake_in_the_call(text: str) -> None:
    """The message names the input and its type."""
    with pytest.raises(WrongUsage, match=r"--input n.* type number"):
        read_inputs({"n": text}, {"inputs": {"n": {"type": "number"}}})
