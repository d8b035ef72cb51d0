"""What every runtime promises of interpreters that stay."""

import asyncio
import json
from dataclasses import replace

import pytest

from sandgate.core.errors import SandboxFailed, SessionBusy, SessionEnded
from sandgate.core.execution import ExecutionRequest, InputFile, Surroundings, Termination
from sandgate.core.output_tap import OutputTap
from sandgate.core.session import SessionBounds, SessionLanguage, SessionRequest, SessionStatus
from sandgate.core.states import ExecutionStatus
from sandgate.sandbox.base import RunningSession, Sandbox
from tests.contract.runtime.conftest import Subject
from tests.runtime.hosts import until

# On a machine that others keep busy whoever is interrupted may take its time.
SMALL = SessionBounds(grace_s=20.0, queued=2, results=5, result_bytes=20_000)


async def _open(sandbox: Sandbox, bounds: SessionBounds = SMALL, **asked: object) -> RunningSession:
    session = sandbox.open_session(SessionRequest(bounds=bounds, **asked))  # type: ignore[arg-type]
    await session.wait_until_ready()
    return session


async def _run(
    session: RunningSession, code: str, timeout_s: float = 20.0, around: Surroundings | None = None
) -> Termination:
    return await session.execute(ExecutionRequest(code, timeout_s, around=around)).wait()


def _shown(ran: Termination) -> list[object]:
    return [dict(bundle) for bundle in ran.results or ()]


async def test_what_a_cell_leaves_is_there_for_the_next(subject: Subject) -> None:
    """Variables, imports, the folder, what was imported from the future, and the value of the last expression."""
    session = await _open(await subject.create(), env={"MODE": "test"})
    first = await _run(
        session, "from __future__ import annotations\nimport os\nx = 20\nos.mkdir('d')\nos.chdir('d')\nx"
    )
    assert (first.status, first.exit_code, first.stdout, first.error) == (ExecutionStatus.COMPLETED, 0, b"", None)
    assert _shown(first) == [{"text/plain": "20"}]
    code = "def f(a: nowhere): ...\nprint('out')\n[x + 1, os.path.basename(os.getcwd()), os.environ['MODE'], _]"
    second = await _run(session, code)
    assert second.stdout == b"out\n"
    assert _shown(second) == [{"text/plain": "[21, 'd', 'test', 20]"}]
    assert _shown(await _run(session, "x;")) == []
    assert (session.status, session.executions) == (SessionStatus.IDLE, 3)


async def test_errors_leave_the_session_as_it_is(subject: Subject) -> None:
    """Tracebacks show the cell's lines and none of the product's; ``sys.exit`` ends the cell only."""
    session = await _open(await subject.create())
    await _run(session, "def broken(n):\n    return 1 / n\nkept = 1")
    failed = await _run(session, "print('before')\nbroken(0)")
    assert (failed.status, failed.exit_code, failed.stdout) == (ExecutionStatus.FAILED, 1, b"before\n")
    assert failed.error is not None
    assert failed.error.name == "ZeroDivisionError"
    text = failed.error.traceback
    assert 'File "<cell 2>", line 2' in text
    assert "broken(0)" in text
    assert 'File "<cell 1>", line 2, in broken\n    return 1 / n' in text
    assert "sandgate" not in text
    assert failed.stderr.decode() == text
    left = await _run(session, "import sys; sys.exit(3)")
    assert (left.status, left.exit_code) == (ExecutionStatus.FAILED, 3)
    wrong = await _run(session, "if:")
    assert wrong.error is not None
    assert wrong.error.name == "SyntaxError"
    assert _shown(await _run(session, "kept")) == [{"text/plain": "1"}]


async def test_what_is_shown_is_bounded(subject: Subject) -> None:
    """Values are bundles of MIME types; what is too many or too large is left out, and that is said."""
    session = await _open(await subject.create())
    code = (
        "class Rich:\n"
        "  def _repr_html_(self): return '<b>\\u2603</b>'\n"
        "  def _repr_png_(self): return b'\\x89PNG'\n"
        "  def _repr_json_(self): return {'a': [1, None]}\n"
        "  def _repr_latex_(self): raise NotImplementedError\n"
        "  def _repr_markdown_(self): return 5\n"
        "  def __repr__(self): return 'rich'\n"
        "display('shown', {'text/html': '<i>'})\n"
        "display({'text/x-own': 'raw'}, raw=True)\n"
        "Rich()"
    )
    ran = await _run(session, code)
    rich = {"text/html": "<b>\N{SNOWMAN}</b>", "image/png": "iVBORw==", "text/plain": "rich"}
    *others, last = _shown(ran)
    assert others == [{"text/plain": "'shown'"}, {"text/plain": "{'text/html': '<i>'}"}, {"text/x-own": "raw"}]
    assert isinstance(last, dict)
    assert json.loads(last.pop("application/json")) == {"a": [1, None]}
    assert (last, ran.results_truncated) == (rich, True)
    many = await _run(session, "for n in range(9): display(n)\n'x' * 30_000")
    assert ([*_shown(many)], many.results_truncated) == ([{"text/plain": str(n)} for n in range(5)], True)
    assert (await _run(session, "1")).results_truncated is False


_TYPES = {
    "text/html": "<p>\N{SNOWMAN}</p>",
    "text/markdown": "**bold**",
    "image/svg+xml": "<svg/>",
    "image/png": "iVBORw==",
    "image/jpeg": "/9j/4A==",
    "text/latex": "$x^2$",
    "application/json": '{"a": [1, null]}',
    "application/javascript": "alert(1)",
    "application/pdf": "JVBERg==",
}
_ALL_TYPES = """
class Rich:
    def _repr_html_(self): return "<p>\N{SNOWMAN}</p>"
    def _repr_markdown_(self): return "**bold**"
    def _repr_svg_(self): return "<svg/>"
    def _repr_png_(self): return b"\\x89PNG", {"width": 3}
    def _repr_jpeg_(self): return b"\\xff\\xd8\\xff\\xe0"
    def _repr_latex_(self): return "$x^2$"
    def _repr_json_(self): return {"a": [1, None]}
    def _repr_javascript_(self): return "alert(1)"
    def _repr_pdf_(self): return b"%PDF"
    def __repr__(self): return "rich"
class Bundle:
    def _repr_mimebundle_(self, include=None, exclude=None): return {"text/markdown": "# whole"}, {}
    def _repr_markdown_(self): return "# part"
    def __repr__(self): return "bundle"
display(Rich(), Bundle())
"""
_STAND_INS = """
from IPython.display import HTML, Image, JSON, Javascript, Latex, Markdown, SVG, display
open("a.jpg", "wb").write(b"\\xff\\xd8\\xff\\xe0")
display(
    HTML("<p>\N{SNOWMAN}</p>"), Markdown("**bold**"), SVG("<svg/>"), Image(b"\\x89PNG"), Image("a.jpg"), Latex("$x^2$"),
    JSON({"a": [1, None]}), Javascript("alert(1)"),
)
"""


async def test_every_type_is_shown_as_it_is(subject: Subject) -> None:
    """By the methods of an object, all of them at once, and by the classes of IPython, or what stands in for them."""
    session = await _open(await subject.create(), SessionBounds())
    rich, bundle = _shown(await _run(session, _ALL_TYPES))
    assert rich == {**_TYPES, "text/plain": "rich"}
    assert bundle == {"text/markdown": "# whole", "text/plain": "bundle"}
    ran = await _run(session, _STAND_INS)
    shown = [{kind: text for kind, text in each.items() if kind != "text/plain"} for each in ran.results or ()]
    wanted = [{kind: text} for kind, text in _TYPES.items() if kind != "application/pdf"]
    assert sorted(map(str, shown)) == sorted(map(str, wanted))
    assert ran.results_truncated is False


async def test_awaiting_at_the_top(subject: Subject) -> None:
    """One event loop is kept, so that a task of one cell can be awaited in another."""
    session = await _open(await subject.create())
    code = (
        "import asyncio\nasync def work():\n    await asyncio.sleep(0.01)\n    return 'done'\n"
        "task = asyncio.ensure_future(work())\nawait asyncio.sleep(0)"
    )
    assert (await _run(session, code)).status is ExecutionStatus.COMPLETED
    assert _shown(await _run(session, "await task")) == [{"text/plain": "'done'"}]
    late = session.execute(ExecutionRequest("await asyncio.sleep(30)", 0.2))
    assert (await late.wait()).status is ExecutionStatus.TIMED_OUT
    assert _shown(await _run(session, "await work()")) == [{"text/plain": "'done'"}]


async def test_interrupts_keep_what_is_known(subject: Subject) -> None:
    """By request, at the time limit and by cancelling; each ends its own cell only."""
    session = await _open(await subject.create())
    await _run(session, "import time\nx = 5")
    assert session.interrupt() is False
    tap = OutputTap()
    first = session.execute(ExecutionRequest("print('begun', flush=True)\ntime.sleep(30)", 20, tap=tap))
    second = session.execute(ExecutionRequest("x", 20))
    await until(lambda: tap.kept("stdout"))
    assert (session.status, session.queued) == (SessionStatus.BUSY, 1)
    assert session.interrupt() is True
    interrupted = await first.wait()
    assert (interrupted.status, interrupted.exit_code) == (ExecutionStatus.FAILED, 130)
    assert interrupted.error is not None
    assert (interrupted.error.name, interrupted.stdout) == ("KeyboardInterrupt", b"begun\n")
    assert _shown(await second.wait()) == [{"text/plain": "5"}]
    timed = await _run(session, "while True: pass", 0.15)
    assert (timed.status, timed.exit_code, timed.error) == (ExecutionStatus.TIMED_OUT, None, None)
    running = session.execute(ExecutionRequest("time.sleep(30)", 20))
    waiting = session.execute(ExecutionRequest("x = 0", 20))
    waiting.cancel()
    await asyncio.sleep(0.1)
    running.cancel()
    assert (await running.wait()).status is ExecutionStatus.CANCELLED
    assert (await waiting.wait()).status is ExecutionStatus.CANCELLED
    assert _shown(await _run(session, "x")) == [{"text/plain": "5"}]


async def test_code_that_goes_on_takes_the_session_along(subject: Subject) -> None:
    """After the grace it is killed; whatever waits is told, and nothing is taken any more."""
    sandbox = await subject.create()
    stubborn = "import time\nwhile True:\n  try: time.sleep(9)\n  except KeyboardInterrupt: print('no', flush=True)"
    # On a busy machine it may not have come to that when its time is over, or not say so within the grace.
    for patience_s in (1.0, 5.0, 25.0):
        session = await _open(sandbox, replace(SMALL, grace_s=patience_s))
        first = session.execute(ExecutionRequest(stubborn, patience_s + 0.5))
        second, _third = (session.execute(ExecutionRequest("1", 20)) for _each in range(2))
        with pytest.raises(SessionBusy):
            session.execute(ExecutionRequest("1", 20))
        ended = await first.wait()
        if ended.stdout:
            break
        session.end("its code was late")
    assert (ended.status, ended.stdout) == (ExecutionStatus.TIMED_OUT, b"no\n")
    assert (await second.wait()).status is ExecutionStatus.LOST
    assert "after it was interrupted (timed_out)" in await session.wait()
    assert (session.status, session.reason) == (SessionStatus.ENDED, await session.wait())
    with pytest.raises(SessionEnded, match=r"Restart it"):
        session.execute(ExecutionRequest("1", 20))


async def test_a_process_that_ends_ends_the_session(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its exit code; the sandbox goes on."""
    # However long it takes until the slot tells of the end.
    monkeypatch.setattr("sandgate.sandbox.session._LAST_WORD_S", 20.0)
    sandbox = await subject.create()
    session = await _open(sandbox)
    ran = await _run(session, "import os; print('last', flush=True); os._exit(7)")
    assert (ran.status, ran.exit_code, ran.stdout) == (ExecutionStatus.FAILED, 7, b"last\n")
    assert await session.wait() == "its process ended with exit code 7"
    assert (await _run(await _open(sandbox), "2")).results == ({"text/plain": "2"},)


async def test_an_end_that_is_asked_for(subject: Subject) -> None:
    """What runs is cancelled; the reason is the one that was given; a second end changes nothing."""
    session = await _open(await subject.create())
    running, waiting = (session.execute(ExecutionRequest("import time; time.sleep(30)", 20)) for _ in range(2))
    await asyncio.sleep(0.05)
    session.end("it was deleted")
    session.end("again")
    assert await session.wait() == "it was deleted"
    assert {(await each.wait()).status for each in (running, waiting)} == {ExecutionStatus.CANCELLED}


async def test_sessions_end_with_their_sandbox(subject: Subject) -> None:
    """So does what runs in them; an ended sandbox opens none."""
    sandbox = await subject.create()
    session = await _open(sandbox)
    running = session.execute(ExecutionRequest("import time; time.sleep(30)", 20))
    await asyncio.sleep(0.05)
    await subject.runtime.destroy(sandbox.environment_id)
    assert (await running.wait()).status in (ExecutionStatus.LOST, ExecutionStatus.CANCELLED)
    await session.wait()
    with pytest.raises(SandboxFailed):
        sandbox.open_session(SessionRequest())


async def test_what_comes_with_a_cell(subject: Subject) -> None:
    """Input is the cell's own, files and variables stay."""
    session = await _open(await subject.create())
    around = Surroundings("a\nb\n", {"X": "1"}, None, ("-v",), (InputFile("in.txt", b"file"),))
    code = "import os, sys\n[input(), sys.argv[1:], os.environ['X'], open('in.txt').read()]"
    ran = await _run(session, code, around=around)
    assert _shown(ran) == [{"text/plain": "['a', ['-v'], '1', 'file']"}]
    unread = await _run(session, "input()")
    assert unread.error is not None
    assert unread.error.name == "EOFError"
    assert _shown(await _run(session, "input()", around=Surroundings("c"))) == [{"text/plain": "'c'"}]


async def _leave(sandbox: Sandbox, work: str) -> RunningSession:
    """A session with a thread that works after the end of its cell, however long that takes to be seen."""
    for pause_s in (1.0, 5.0, 25.0):
        session = await _open(sandbox)
        code = (
            f"import threading, time\ndef late():\n    time.sleep({pause_s})\n    {work}\n"
            "threading.Thread(target=late, name='T').start()\nprint('now')"
        )
        if (await _run(session, code)).stdout == b"now\n":
            return session
        session.end("its thread was too early")
    raise AssertionError("no cell ends")


async def test_what_is_written_between_cells(subject: Subject) -> None:
    """It is no cell's, the newest part is kept, and the thread that writes it is not held up for ever."""
    sandbox = await subject.create()
    session = await _leave(sandbox, "print('late'); display('unseen'); 1 / 0")
    await until(lambda: b"ZeroDivisionError" in session.background.stderr)
    assert session.background.stdout == b"late\n"
    assert b"Exception in thread T" in session.background.stderr
    assert b"; 1 / 0\n" in session.background.stderr
    assert (await _run(session, "3")).results == ({"text/plain": "3"},)
    flooded = await _leave(sandbox, "for n in range(301): print('x' * 999 if n < 300 else 'end')")
    await until(lambda: flooded.background.stdout.endswith(b"end\n"))
    kept = flooded.background
    assert (len(kept.stdout), kept.lost_bytes) == (SessionBounds().background_bytes, 300_004 - 65_536)


async def _open_bash(sandbox: Sandbox) -> RunningSession:
    session = sandbox.open_session(SessionRequest(SessionLanguage.BASH, bounds=SMALL))
    await session.wait_until_ready()
    return session


async def test_a_shell_that_stays(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables, functions and the folder stay; each cell has its own input, output and exit status."""
    # However long it takes until the slot tells of the end.
    monkeypatch.setattr("sandgate.sandbox.session._LAST_WORD_S", 20.0)
    session = await _open_bash(await subject.create())
    first = await _run(session, 'x=5; f() { echo "f $1 $x"; }; mkdir d; cd d; export Y=7')
    assert (first.status, first.exit_code, first.stdout, first.stderr) == (ExecutionStatus.COMPLETED, 0, b"", b"")
    second = await _run(session, 'f 2; basename "$PWD"; sh -c \'echo $Y\'; cat; echo "$#!"')
    assert (second.stdout, second.stderr, second.results) == (b"f 2 5\nd\n7\n0!\n", b"", ())
    around = Surroundings("a\nb\n", {"Z": "it's"}, None, ("1", "2 3"), (InputFile("in.txt", b"file"),))
    third = await _run(session, 'read v; echo "$v-$2-$Z-$(cat in.txt)"; cat; (exit 4)', around=around)
    assert (third.status, third.exit_code, third.stdout) == (ExecutionStatus.FAILED, 4, b"a-2 3-it's-file\nb\n")
    assert third.error is not None
    assert third.error.name == "NonZeroExit"
    wrong = await _run(session, "echo out\nif then")
    assert (wrong.stdout, b"syntax error" in wrong.stderr) == (b"out\n", True)
    left = await _run(session, "echo $x; exit 3")
    assert (left.status, left.exit_code, left.stdout) == (ExecutionStatus.FAILED, 3, b"5\n")
    assert await session.wait() == "its process ended with exit code 3"


async def test_a_shell_that_is_interrupted(subject: Subject) -> None:
    """In a program, in a loop, and as often as it likes; it knows what it knew."""
    session = await _open_bash(await subject.create())
    await _run(session, "x=5")
    for code in ("sleep 60; echo no", "while :; do :; done", "for i in 1 2; do sleep 60; done; echo no"):
        stopped = await _run(session, code, 0.1)
        assert (stopped.status, stopped.stdout) == (ExecutionStatus.TIMED_OUT, b"")
    tap = OutputTap()
    running = session.execute(ExecutionRequest("echo begun; while :; do :; done", 20, tap=tap))
    await until(lambda: tap.kept("stdout"))
    for _ in range(3):
        session.interrupt()
    assert (await running.wait()).exit_code == 130
    assert (await _run(session, "echo $x")).stdout == b"5\n"
