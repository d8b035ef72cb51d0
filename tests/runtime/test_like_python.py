"""Code behaves as in ``python file.py``: each piece is run both ways and the two are compared."""

import asyncio
import os
import re
import subprocess
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sandgate.core.execution import Termination
from sandgate.core.states import Isolation
from tests.abilities import find_interpreter
from tests.runtime.conftest import WALLED
from tests.runtime.hosts import Bench, LauncherHost, available_versions

PIECES = {
    "hello": "print('Hello, World!')",
    "empty": "",
    "unicode": "print('häßlich \\U0001f40d', 'é'.encode())",
    "no newline at the end": "print('x', end='')",
    "exit code": "import sys; print('before'); sys.exit(3)",
    "exit with a text": "raise SystemExit('that was it')",
    "exit with nothing": "import sys; sys.exit()",
    "exit with a large number": "import sys; sys.exit(256 + 7)",
    "hard exit": "import os; print('x', flush=True); os._exit(4)",
    "exception": "def f(a):\n    return 1 // a\n\nprint('before')\nf(0)\n",
    "exception with a cause": "try:\n    {}['x']\nexcept KeyError as e:\n    raise ValueError('outer') from e\n",
    "exception while handling": "try:\n    {}['x']\nexcept KeyError:\n    1/0\n",
    "exception without text": "raise RuntimeError",
    "exception of a class of its own": "class Odd(Exception):\n    pass\n\nraise Odd('x\\ny')\n",
    "syntax error": "print('never')\nif True print(1)\n",
    "return outside of a function": "x = 1\nreturn x\n",
    "a name that is local and global": "def f():\n    x = 1\n    global x\n",
    "an argument twice": "def f(a, a):\n    pass\n",
    "indentation error": "if True:\nprint(1)\n",
    "missing module": "import no_such_module_anywhere",
    "missing name": "prin(1)",
    "recursion": "def f(): f()\nf()\n",
    "input at the end of file": "print(input())",
    "stdin is empty": "import sys; print(repr(sys.stdin.read()))",
    "name": "print(__name__, __doc__, __spec__, __package__)",
    "file": "import os; print(os.path.dirname(os.path.abspath(__file__)) == os.getcwd())",
    "path": "import os, sys; print(sys.path[0] == os.getcwd(), len(sys.argv))",
    "docstring": "'''says this'''\nprint(__doc__)",
    "future": "from __future__ import annotations\ndef f(a: nope): pass\nprint(f.__annotations__)",
    "pid": "import os; print(os.getpid() > 1, os.getppid() > 0)",
    "threads": "import threading\nt = [threading.Thread(target=print, args=(i,)) for i in range(1)]\n"
    "[x.start() for x in t]\n",
    "thread outlives main": "import threading, time\nsaid = threading.Event()\n"
    "def late():\n    said.wait()\n    time.sleep(0.05)\n    print('late')\n"
    "threading.Thread(target=late).start()\nprint('main')\nsaid.set()\n",
    "daemon thread": "import threading, time\n"
    "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\nprint('main')\n",
    "exception in a thread": "import threading\ndef f():\n    raise ValueError('in a thread')\n"
    "t = threading.Thread(target=f, name='T')\nt.start()\nt.join()\nprint('on')\n",
    "asyncio": "import asyncio\nasync def main():\n"
    "    await asyncio.sleep(0)\n    print('async')\nasyncio.run(main())\n",
    "multiprocessing": "import multiprocessing as m\ndef f(x):\n    return x * x\n"
    "if __name__ == '__main__':\n    with m.get_context('fork').Pool(2) as p:\n        print(p.map(f, range(4)))\n",
    "multiprocessing with spawn": "import multiprocessing as m, os\ndef f(x):\n    return x * x, __name__\n"
    "if __name__ == '__main__':\n    with m.get_context('spawn').Pool(1) as p:\n        print(p.map(f, range(3)))\n"
    "    print(sorted(os.listdir('.')) == [os.path.basename(__file__)])\n",
    "multiprocessing with a fork server": "import multiprocessing as m\ndef f(x):\n    print('in', x, flush=True)\n"
    "if __name__ == '__main__':\n    p = m.get_context('forkserver').Process(target=f, args=(7,))\n"
    "    p.start()\n    p.join()\n    print(p.exitcode)\n",
    "exception in a spawned process": "import multiprocessing as m\ndef f():\n    raise ValueError(__file__)\n"
    "if __name__ == '__main__':\n    p = m.get_context('spawn').Process(target=f, name='P')\n"
    "    p.start()\n    p.join()\n    print(p.exitcode)\n",
    "executor of spawned processes": "from concurrent.futures import ProcessPoolExecutor as E\n"
    "from multiprocessing import get_context\ndef f(x):\n    return -x\nif __name__ == '__main__':\n"
    "    with E(1, mp_context=get_context('spawn')) as e:\n        print(list(e.map(f, [1, 2])))\n",
    "executor": "from concurrent.futures import ThreadPoolExecutor as E\n"
    "with E(2) as e:\n    print(list(e.map(abs, [-1, 2])))\n",
    "shell": "import subprocess; print(subprocess.run(['/bin/sh', '-c', 'echo out; echo err >&2; exit 5']).returncode)",
    "shell output": "import subprocess; print(subprocess.check_output('echo $((6*7))', shell=True))",
    "own interpreter": "import subprocess, sys; print(subprocess.check_output([sys.executable, '-c', 'print(6*7)']))",
    "fork": "import os\nif os.fork() == 0:\n"
    "    print('child', flush=True)\n    os._exit(0)\nos.wait()\nprint('parent')\n",
    "fork that falls through": "import os\npid = os.fork()\nif pid: os.waitpid(pid, 0)\nprint('both')\n",
    "signal": "import os, signal\nsignal.signal(signal.SIGUSR1, lambda n, f: print('got', n))\n"
    "os.kill(os.getpid(), signal.SIGUSR1)\nprint('on')\n",
    "alarm": "import signal\nsignal.signal(signal.SIGALRM, lambda n, f: print('rang'))\n"
    "signal.setitimer(signal.ITIMER_REAL, 0.02)\nimport time\ntime.sleep(0.2)\n",
    "signal dispositions": "import signal\nprint([s for s in range(1, 32) if signal.getsignal(s) not in "
    "(signal.SIG_DFL, None)], signal.pthread_sigmask(signal.SIG_BLOCK, []))\n",
    "atexit": "import atexit\natexit.register(print, 'last')\nprint('first')\n",
    "atexit after an exception": "import atexit\natexit.register(print, 'last')\n1/0\n",
    "destructor at the end": "class D:\n    def __del__(self):\n        print('gone')\nd = D()\nprint('end')\n",
    "destructor in a cycle": "class D:\n    def __del__(self):\n        print('gone', len('x'))\nd = D()\nd.d = d\n",
    "destructor at the end, after an exception": "class D:\n    def __del__(self):\n        print('gone')\n"
    "d = D()\nd.d = d\n1/0\n",
    "flush of its own": "import sys\nflush, said = sys.stdout.flush, []\n"
    "def tell():\n    said or sys.stderr.write('mine')\n    said.append(1)\n    flush()\n"
    "sys.stdout.flush = tell\nprint('x')\n",
    "hook": "import sys\nsys.excepthook = lambda *a: print('hooked', a[0].__name__)\n1/0\n",
    "warning": "import warnings\nwarnings.warn('careful')\n",
    "buffer": "import sys\nsys.stdout.buffer.write(b'\\xff\\x00raw\\n')\nsys.stdout.flush()\n",
    "large output": "print('x' * 100_000)",
    "both streams": "import sys\nfor i in range(3):\n    print('o', i)\n    print('e', i, file=sys.stderr)\n",
    "closed stdout": "import sys\nsys.stdout.close()\n",
    "tracebacks": "import traceback\ntry:\n    1/0\nexcept ZeroDivisionError:\n    traceback.print_exc()\n",
    "logging": "import logging\nlogging.warning('x')\n"
    "try:\n    1/0\nexcept ZeroDivisionError:\n    logging.exception('y')\n",
    "pickle of a class of its own": "import pickle\nclass P:\n    pass\nprint(type(pickle.loads(pickle.dumps(P()))))",
    "dataclass": "import dataclasses\n@dataclasses.dataclass\nclass P:\n    x: int\nprint(P(1))",
    "exec": "exec('a = 1'); print(a, eval('a + 1'))",
    "globals": "print(sorted(k for k in globals() if k != '__annotations__'))",
    "modules": "import sys; print(sys.modules['__main__'].__dict__ is globals())",
    "exit builtin": "exit(2)",
    "windows line ends": "print(1)\r\nprint(2)\r\n",
    "byte order mark": "\ufeffprint('bom')",
    "coding cookie": "# -*- coding: latin-1 -*-\nprint('plain')",
    "temporary file": "import tempfile\n"
    "with tempfile.TemporaryFile('w+') as f:\n    f.write('t'); f.seek(0); print(f.read())",
    "interrupt": "raise KeyboardInterrupt",
    "standard streams by name": "with open('/dev/stdout', 'w') as f:\n    print('out', file=f)\n"
    "import os; os.system('echo err > /dev/stderr')\n",
    "encodings": "import sys, locale; print(sys.stdout.encoding, sys.getfilesystemencoding(), sys.stdin.encoding)",
}
# A signal that the code dies of is told by the exit code as a shell tells it.
_EXIT_CODES = {-2: 130}


def _by_hand(interpreter: str, code: str, folder: Path) -> subprocess.CompletedProcess[bytes]:
    folder.mkdir()
    (folder / "file.py").write_bytes(code.encode())
    environ = {"PATH": os.environ["PATH"], "HOME": str(folder), "LANG": "C.UTF-8"}
    ran = subprocess.run(
        [interpreter, "-u", "file.py"],
        cwd=folder,
        env=environ,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    ran.stderr = ran.stderr.replace(f"{folder}/file.py".encode(), b"file.py")
    return ran


def _normal(text: bytes, filename: str) -> str:
    # How many frames fit before the limit depends on what stands below the code.
    counted = re.sub(rb"repeated \d+ more", b"repeated N more", text)
    return counted.decode("utf-8", "replace").replace(filename, "FILE")


# New interpreters take long there; one way to have them shows what there is to see.
_SLOW_ON_GVISOR = (
    "multiprocessing with a fork server", "exception in a spawned process", "executor of spawned processes",
)  # fmt: skip
_ON_GVISOR = [name for name in PIECES if name not in _SLOW_ON_GVISOR]


async def _inside(host: LauncherHost, version: str) -> Mapping[str, Termination]:
    """All pieces one after another in one sandbox."""
    runtime = host.runtime()
    bench = Bench(host, runtime)
    await runtime.start(bench.on_end)
    sandbox = await bench.make(version)
    names = _ON_GVISOR if bench.on_gvisor else PIECES
    ran = {name: await bench.run(sandbox, PIECES[name]) for name in names}
    await runtime.destroy(sandbox.environment_id)
    await runtime.stop(keep_sandboxes=True)
    return ran


Runs = tuple[Mapping[str, subprocess.CompletedProcess[bytes]], Mapping[str, Termination]]


@pytest.fixture(scope="module")
def run_both(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Isolation, str], Runs]:
    """All pieces by hand and inside, run at the first question about a class and a version of Python."""
    known: dict[tuple[Isolation, str], Runs] = {}
    bare: dict[str, Mapping[str, subprocess.CompletedProcess[bytes]]] = {}

    def run_bare(version: str) -> Mapping[str, subprocess.CompletedProcess[bytes]]:
        if version not in bare:
            interpreter, folder = os.path.realpath(find_interpreter(version) or ""), tmp_path_factory.mktemp("by-hand")
            with ThreadPoolExecutor(2) as pool:
                places = [folder / str(number) for number in range(len(PIECES))]
                by_hand = pool.map(_by_hand, [interpreter] * len(PIECES), PIECES.values(), places)
                bare[version] = dict(zip(PIECES, by_hand, strict=True))
        return bare[version]

    def run(isolation: Isolation, version: str) -> Runs:
        if (isolation, version) not in known:
            host: LauncherHost = request.getfixturevalue(f"{isolation}_host")
            known[isolation, version] = run_bare(version), asyncio.run(_inside(host, version))
        return known[isolation, version]

    return run


SPAWN = """
import multiprocessing as m, os, time
def f(x):
    return x, {word!r}
if __name__ == "__main__":
    with m.get_context("spawn").Pool(1) as p:
        print(p.map(f, [1]))
        while len(os.listdir("here")) < 2: time.sleep(0.005)
        open("here/{word}", "w").close()
"""


async def test_spawning_side_by_side(bench: Bench) -> None:
    """Each of two executions gets its own code in its new interpreters, and neither leaves a file, nor takes one."""
    sandbox = await bench.make()
    mine = "import os; os.mkdir('here'); open('<code>', 'w').write('the user wrote this')"
    await bench.run(sandbox, mine)
    runs = [sandbox.execute(bench.request(SPAWN.format(word=word))) for word in ("one", "two")]
    go = "import os, time\nwhile len(os.listdir('.')) < 4: time.sleep(0.005)\n"
    await bench.run(sandbox, go + "for name in ('a', 'b'): open('here/' + name, 'w').close()")
    for word, run in zip(("one", "two"), runs, strict=True):
        ended = await run.wait()
        assert (ended.stdout.decode(), ended.stderr) == (f"[(1, '{word}')]\n", b"")
    left = await bench.ask(sandbox, "import os\nanswer = [sorted(os.listdir()), open('<code>').read()]")
    assert left == [["<code>", "here"], "the user wrote this"]


@pytest.mark.parametrize("version", available_versions())
@pytest.mark.few_on_gvisor(version=[available_versions()[-1]])
async def test_an_end_without_a_text(bench: Bench, version: str) -> None:
    """What the code ends with cannot be told; that it has ended is, and what it has left is finalized."""
    code = "class D:\n    def __del__(self):\n        print('gone')\n"
    code += "    def __str__(self):\n        raise ValueError\nd = D()\n"
    sandbox = await bench.make(version)
    for end in ("raise SystemExit(d)", "class E(D, Exception): pass\nraise E"):
        ran = await sandbox.execute(bench.request(code + end)).wait()
        assert (ran.exit_code, set(ran.stdout.split())) == (1, {b"gone"})
        assert ran.error is not None
        assert (ran.error.name, ran.error.value) == ("E" if "E(" in end else "SystemExit", "")


@pytest.mark.parametrize("name", PIECES)
@pytest.mark.parametrize("version", available_versions())
@pytest.mark.parametrize("host", WALLED)
@pytest.mark.few_on_gvisor(version=[available_versions()[-1]], name=_ON_GVISOR)
def test_like_python(host: Isolation, version: str, name: str, run_both: Callable[[Isolation, str], Runs]) -> None:
    """Output, errors and exit code are those of the bare interpreter."""
    by_hand, inside = run_both(host, version)
    bare, ran = by_hand[name], inside[name]
    assert _normal(ran.stdout, "<code>") == _normal(bare.stdout, "file.py")
    stderr = _normal(ran.stderr.replace(b"/workspace/<code>", b"<code>"), "<code>")
    assert stderr == _normal(bare.stderr, "file.py")
    assert ran.exit_code == _EXIT_CODES.get(bare.returncode, bare.returncode)
