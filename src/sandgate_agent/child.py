"""One execution: waits ready, reads its code from its own socket, runs it as ``python file.py`` would."""

import atexit
import gc
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


def _display(kind: Any, value: Any, trace: Any) -> None:
    """Print an exception with the text of its lines, which the interpreter's own function cannot find."""
    traceback.print_exception(kind, value, trace)


def _display_in_thread(args: Any) -> None:
    """What ``threading.excepthook`` prints, with the text of the lines."""
    if args.exc_type is SystemExit or sys.stderr is None:
        return
    name = args.thread.name if args.thread is not None else threading.get_ident()
    sys.stderr.write("Exception in thread {}:\n".format(name))
    traceback.print_exception(args.exc_type, args.exc_value, args.exc_traceback)


def prepare_interpreter(setup: Dict[str, Any]) -> None:
    """In the zygote, once: whatever of a fresh interpreter can be laid out before anybody's code is known."""
    for name in [name for name in sys.modules if name.split(".")[0] == "sandgate_agent"]:
        del sys.modules[name]
    sys.path[:] = ["", *(p for p in sys.path if p and p != setup["agent"])]
    sys.excepthook = sys.__excepthook__ = _display
    threading.excepthook = _display_in_thread


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

    def __init__(self, source: str, filename: str) -> None:
        self._pid = os.getpid()
        self._source = source
        self._filename = filename

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
        linecache.cache[FILENAME] = (len(self._source), None, self._source.splitlines(True), FILENAME)
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

    def _print(self, text: Any) -> None:
        try:
            sys.stderr.write("{}\n".format(text))
        except Exception:
            pass

    def _fail(self, error: BaseException, channel: socket.socket) -> int:
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
            trace = trace.tb_next
        error.__traceback__ = trace
        try:
            sys.excepthook(type(error), error, trace)
        except BaseException as second:
            self._print("Error in sys.excepthook: {!r}".format(second))
        try:
            text = "".join(traceback.format_exception(type(error), error, trace))
            self._report(channel, type(error).__name__, error, text)
        except BaseException:
            self._report(channel, type(error).__name__, "", "")
        error.__traceback__ = None
        return 130 if isinstance(error, KeyboardInterrupt) else 1

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
        source = _read_exactly(channel, code_length).decode("utf-8")
        code = _Run(source, sys.argv[0]).run(channel)
        channel.detach()
    except BaseException as error:
        sys.stderr.write("sandgate: {!r}\n".format(error))
    finally:
        _finish(70 if code is None else code)
