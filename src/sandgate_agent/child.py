"""One execution: waits ready, reads its code from its own socket, runs it as ``python file.py`` would."""

import _signal
import json
import linecache
import os
import sys
import threading
import types
from functools import partial
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from sandgate_agent import (
    calls,
    failing,
    file_worker,
    heap,
    later,
    process_worker,
    programs,
    spawning,
    step_files,
    straight,
    surroundings,
    system,
    walls,
    wire,
)
from sandgate_agent.calls import Call
from sandgate_agent.ends import Settle

FILENAME = straight.NAME
_CHANNEL = straight.CHANNEL
_BROKEN = 70
_temporary = "/tmp"
_NAME = os.path.basename(sys.executable)
_USER_PACKAGES = getattr(sys.modules.get("site"), "USER_SITE", None)
main: straight.Child
"""Runs as one execution; never returns."""


def prepare_interpreter(setup: Dict[str, Any]) -> None:
    """In the zygote, once: whatever of a fresh interpreter can be laid out before anybody's code is known."""
    global main
    heap.begin_fresh_pages()
    main = make_main()
    threading.excepthook = failing.show_in_thread
    spawning.prepare()
    # A zygote of a single sandbox compiles nothing for a session that may never be.
    later.keep(compiled="standard" in setup)
    later.forget_package()
    sys.path[:] = ["", *(p for p in sys.path if p and p != setup["agent"])]
    lay_out(walls.find_folder(setup))


def make_main() -> straight.Child:
    """What every child runs, of the modules that are loaded by now."""
    # A library's function is looked up at its first call, which no rehearsal can make of this one.
    leave: Callable[[int], int] = calls.prepare("_exit")  # type: ignore[assignment]
    return straight.make(_parts(), straight.Around(leave=leave))


def rehearse() -> None:
    """In the zygote, once: what every execution does, so that it finds the interpreter warmed up for it.

    Names that are looked up for the first time, and functions of libraries that are called for the first time, are
    written into tables, each on a page of its own.
    """
    main_module, hook = sys.modules["__main__"], threading.excepthook
    streams = [(number, os.dup(number)) for number in (1, 2)]
    null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    for number, _kept in streams:
        os.dup2(null, number)
    for source in (b"value = len('x')\nfor item in (value, 2):\n    print(str(item))\n", b"1 / 0"):
        pieces = [source, wire.pack_code(source, {})[: wire.CODE_HEADER_BYTES]]
        read = partial(_take, pieces)
        straight.make(_parts(), straight.Around(read, int, _no_exit_functions, int))([])
        run = _Run(source, sys.argv[0], b"{}")
        run.run()
        run.tell_files()
    for number, kept in streams:
        os.dup2(kept, number)
        os.close(kept)
    os.close(null)
    sys.modules["__main__"], threading.excepthook = main_module, hook
    linecache.cache.pop(FILENAME, None)
    spawning.known[:] = None, None
    step_files.rehearse()


def settling(standard: bool, limits: Sequence[Tuple[int, int]]) -> Settle:
    """How a child takes the place of an ordinary process: standard streams, session, identity, limits, signals."""

    def settle(channel: int, stdout: int, stderr: int) -> List[Call]:
        return [
            calls.prepare("dup2", stdout, 1),
            calls.prepare("dup2", stderr, 2),
            calls.prepare("dup3", channel, _CHANNEL, os.O_CLOEXEC),
            *(calls.prepare("close", descriptor) for descriptor in (channel, stdout, stderr)),
            calls.prepare("setsid"),
            *(_give_up() if standard else [system.prepare_prctl(system.PR_SET_PDEATHSIG, _signal.SIGKILL)]),
            # Descriptor 0, closed just before, is the lowest and therefore the one that is opened next. When memory
            # runs out the kernel picks the execution, not the agents.
            calls.prepare("close", 0),
            calls.prepare("open", b"/proc/self/oom_score_adj", os.O_WRONLY),
            calls.prepare("write", 0, b"1000", 4),
            calls.prepare("close", 0),
            # One of its own: a descriptor that is shared would carry flags and locks from one environment to the next.
            calls.prepare("open", b"/dev/null", os.O_RDONLY),
            *(system.prepare_limit(number, value) for number, value in limits),
            system.prepare_process_name(_NAME),
            system.prepare_unblock(_signal.SIGCHLD, _signal.SIGTERM),
        ]

    return settle


def _give_up() -> List[Call]:
    # Changing the identity hides /proc/self from its own process, until it says that it may be looked at.
    return [*system.prepare_identity(walls.USER_ID), system.prepare_prctl(system.PR_SET_DUMPABLE, 1)]


def lay_out(folder: str) -> None:
    """Before the fork: the search path and arguments of code that is run as a file in ``folder``.

    And where its temporary files are, because asking for a variable that is not there takes long after the fork.
    """
    global _temporary
    _temporary = os.environ.get("TMPDIR", "/tmp")
    sys.path[0] = folder
    sys.argv[:] = [folder + "/" + FILENAME]
    if hasattr(sys, "orig_argv"):
        sys.orig_argv[:] = [sys.executable, *sys.argv]


def _reseeding() -> List[Callable[[], object]]:
    """What undoes what forks of one parent would have in common."""
    modules = sys.modules
    reseeding: List[Callable[[], object]] = []
    reseeding += [modules[each].seed for each in ("random", "numpy.random") if each in modules]
    if "tempfile" in modules:
        reseeding.append(partial(setattr, modules["tempfile"], "_name_sequence", None))
    return reseeding


def _find_user_packages() -> None:
    """Packages that the user has installed in the environment since the interpreter looked for any.

    They may have code run at every start, which is code like any other: it begins when the execution does, and never
    where an operation on files is waited for.
    """
    if _USER_PACKAGES and os.access(_USER_PACKAGES, os.R_OK) and _USER_PACKAGES not in sys.path:
        sys.modules["site"].addsitedir(_USER_PACKAGES)


def _read_exactly(length: int, whole: bytes = b"") -> bytes:
    """So many bytes, of which some are there; the process ends when the other side is gone before."""
    while len(whole) < length:
        part = os.read(_CHANNEL, length - len(whole))
        if not part:
            os._exit(0)
        whole = whole + part if whole else part
    return whole


class _Run:
    """One piece of code and what has to be said about how it ended."""

    def __init__(self, source: bytes, filename: str, options: bytes) -> None:
        self._pid = os.getpid()
        self._filename = filename
        self._options = json.loads(options) if options else {}
        self._around: Optional[surroundings.Surroundings] = None
        if "around" in self._options:
            self._around = surroundings.Surroundings(self._options["around"], source)
            source = self._around.code
        self._source = source
        spawning.known[:] = source, filename
        self._files: Optional[step_files.StepFiles] = None

    def run(self) -> int:
        """Run to the end and answer the exit code."""
        try:
            if "program" in self._options:
                return self._run_program(self._options["program"])
            self._execute()
        except BaseException as error:
            return failing.end(error, self._pid)
        return 0

    def _execute(self) -> None:
        lines = (self._source.decode("utf-8", "replace") + "\n").splitlines(True)
        linecache.cache[FILENAME] = (len(self._source), None, lines, FILENAME)
        self._surround()
        _find_user_packages()
        try:
            compiled = compile(self._source, FILENAME, "exec", 0, True)
        except SyntaxError as error:
            failing.add_line(error)
            raise
        module = types.ModuleType("__main__")
        module.__dict__.update(__builtins__=sys.modules["builtins"], __file__=self._filename, __cached__=None)
        sys.modules["__main__"] = module
        if "inputs" not in self._options:
            exec(compiled, module.__dict__)
            return
        self._files = step_files.lay_out(_temporary, self._options)
        outputs: Dict[str, Any] = {}
        module.__dict__.update(inputs=json.loads(self._options["inputs"]), outputs=outputs)
        try:
            exec(compiled, module.__dict__)
        except SystemExit as exit_:
            if exit_.code in (None, 0):
                self._hand_on(module.__dict__.get("outputs", outputs))
            raise
        self._hand_on(module.__dict__.get("outputs", outputs))

    def _run_program(self, program: Dict[str, Any]) -> int:
        """Raises ``OSError`` and ``ValueError`` without a trace, as below."""
        try:
            self._surround()
            if "inputs" in self._options:
                self._files = step_files.lay_out(_temporary, self._options)
            code = programs.run(program["commands"], program["extension"], self._source, sys.argv[1:], _temporary)
            if code == 0:
                self._hand_on({})
        except (OSError, ValueError) as error:
            raise error.with_traceback(None) from None
        return code

    def _surround(self) -> None:
        """Raises ``OSError`` without a trace, which would tell of nothing that is the code's."""
        if self._around is None:
            return
        try:
            self._around.lay_out()
        except OSError as error:
            raise error.with_traceback(None) from None
        self._filename = spawning.known[1] = sys.argv[0]

    def _hand_on(self, outputs: Any) -> None:
        """Send what the step leaves to those after it. Raises what says what is wrong with it."""
        if os.getpid() != self._pid or self._files is None:
            return
        if not isinstance(outputs, dict):
            raise TypeError("outputs has to be a dict, not {}".format(type(outputs).__name__))
        # The dict has the last word, because it is filled by who reads what other programs have written.
        written = self._files.read_outputs()
        try:
            data = json.dumps({**written, **outputs} if written else outputs, allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError("outputs has to be JSON: {}".format(error)) from None
        if len(data) > wire.OUTPUTS_LIMIT:
            raise ValueError("outputs is {} bytes long as JSON; {} is the most".format(len(data), wire.OUTPUTS_LIMIT))
        message = wire.pack_outputs(data)
        try:
            while message:
                message = message[os.write(_CHANNEL, message) :]
        except OSError:
            # The code closed the channel; the host finds no outputs and says so.
            return

    def tell_files(self) -> None:
        """Say, when nothing of the code runs any more, whether it has left files to be kept."""
        if self._files is None or os.getpid() != self._pid:
            return
        try:
            os.set_blocking(_CHANNEL, False)
            os.write(_CHANNEL, self._files.close(self._options["is_last"]))
        except OSError:
            # The code closed the channel; the host looks for itself.
            return


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            pass


def _begin(options_length: int, length: int) -> _Run:
    """What is to be run with options; what runs no code at once, and its process, end in here."""
    options = _read_exactly(options_length)
    content = _read_exactly(length) if length else b""
    if options.startswith(wire.ROLE):
        os._exit(file_worker.run(json.loads(options[len(wire.ROLE) :]), _CHANNEL, 1, content))
    if options.startswith(wire.PROCESS):
        os._exit(process_worker.run(json.loads(options[len(wire.PROCESS) :]), _CHANNEL))
    if options.startswith(wire.SESSION):
        later.load("session").run(json.loads(options[len(wire.SESSION) :]), _CHANNEL)
    return _Run(content, sys.argv[0], options)


def _say(error: BaseException) -> None:
    sys.stderr.write("sandgate: {!r}\n".format(error))


def _fail_settling(call: Call) -> None:
    _say(calls.failure(call))
    os._exit(_BROKEN)


def _take(pieces: List[bytes], _channel: int, _length: int) -> bytes:
    """In a rehearsal, the next piece."""
    return pieces.pop()


def _no_exit_functions() -> None:
    """In a rehearsal: those that are there are for a real end."""


def _parts() -> straight.Parts:
    packages = _USER_PACKAGES or ""
    return straight.Parts(
        _BROKEN, _reseeding(), calls.prepare("access", os.fsencode(packages), os.R_OK),
        _find_user_packages, _fail_settling, _read_exactly, _begin, failing.end, _say,
    )  # fmt: skip
