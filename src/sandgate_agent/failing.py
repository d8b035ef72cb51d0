"""How code ends by an exception: what is printed, what is told about it, and the exit code."""

import _thread
import io
import linecache
import os
import sys
import threading
import traceback
from typing import Any

from sandgate_agent import spawning, straight, tracebacks, wire

# The frames that all code has above its own.
_OURS = (straight.__file__, os.path.join(os.path.dirname(straight.__file__), "child.py"))


def end(error: BaseException, pid: int, is_compiled: bool = True) -> int:
    """Say how code has ended by an exception, and answer the exit code; ``pid`` is that of its process."""
    if isinstance(error, SystemExit):
        return _leave(error, pid)
    if isinstance(error, SyntaxError) and not is_compiled:
        add_line(error)
    return _fail(error, pid)


def add_line(error: SyntaxError) -> None:
    """Of what is found after parsing, the compiler looks for the line in a file of that name."""
    lines = linecache.getlines(straight.NAME)
    if error.filename == straight.NAME and error.text is None and 0 < (error.lineno or 0) <= len(lines):
        error.text = lines[(error.lineno or 0) - 1]


def _leave(exit_: SystemExit, pid: int) -> int:
    code = exit_.code
    if code is None:
        return 0
    if not isinstance(code, int):
        _print(code)
    try:
        _report(pid, "SystemExit", code, "")
    except BaseException:
        # It has no text.
        _report(pid, "SystemExit", "", "")
    return code & 0xFF if isinstance(code, int) else 1


def _print(text: Any, end: str = "\n") -> None:
    try:
        sys.stderr.write("{}{}".format(text, end))
    except Exception:
        pass


def _fail(error: BaseException, pid: int) -> int:
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename in _OURS:
        trace = trace.tb_next
    error.__traceback__ = trace
    shown = _show(error, trace)
    try:
        text = shown or "".join(traceback.format_exception(type(error), error, trace))
        _report(pid, type(error).__name__, error, text)
    except BaseException:
        _report(pid, type(error).__name__, "", "")
    error.__traceback__ = None
    return 130 if isinstance(error, KeyboardInterrupt) else 1


def _show(error: BaseException, trace: Any) -> str:
    """Print an uncaught exception as the interpreter or the code's own hook does; what the interpreter printed."""
    stderr, sink = sys.stderr, io.StringIO()
    ordinary = sys.excepthook is sys.__excepthook__ and stderr is sys.__stderr__
    try:
        with _shown_source():
            if ordinary:
                sys.stderr = sink
            sys.excepthook(type(error), error, trace)
    except BaseException as second:
        _print("Error in sys.excepthook: {!r}".format(second))
    finally:
        if ordinary:
            sys.stderr = stderr
    text = sink.getvalue()
    if text and tracebacks.FINDS_NOTHING and (trace or error.__cause__ or error.__context__):
        text = tracebacks.format_with_lines(error, text)
    if text:
        _print(text, end="")
    return text


def _shown_source() -> tracebacks.ShownSource:
    return tracebacks.ShownSource(straight.NAME, spawning.known[0] or b"")


def show_in_thread(args: Any) -> None:
    """In the place of ``threading.excepthook``, for all code."""
    if tracebacks.FINDS_NOTHING and args.exc_type is not SystemExit and sys.stderr is not None:
        name = args.thread.name if args.thread is not None else threading.get_ident()
        _print("Exception in thread {}:".format(name))
        traceback.print_exception(args.exc_type, args.exc_value, args.exc_traceback)
        return
    with _shown_source():
        _thread._excepthook(args)


def _report(pid: int, name: str, value: Any, text: str) -> None:
    if os.getpid() != pid:
        # A process that the code forked and that fell through to the end; the answer is not about it.
        return
    try:
        os.set_blocking(straight.CHANNEL, False)
        os.write(straight.CHANNEL, wire.pack_report(name, str(value), text))
    except OSError:
        # The code closed the channel; the exit code and stderr say the rest.
        return
