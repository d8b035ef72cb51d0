"""Sessions on the real runtime: what hostile code in them can do, and what it cannot."""

import asyncio
import json
import os
import signal

import pytest

from sandgate.core.execution import ExecutionRequest, InputFile, Surroundings, Termination
from sandgate.core.limits import MIB, Limits
from sandgate.core.session import SessionBounds, SessionLanguage, SessionRequest, SessionStatus
from sandgate.core.states import ExecutionStatus
from sandgate.environments.journal import Offsets, OutputJournal
from sandgate.sandbox.base import RunningSession, Sandbox
from sandgate.sandbox.stall import StallWatch
from tests.runtime.hosts import Bench, available_versions, until

pytestmark = pytest.mark.needs_root_namespaces
CHANNEL = "import os, socket, struct\nchannel = socket.socket(fileno=os.dup(63))\n"
FIGURE = """
class Figure:
    texts = ["drawn"]
    def get_axes(self): return []
    def savefig(self, file, format, bbox_inches): file.write(b"PNG:" + format.encode())
    def __repr__(self): return "<Figure>"
Figure.__module__ = "matplotlib.figure"
"""
HELPERS = """
class Gcf:
    managers = {}
    @classmethod
    def get_all_fig_managers(cls): return list(cls.managers.values())
    @classmethod
    def destroy(cls, num): del cls.managers[num]
    @classmethod
    def destroy_fig(cls, figure):
        cls.managers = {n: m for n, m in cls.managers.items() if m.canvas.figure is not figure}
"""
PYPLOT = """
import os, types
from matplotlib._pylab_helpers import Gcf
from matplotlib.figure import Figure
backend = os.environ["MPLBACKEND"]
def figure():
    made = Figure()
    num = len(Gcf.managers) + 1
    Gcf.managers[num] = types.SimpleNamespace(num=num, canvas=types.SimpleNamespace(figure=made))
    return made
def show(): raise RuntimeError("there is no screen")
"""
PANDAS = """
class DataFrame:
    def __init__(self, rows): self.rows = rows
    def _repr_html_(self): return "<table>"
    def head(self, most): return DataFrame(self.rows[:most])
    def to_json(self, orient, date_format):
        import json
        assert (orient, date_format) == ("records", "iso")
        return json.dumps(self.rows)
    def __repr__(self): return "frame"
DataFrame.__module__ = "pandas.core.frame"
"""
LIBRARIES = tuple(
    InputFile(path, text.encode())
    for path, text in {
        "matplotlib/__init__.py": "",
        "matplotlib/figure.py": FIGURE,
        "matplotlib/_pylab_helpers.py": HELPERS,
        "matplotlib/pyplot.py": PYPLOT,
        "pandas.py": PANDAS,
    }.items()
)


async def _open(sandbox: Sandbox, bounds: SessionBounds | None = None) -> RunningSession:
    session = sandbox.open_session(SessionRequest(bounds=bounds or SessionBounds()))
    await session.wait_until_ready()
    return session


async def _run(session: RunningSession, code: str, timeout_s: float = 60.0) -> Termination:
    return await session.execute(ExecutionRequest(code, timeout_s)).wait()


@pytest.mark.parametrize("version", available_versions())
@pytest.mark.few_on_gvisor(version=[available_versions()[-1]])
async def test_every_version(walled: Bench, version: str) -> None:
    """Values, errors with their lines, awaiting and showing, in each interpreter that templates are made from."""
    session = await _open(await walled.make(version))
    assert (await _run(session, "x = 5\nx")).results == ({"text/plain": "5"},)
    failed = await _run(session, "def f():\n    return undefined_name\nprint(x)\nf()")
    assert failed.error is not None
    assert "    return undefined_name\n" in failed.error.traceback
    assert (failed.stdout, "sandgate" in failed.error.traceback) == (b"5\n", False)
    awaited = await _run(
        session, "import asyncio\nawait asyncio.sleep(0)\nfrom IPython.display import HTML\nHTML('<b>')"
    )
    (shown,) = awaited.results or ()
    assert shown["text/html"] == "<b>"
    assert shown["text/plain"].startswith("<IPython.core.display.HTML object")
    # On a busy machine the code may not have begun when its time is over: it is tried again.
    for limit_s in (1.0, 5.0, 25.0):
        stopped = await _run(session, "import time\nprint('on', flush=True)\nwhile True: time.sleep(0.01)", limit_s)
        assert stopped.status is ExecutionStatus.TIMED_OUT
        if stopped.stdout == b"on\n":
            break
    assert (
        stopped.stderr.endswith(b"time.sleep(0.01)\nKeyboardInterrupt\n") or b"^^^\nKeyboardInterrupt" in stopped.stderr
    )
    assert (await _run(session, "(_, x)[1]")).results == ({"text/plain": "5"},)


_NOTEBOOK = """
kept = '''
!not a command
%d''' % (
  7
  % 4)
%matplotlib inline
for _ in range(2):
    !echo "it's $HOME" \\
        and more
if True:
    %pip --version
!exit 3
print(kept.split()[-1], _exit_code)
"""


@pytest.mark.parametrize("version", available_versions())
@pytest.mark.few_on_gvisor(version=[available_versions()[-1]])
async def test_commands_as_in_notebooks(walled: Bench, version: str) -> None:
    """Lines for a shell and for pip, among Python and with its line numbers; what else begins so is told apart."""
    session = await _open(await walled.make(version))
    ran = await _run(session, _NOTEBOOK)
    first, second, *pip, last = ran.stdout.decode().splitlines()
    assert (first, second, last) == (*["it's /home/user and more"] * 2, "3 3")
    assert f"(python {version})" in "".join(pip)
    # One that has none itself has one for new environments.
    hidden = await _run(session, "import importlib.util as found\nfound.find_spec = lambda name: None\n%pip --version")
    assert f".whl/pip (python {version})" in hidden.stdout.decode()

    failed = await _run(session, "def f(n):\n    !echo in f\n    return 1 / n\n!true\nf(0)")
    assert (failed.stdout, failed.error is not None and failed.error.name) == (b"in f\n", "ZeroDivisionError")
    assert failed.error is not None
    assert "line 5, in <module>\n    f(0)\n" in failed.error.traceback
    assert "line 3, in f\n    return 1 / n\n" in failed.error.traceback

    wrong = {"!true\nx = = 1": ("line 2", "x = = 1"), "x = (1\n!true": ("line ", "")}
    wrong |= {"%timeit 1": ("%timeit is not known here: lines may begin with !, %pip", "%timeit 1")}
    wrong |= {"%%html\n<b>": ("%%html is not known", "%%html"), "1\n%%bash\nls": ("%%bash is not known", "%%bash")}
    for code, said in wrong.items():
        ran = await _run(session, code)
        assert ran.error is not None
        assert (ran.error.name, [part for part in said if part not in ran.error.traceback]) == ("SyntaxError", []), code


async def test_cells_for_a_shell(walled: Bench) -> None:
    """Run as in a session of bash, with the environment, the folder and the input of the cell; they are interrupted."""
    session = await _open(await walled.make())
    await _run(session, "import os; os.environ['MODE'] = 'test'; os.mkdir('d'); os.chdir('d')")
    code = "\n%%bash -u\nread line\necho $MODE $PWD $line >&2\nmissing\nexit 4"
    ran = await session.execute(ExecutionRequest(code, 20, around=Surroundings(stdin="in\n"))).wait()
    assert (ran.status, ran.exit_code, ran.error and ran.error.name) == (ExecutionStatus.FAILED, 4, "NonZeroExit")
    assert ran.stderr.startswith(b"test /workspace/d in\n")
    assert b"line 5: missing: command not found" in ran.stderr
    stopped = await _run(session, "x = 1\n!kill -INT $PPID; sleep 30")
    assert (stopped.status, stopped.exit_code) == (ExecutionStatus.FAILED, 130)
    assert stopped.stderr.endswith(b"line 2, in <module>\n    !kill -INT $PPID; sleep 30\nKeyboardInterrupt\n")
    assert (await _run(session, "%%bash\necho on $x")).stdout == b"on\n"
    pip = await _run(session, "import os; os.environ['PATH'] = '/usr/bin:/bin'\n!pip3 --version")
    assert f"(python {available_versions()[-1]})" in pip.stdout.decode()


async def test_figures_and_frames(walled: Bench) -> None:
    """Figures are shown at the end of what drew them, or by ``show``, once; frames as tables and as records."""
    session = await _open(await walled.make())
    around = Surroundings(files=LIBRARIES)
    code = "import matplotlib.pyplot as plt\nplt.figure()\nplt.figure()\nplt.backend;"
    drawn = await session.execute(ExecutionRequest(code, 20, around=around)).wait()
    figure = {"image/png": "UE5HOnBuZw==", "text/plain": "<Figure>"}
    assert (drawn.results, drawn.stderr) == ((figure, figure), b"")
    shown = await _run(session, "plt.figure()\nplt.show()\nprint(plt.backend)\nplt.figure()")
    assert (shown.results, shown.stdout) == ((figure, figure), b"agg\n")
    rows = "[{'a': n, 'b': None} for n in range(1200)]"
    framed = await _run(session, f"import pandas\npandas.DataFrame({rows})")
    (frame,) = framed.results or ()
    records = json.loads(frame["application/json"])
    assert (frame["text/html"], frame["text/plain"]) == ("<table>", "frame")
    assert (len(records), records[7]) == (1000, {"a": 7, "b": None})
    (wide,) = (await _run(session, "pandas.DataFrame([{'n': n, 'x': 'x' * 2000} for n in range(900)])")).results or ()
    assert 40 < len(json.loads(wide["application/json"])) < 130


@pytest.mark.parametrize(
    "end", ["1 / 0", "import sys; sys.exit(3)", "import signal, time; signal.raise_signal(2); time.sleep(30)"]
)
async def test_figures_of_a_cell_that_fails(walled: Bench, end: str) -> None:
    """They are shown by the cell that drew them, and not by the next one, whatever cannot be drawn among them."""
    session = await _open(await walled.make())
    code = f"import matplotlib.pyplot as plt\nplt.figure().savefig = None\nplt.figure()\n{end}"
    around = Surroundings(files=LIBRARIES)
    drawn = await session.execute(ExecutionRequest(code, 20, around=around)).wait()
    figure = {"image/png": "UE5HOnBuZw==", "text/plain": "<Figure>"}
    assert (drawn.status, drawn.results) == (ExecutionStatus.FAILED, (figure,))
    assert b"'NoneType' object is not callable" in drawn.stderr
    after = await _run(session, "plt.figure()\n1")
    assert (after.results, after.stderr) == (({"text/plain": "1"}, figure), b"")


async def test_figures_that_cannot_be_drawn(walled: Bench) -> None:
    """Fail the cell that drew them; the others are shown."""
    session = await _open(await walled.make())
    code = "import matplotlib.pyplot as plt\nplt.figure().savefig = None\nplt.figure()\nplt.figure().savefig = None"
    drawn = await session.execute(ExecutionRequest(code, 20, around=Surroundings(files=LIBRARIES))).wait()
    assert (drawn.status, len(drawn.results or ())) == (ExecutionStatus.FAILED, 1)
    assert (await _run(session, "1")).results == ({"text/plain": "1"},)


@pytest.mark.parametrize(
    "forged",
    [
        "channel.sendall(struct.pack('!cI', b'V', 2**32 - 1))",
        "channel.sendall(b'?' * 1000)",
        "channel.sendall(struct.pack('!cI', b'R', 0))",
        "channel.sendall(struct.pack('!cI', b'D', 4) + b'null')",
        "channel.sendall(struct.pack('!cI', b'V', 3) + b'abc')",
        "channel.sendall((struct.pack('!cI', b'V', 6) + struct.pack('!BI', 1, 0) + b'a') * 200)",
        "os.close(63); channel.close()",
        "os.execv('/bin/sleep', ['sleep', '30'])",
    ],
)
@pytest.mark.few_on_gvisor(forged=["channel.sendall(b'?' * 1000)", "os.execv('/bin/sleep', ['sleep', '30'])"])
async def test_a_forged_frame_harms_its_session_only(walled: Bench, forged: str) -> None:
    """It is ended with a reason, and so is what ran in it; the sandbox and another session in it go on."""
    sandbox = await walled.make()
    other, session = await _open(sandbox), await _open(sandbox)
    ran = await _run(session, f"{CHANNEL}import time\n{forged}\ntime.sleep(30)")
    assert ran.status is ExecutionStatus.LOST
    assert "it broke off" in await session.wait()
    assert (await _run(other, "1")).results == ({"text/plain": "1"},)
    assert await walled.works(sandbox)


async def test_a_forged_end_lies_to_its_own_user_only(walled: Bench) -> None:
    """Code can say that its cell has ended; what it does after that is the session's end."""
    session = await _open(await walled.make())
    done = json.dumps({"exit_code": 9, "error": None, "cpu_us": 1, "peak_memory_bytes": 1, "dropped": 0})
    code = f"{CHANNEL}done = {done!r}.encode()\nchannel.sendall(struct.pack('!cI', b'D', len(done)) + done)"
    ran = await _run(session, code)
    assert (ran.status, ran.exit_code) == (ExecutionStatus.FAILED, 9)
    assert "it broke off" in await session.wait()


async def test_processes_that_a_cell_forks(walled: Bench) -> None:
    """One that falls through to the end of the cell is no second session; all of them end with the session."""
    sandbox = await walled.make()
    session = await _open(sandbox)
    code = "import os\nif os.fork() == 0:\n    display(0)\n    print('child', flush=True)\nelse:\n    os.wait()\n'end'"
    ran = await _run(session, code)
    assert (ran.stdout, ran.results) == (b"child\n", ({"text/plain": "'end'"},))
    await _run(session, "import subprocess\nsubprocess.Popen(['sleep', '1000'], start_new_session=True);")
    before = [name for name in walled.host.processes().values() if name == "sleep"]
    session.end("it was deleted")
    await session.wait()
    # Of what runs in gVisor the host sees no names.
    assert before == ([] if walled.on_gvisor else ["sleep"])
    await until(lambda: "sleep" not in walled.host.processes().values())
    # A child that waits in each slot, and one of them may not be made yet.
    async with asyncio.timeout(60):
        while ((await sandbox.usage()).processes or 0) > 2:  # noqa: ASYNC110 - it is seen from outside
            await asyncio.sleep(0.01)


async def test_programs_are_interrupted_too(walled: Bench) -> None:
    """Those of the cell's process group, as at a terminal."""
    session = await _open(await walled.make())
    started = asyncio.get_running_loop().time()
    ran = await _run(session, "import os\nos.system('sleep 30')", 1.0)
    assert ran.status is ExecutionStatus.TIMED_OUT
    assert asyncio.get_running_loop().time() - started < 25
    assert session.status is SessionStatus.IDLE


@pytest.mark.not_on_gvisor("nobody on the host reaches a process inside")
@pytest.mark.parametrize(("language", "late"), [("python", "session"), ("bash", "session"), ("bash", "shell")])
async def test_an_interrupt_that_is_ahead_of_its_cell(walled: Bench, language: str, late: str) -> None:
    """It is for that cell all the same, however late its process is, and for no other."""
    sandbox = await walled.make()
    await walled.quiet()
    (child,) = set(walled.host.processes()) - set(walled.host.forkers())
    session = sandbox.open_session(SessionRequest(SessionLanguage(language)))
    await session.wait_until_ready()
    shells = [pid for pid, name in walled.host.processes().items() if name == "bash"]
    (stopped,) = shells if late == "shell" else [child]
    os.kill(stopped, signal.SIGSTOP)
    # A shell that is about to start a program may lose the signal.
    endless = {"python": "import time\ntime.sleep(60)", "bash": "while :; do :; done"}[language]
    cell = session.execute(ExecutionRequest(endless, 300))
    assert session.interrupt()
    # Its slot has passed it on, as far as it gets.
    await until(lambda: not session._interrupts.are_under_way)  # type: ignore[attr-defined]
    os.kill(stopped, signal.SIGCONT)
    async with asyncio.timeout(30):
        assert (await cell.wait()).exit_code == 130
    after = {"python": "print(1)", "bash": "echo 1"}[language]
    assert [(await _run(session, after)).stdout for _cell in range(2)] == [b"1\n", b"1\n"]


@pytest.mark.not_on_gvisor("slow; tests of memory ask the same")
async def test_memory_that_runs_out(walled: Bench) -> None:
    """Ends the session, which says so; the sandbox goes on."""
    sandbox = await walled.make(limits=Limits(memory_bytes=64 * MIB, disk_bytes=MIB))
    session = await _open(sandbox)
    ran = await _run(session, "kept = []\nwhile True: kept.append(bytes(1 << 20))")
    assert ran.status is ExecutionStatus.OUT_OF_MEMORY
    assert await session.wait() == "it ran out of memory"
    assert await walled.works(sandbox)


async def test_too_much_output_ends_the_cell_only(walled: Bench) -> None:
    """It is interrupted while it writes; what was kept of it is there."""
    session = await _open(await walled.make(limits=Limits(output_bytes=1000, drained_output_bytes=MIB)))
    ran = await _run(session, "while True: print('x' * 9999)")
    assert (ran.status, len(ran.stdout), ran.stdout_truncated) == (ExecutionStatus.OUTPUT_LIMIT, 1000, True)
    assert (await _run(session, "1")).results == ({"text/plain": "1"},)


async def test_too_much_streamed_output_piles_up_nowhere(walled: Bench) -> None:
    """Code that writes on after it was interrupted is read and dropped, until its session is ended."""
    session = await _open(await walled.make(), SessionBounds(grace_s=0.2))
    journal = OutputJournal(1000, 1000, MIB)
    code = "import os, signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: os.write(1, b'x' * 65_536)"
    ran = await session.execute(ExecutionRequest(code, 20, watch=journal)).wait()
    assert ran.status is ExecutionStatus.OUTPUT_LIMIT
    reader = journal.reader(Offsets())
    while reader.read():
        continue
    assert MIB < reader.taken < 4 * MIB
    assert "(output_limit)" in await session.wait()


async def test_what_is_written_after_the_end_is_not_waited_for(walled: Bench) -> None:
    """A program that a cell has left behind holds the pipes and writes on: the cell has its own output, whole."""
    session = await _open(await walled.make())
    code = (
        "import subprocess, sys\nsubprocess.Popen(['sh', '-c', 'while :; do echo late; done'])\n"
        "print('own' * 10_000, file=sys.stderr)"
    )
    ran = await _run(session, code)
    assert ran.stderr == b"own" * 10_000 + b"\n"
    assert set(ran.stdout.split()) <= {b"late"}
    await until(lambda: session.background.lost_bytes > 0)
    assert (await _run(session, "2")).results == ({"text/plain": "2"},)


async def test_executions_have_their_places(walled: Bench) -> None:
    """However many sessions there are, and the other way round."""
    sandbox = await walled.make(limits=Limits(concurrent_executions=1))
    sessions = [await _open(sandbox) for _ in range(3)]
    assert await walled.works(sandbox)
    running = sandbox.execute(ExecutionRequest("import time; time.sleep(300)", 300))
    await asyncio.sleep(0.05)
    sessions.append(await _open(sandbox))
    shown = [(await _run(session, "1")).results for session in sessions]
    assert shown == [({"text/plain": "1"},)] * 4
    running.cancel()
    for session in sessions:
        session.end("it was deleted")
    assert await walled.works(sandbox)


async def test_code_finds_nothing_of_the_product(walled: Bench) -> None:
    """No module of it among those that are loaded; its names are the code's own."""
    session = await _open(await walled.make())
    ran = await _run(
        session, "import sys\n[n for n in sys.modules if 'sandgate' in n], [n for n in dir() if n[0] != '_']"
    )
    assert ran.results == ({"text/plain": "([], ['display', 'sys'])"},)
    assert (await _run(session, "__name__")).results == ({"text/plain": "'__main__'"},)


async def test_a_session_that_holds_all_processes(walled: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot begin beside it is lost after a while; the session and its sandbox go on."""
    sandbox = await walled.make(limits=Limits(processes=12, concurrent_executions=1))
    session = await _open(sandbox)
    code = (
        "import subprocess\nall = []\ntry:\n    while True: all.append(subprocess.Popen(['sleep', '1000']))\n"
        "except OSError: pass\nlen(all) > 5"
    )
    assert (await _run(session, code)).results == ({"text/plain": "True"},)
    monkeypatch.setattr(StallWatch, "limit_s", 0.3)
    ran = await sandbox.execute(ExecutionRequest("print(1)", 60)).wait()
    monkeypatch.undo()
    assert ran.status in (ExecutionStatus.LOST, ExecutionStatus.COMPLETED)
    await _run(session, "for each in all: each.kill(), each.wait()")
    assert await walled.works(sandbox)
