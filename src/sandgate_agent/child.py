"""One execution: waits ready, reads its code from its own socket, runs it as ``python file.py`` would."""

import _thread
import atexit
import gc
import io
import linecache
import os
import signal
import socket
import sys
import threading
import traceback
import types
from typing import Any, Dict, List, Optional

from sandgate_agent import system, walls, wire

FILENAME = "<code>"
# The last descriptor of the smallest table a process has: out of the way of what the code opens.
_CHANNEL = 63


# The interpreter's own functions find the text of a line in a file of that name up to 3.10, nowhere if the name has
# angle brackets in 3.11 and 3.12, and with the help of linecache, which knows the code, from 3.13 on.
_LOOKS_FOR_FILES = sys.version_info < (3, 11)
_FINDS_NOTHING = (3, 11) <= sys.version_info < (3, 13)


def _format(error: BaseException, plain: str) -> str:
    """What the interpreter would print of an exception if it found the lines; ``plain`` is what it printed without."""
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    # It alone knows what the code may have meant instead of a name.
    last, wanted = text.rstrip("\n").rpartition("\n")[2], plain.rstrip("\n").rpartition("\n")[2]
    if wanted.startswith(last + ". Did you mean"):
        return text.rstrip("\n")[: -len(last)] + wanted + "\n"
    return text


class _ShownSource:
    """While it is entered, the interpreter's own functions find the text of the code's lines.

    They look for a file of the code's name in the folders of ``sys.path``, so that one has to be there.
    """

    def __init__(self, source: bytes) -> None:
        self._source = source
        self._folder: Optional[str] = None

    def __enter__(self) -> None:
        if not _LOOKS_FOR_FILES:
            return
        folder = "{}/.code-{}".format(os.environ.get("TMPDIR", "/tmp"), os.urandom(8).hex())
        try:
            os.mkdir(folder, 0o700)
            self._folder = folder
            with open(folder + "/" + FILENAME, "wb") as file:
                file.write(self._source)
        except OSError:
            # The disk is full, or the code has taken the folder away: then lines are shown without their text.
            return
        sys.path.insert(0, folder)

    def __exit__(self, *_error: Any) -> None:
        if self._folder is None:
            return
        try:
            if self._folder in sys.path:
                sys.path.remove(self._folder)
            os.unlink(self._folder + "/" + FILENAME)
            os.rmdir(self._folder)
        except OSError:
            return


def prepare_interpreter(setup: Dict[str, Any]) -> None:
    """In the zygote, once: whatever of a fresh interpreter can be laid out before anybody's code is known."""
    for name in [name for name in sys.modules if name.split(".")[0] == "sandgate_agent"]:
        del sys.modules[name]
    sys.path[:] = ["", *(p for p in sys.path if p and p != setup["agent"])]


def _settle(request: Dict[str, Any], channel: int, outputs: List[int]) -> None:
    """Take the place of an ordinary process: standard streams, session, identity, signals."""
    null = os.open("/dev/null", os.O_RDONLY)
    for descriptor, number in ((null, 0), (outputs[0], 1), (outputs[1], 2)):
        os.dup2(descriptor, number)
    os.dup2(channel, _CHANNEL, inheritable=False)
    os.closerange(3, _CHANNEL)
    os.setsid()
    if walls.is_standard(request):
        os.setgroups([])
        os.setresgid(walls.USER_ID, walls.USER_ID, walls.USER_ID)
        os.setresuid(walls.USER_ID, walls.USER_ID, walls.USER_ID)
        # Changing the identity hid /proc/self from its own process.
        system.prctl(system.PR_SET_DUMPABLE, 1)
    else:
        system.prctl(system.PR_SET_PDEATHSIG, signal.SIGKILL)
    # When memory runs out the kernel picks the execution, not the agents.
    with open("/proc/self/oom_score_adj", "wb", buffering=0) as score:
        score.write(b"1000")
    system.set_process_name(os.path.basename(sys.executable))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])


def _refresh() -> None:
    """Undo what forks of one parent would have in common, and what the collector was told to leave alone."""
    folder = os.getcwd()
    sys.path[0] = folder
    sys.argv[:] = [folder + "/" + FILENAME]
    if hasattr(sys, "orig_argv"):
        sys.orig_argv[:] = [sys.executable, *sys.argv]
    tempfile = sys.modules.get("tempfile")
    if tempfile is not None:
        tempfile._name_sequence = None  # type: ignore[attr-defined]
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()
    site = sys.modules.get("site")
    packages = getattr(site, "USER_SITE", None)
    if site is not None and packages and packages not in sys.path and os.path.isdir(packages):
        site.addsitedir(packages)
    gc.enable()


def _read_exactly(channel: socket.socket, length: int) -> bytes:
    """So many bytes; the process ends when the other side is gone before."""
    parts = []
    while length:
        part = channel.recv(min(length, 1 << 20))
        if not part:
            os._exit(0)
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


class _Run:
    """One piece of code and what has to be said about how it ended."""

    def __init__(self, source: bytes, filename: str) -> None:
        self._pid = os.getpid()
        self._source = source
        self._filename = filename
        self._shown = _ShownSource(source)

    def run(self, channel: socket.socket) -> int:
        """Run to the end and answer the exit code."""
        try:
            self._execute()
        except SystemExit as exit_:
            return self._leave(exit_, channel)
        except BaseException as error:
            return self._fail(error, channel)
        return 0

    def _execute(self) -> None:
        lines = (self._source.decode("utf-8-sig", "replace") + "\n").splitlines(True)
        linecache.cache[FILENAME] = (len(self._source), None, lines, FILENAME)
        threading.excepthook = self._show_in_thread
        compiled = compile(self._source, FILENAME, "exec", 0, True)
        module = types.ModuleType("__main__")
        module.__dict__.update(__builtins__=sys.modules["builtins"], __file__=self._filename, __cached__=None)
        sys.modules["__main__"] = module
        exec(compiled, module.__dict__)

    def _leave(self, exit_: SystemExit, channel: socket.socket) -> int:
        code = exit_.code
        if code is None:
            return 0
        if not isinstance(code, int):
            self._print(code)
        self._report(channel, "SystemExit", code, "")
        return code & 0xFF if isinstance(code, int) else 1

    def _print(self, text: Any, end: str = "\n") -> None:
        try:
            sys.stderr.write("{}{}".format(text, end))
        except Exception:
            pass

    def _fail(self, error: BaseException, channel: socket.socket) -> int:
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
            trace = trace.tb_next
        error.__traceback__ = trace
        shown = self._show(error, trace)
        try:
            text = shown or "".join(traceback.format_exception(type(error), error, trace))
            self._report(channel, type(error).__name__, error, text)
        except BaseException:  # noqa: BLE001 - the text of an exception may raise anything
            self._report(channel, type(error).__name__, "", "")
        error.__traceback__ = None
        return 130 if isinstance(error, KeyboardInterrupt) else 1

    def _show(self, error: BaseException, trace: Any) -> str:
        """Print an uncaught exception as the interpreter does, or as the code wants it; what the interpreter printed."""
        stderr, sink = sys.stderr, io.StringIO()
        ordinary = sys.excepthook is sys.__excepthook__ and stderr is sys.__stderr__
        try:
            with self._shown:
                if ordinary:
                    sys.stderr = sink
                sys.excepthook(type(error), error, trace)
        except BaseException as second:  # noqa: BLE001 - a hook of the code's own may raise anything
            self._print("Error in sys.excepthook: {!r}".format(second))
        finally:
            if ordinary:
                sys.stderr = stderr
        text = sink.getvalue()
        if text and _FINDS_NOTHING and (trace or error.__cause__ or error.__context__):
            text = _format(error, text)
        if text:
            self._print(text, end="")
        return text

    def _show_in_thread(self, args: Any) -> None:
        if _FINDS_NOTHING and args.exc_type is not SystemExit and sys.stderr is not None:
            name = args.thread.name if args.thread is not None else threading.get_ident()
            self._print("Exception in thread {}:".format(name))
            traceback.print_exception(args.exc_type, args.exc_value, args.exc_traceback)
            return
        with self._shown:
            _thread._excepthook(args)

    def _report(self, channel: socket.socket, name: str, value: Any, text: str) -> None:
        if os.getpid() != self._pid:
            # A process that the code forked and that fell through to the end; the answer is not about it.
            return
        try:
            channel.setblocking(False)
            channel.send(wire.pack_report(name, str(value), text))
        except OSError:
            # The code closed the channel; the exit code and stderr say the rest.
            return


def _finish(code: int) -> None:
    """End as an interpreter does: threads joined, exit functions run, objects of the code's own finalized."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        _flush()
        sys.modules.pop("__main__", None)
        gc.collect()
        _flush()
    finally:
        os._exit(code)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            pass


def main(request: Dict[str, Any], channel_fd: int, outputs: List[int]) -> None:
    """Run as one execution; never returns."""
    code: Optional[int] = None
    try:
        _settle(request, channel_fd, outputs)
        _refresh()
        channel = socket.socket(fileno=_CHANNEL)
        options_length, code_length = wire.parse_code_header(_read_exactly(channel, wire.CODE_HEADER_BYTES))
        _read_exactly(channel, options_length)
        source = _read_exactly(channel, code_length)
        code = _Run(source, sys.argv[0]).run(channel)
        channel.detach()
    except BaseException as error:
        sys.stderr.write("sandgate: {!r}\n".format(error))
    finally:
        _finish(70 if code is None else code)
