"""A child that stays: an interpreter that runs one cell after another, and keeps what they leave.

It is told a cell and says how it ended; the host reads its output from its pipes, and what it has to show from its
channel. When the host lets go, or the code ends the process, the session is over.
"""

import _ast
import builtins
import ctypes
import io
import json
import linecache
import os
import struct
import sys
import threading
import types
from typing import Any, Dict, Optional, Tuple

from sandgate_agent import (
    calls,
    child,
    session_commands,
    session_hooks,
    session_shell,
    session_wire,
    surroundings,
    wire,
)
from sandgate_agent.session_display import Display
from sandgate_agent.session_errors import PREFIX, own_trace, print_error, show, show_in_thread
from sandgate_agent.session_interrupts import Interrupts, write_all

_COROUTINE = 0x80
_RUSAGE = struct.Struct("@5q")
_RUSAGE_SELF, _RUSAGE_CHILDREN = 0, -1
_MICRO = 1_000_000
_MOST_TRACEBACK_CHARACTERS = 12_000
_VALUE = "_sandgate_value"


class _Clock:
    """What the process and those that it has waited for have used."""

    def __init__(self) -> None:
        self._buffer = ctypes.create_string_buffer(144)
        self._calls = [calls.prepare("getrusage", who, self._buffer) for who in (_RUSAGE_SELF, _RUSAGE_CHILDREN)]

    def read(self) -> Tuple[int, int]:
        """Microseconds of CPU, and the most memory in bytes."""
        total = peak_kib = 0
        for call in self._calls:
            call()
            user_s, user_us, system_s, system_us, most_kib = _RUSAGE.unpack_from(self._buffer)
            total += (user_s + system_s) * _MICRO + user_us + system_us
            peak_kib = max(peak_kib, most_kib)
        return total, peak_kib * 1024


class Loop:
    """The event loop of cells that await something: one for all of them, made when it is needed."""

    def __init__(self) -> None:
        self._loop: Any = None

    def run(self, coroutine: Any) -> Any:
        """Run it to its end; when it is interrupted, so is what it awaits."""
        import asyncio

        if self._loop is None or self._loop.is_closed():
            self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self._loop)
        task = self._loop.create_task(coroutine)
        try:
            return self._loop.run_until_complete(task)
        except BaseException:
            if not task.done():
                task.cancel()
                self._loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
            raise


class Python:
    """The interpreter's side of cells: their module, their compiler, their loop."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._loop = Loop()
        self._flags = _ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        self._module = types.ModuleType("__main__")
        self._module.__dict__.update(__builtins__=builtins, display=display.show)
        self._commands = session_commands.Commands(self._module.__dict__)
        sys.modules["__main__"] = self._module

    def run(self, name: str, source: bytes) -> int:
        """Run a cell, and show the value of its last expression. Answers its exit code; raises what the code does."""
        lines = (source.decode("utf-8", "replace") + "\n").splitlines(True)
        linecache.cache[name] = (len(source), None, lines, name)
        script = session_commands.find_script(name, source) if b"%%" in source else None
        if script is not None:
            return self._commands.run_script(*script)
        tree = self._parse(name, source)
        if tree.body and isinstance(tree.body[-1], _ast.Expr) and not source.rstrip().endswith(b";"):
            tree.body[-1] = _keep_value(tree.body[-1])
        code = compile(tree, name, "exec", self._flags, True)
        if b"__future__" in source:
            # As at a prompt, what was imported from there holds for all that follows.
            self._flags |= code.co_flags & _future_flags()
        names = self._module.__dict__
        try:
            # All of it in one piece, so that the loop runs for all of it.
            coroutine = eval(code, names)
            if code.co_flags & _COROUTINE:
                self._loop.run(coroutine)
        finally:
            value = names.pop(_VALUE, None)
        if value is not None:
            builtins._ = value  # type: ignore[attr-defined]
            self._display.show(value)
        return 0

    def _parse(self, name: str, source: bytes) -> Any:
        try:
            return compile(source, name, "exec", self._flags | _ast.PyCF_ONLY_AST, True)
        except SyntaxError as error:
            if not session_commands.may_be_in(source):
                raise
            first = error
        return session_commands.parse(name, source, self._flags, first)


def _keep_value(expression: Any) -> Any:
    """An expression as the assignment of its value to a name that is taken away afterwards."""
    place = {name: getattr(expression, name) for name in ("lineno", "col_offset", "end_lineno", "end_col_offset")}
    target = _ast.Name(_VALUE, _ast.Store(), **place)
    return _ast.Assign([target], expression.value, None, **place)


def _future_flags() -> int:
    """The compiler's flags of all that can be imported from ``__future__``."""
    import __future__

    mask = 0
    for name in __future__.all_feature_names:
        mask |= getattr(__future__, name).compiler_flag
    return mask


class Session:
    """Runs cells until the host lets go."""

    def __init__(self, channel: int, language: str) -> None:
        self._channel = channel
        self._shell = session_shell.Shell() if language == "bash" else None
        self._pid = os.getpid()
        self._interrupts = Interrupts()
        self._display = Display(channel, self._interrupts.write, self._confirm)
        self._clock = _Clock()
        self._flush_streams = calls.prepare("fflush", None)
        self._python = Python(self._display)
        self._has_input = False
        self._cells = 0
        self._marked: Optional[Tuple[Dict[str, Any], bytes]] = None
        if self._shell is None:
            session_hooks.install(self._display)
            threading.excepthook = show_in_thread
        else:
            self._interrupts.outside = self._shell.ask_again
            self._shell.begin()

    def serve(self) -> None:
        """Run what comes; never returns."""
        write_all(self._channel, session_wire.pack_frame(session_wire.READY, b""))
        while True:
            options, source = self._marked or self._receive_cell()
            self._marked = None
            if "mark" in options:
                write_all(self._channel, session_wire.pack_mark(bytes.fromhex(options["mark"]), self._cells))
            elif "number" in options:
                self._run(options, source)

    def _receive_cell(self) -> Tuple[Dict[str, Any], bytes]:
        options_length, code_length = wire.unpack_code_header(self._receive(wire.CODE_HEADER_BYTES))
        return json.loads(self._receive(options_length)), self._receive(code_length)

    def _confirm(self, shown: int) -> None:
        """Wait until the host has taken what was shown, and with it all that was written before."""
        self._interrupts.shield()
        try:
            taken = None
            while taken != shown and self._marked is None:
                options, source = self._receive_cell()
                taken = options.get("taken")
                if "mark" in options:
                    # Another host, which has not seen what was shown, and is answered when the cell has ended.
                    self._marked = options, source
        finally:
            self._interrupts.unshield()

    def _receive(self, length: int) -> bytes:
        parts = []
        while length:
            part = os.read(self._channel, min(length, 1 << 20))
            if not part:
                os._exit(0)
            parts.append(part)
            length -= len(part)
        return b"".join(parts)

    def _run(self, options: Dict[str, Any], source: bytes) -> None:
        """One cell, and the word on how it ended."""
        self._cells += 1
        used_before = self._clock.read()[0]
        self._display.begin(options["results"], options["result_bytes"], options["in_order"])
        code, error = self._execute(options, source)
        if os.getpid() != self._pid:
            # A process that the cell has forked, and that fell through to its end.
            self._flush()
            os._exit(code)
        self._flush()
        self._display.end()
        used, peak = self._clock.read()
        done = {
            "exit_code": code,
            "error": error,
            "cpu_us": used - used_before,
            "peak_memory_bytes": peak,
            "dropped": self._display.dropped,
        }
        # None is for the next cell before the host has heard of the end of this one.
        self._interrupts.take_missed()
        text = json.dumps(done, ensure_ascii=False).encode("utf-8", "replace")
        write_all(self._channel, session_wire.pack_frame(session_wire.DONE, text))

    def _execute(self, options: Dict[str, Any], source: bytes) -> "Tuple[int, Optional[Dict[str, str]]]":
        try:
            if self._shell is not None:
                # The interrupt is the shell's.
                return self._shell.run(source, options.get("around", {}), self._tell_missed), None
            try:
                source = self._prepare(options, source)
                self._begin_code()
                code = self._python.run("{}{}>".format(PREFIX, self._cells), source)
                self._display.flush()
            finally:
                self._interrupts.end()
        except SystemExit as exit_:
            ended = self._leave(exit_)
        except BaseException as error:
            ended = self._fail(error)
        else:
            return code, None
        self._show_what_was_drawn()
        return ended

    def _begin_code(self) -> None:
        """From here on interrupts hit the code. Raises ``KeyboardInterrupt`` when one came before, and was for it.

        On a busy machine a cell may be late, and would go on when its time is over.
        """
        self._interrupts.begin()
        if not self._interrupts.take_missed():
            return
        self._interrupts.end()
        is_meant = self._ask_whether_meant()
        self._interrupts.begin()
        # The host interrupts no cell after it has sent the next one.
        if self._interrupts.take_missed() or is_meant:
            raise KeyboardInterrupt

    def _ask_whether_meant(self) -> bool:
        """Whether an interrupt was for the cell that is to begin: the host knows.

        It does not send another one instead: one that comes when code is just about to wait for something is noticed
        only when it has been waited for.
        """
        self._display.say(session_wire.MISSED)
        while self._marked is None:
            options, source = self._receive_cell()
            if "missed" in options:
                return bool(options["missed"])
            if "mark" in options:
                # Another host, which has interrupted whatever there is.
                self._marked = options, source
        return True

    def _tell_missed(self) -> None:
        """A cell of a shell has begun: an interrupt that came before and was for it, the host sends once more."""
        if self._interrupts.take_missed():
            self._display.say(session_wire.MISSED)

    def _show_what_was_drawn(self) -> None:
        """Show it in the cell that drew it, which has failed, and hide it from the next one.

        No interrupt comes through any more. What cannot be drawn is printed, and the cell has ended as it has.
        """
        try:
            self._display.flush()
        except BaseException as error:
            show(error)

    def _prepare(self, options: Dict[str, Any], source: bytes) -> bytes:
        """What comes with the cell, and where its packages and its input are. Raises ``OSError``."""
        child._find_user_packages()
        if "around" in options:
            around = surroundings.Surroundings(options["around"], source)
            source = around.code
            around.lay_out()
        has_input = bool(options.get("around", {}).get("stdin_bytes"))
        if self._has_input and not has_input:
            null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            os.dup2(null, 0)
            os.close(null)
        if self._has_input or has_input or sys.stdin is None or sys.stdin.closed:
            # What the last one has read ahead is not this one's.
            sys.stdin = io.TextIOWrapper(io.FileIO(0, "rb", closefd=False), "utf-8", "surrogateescape")
        self._has_input = has_input
        return source

    def _leave(self, exit_: SystemExit) -> "Tuple[int, Optional[Dict[str, str]]]":
        """``sys.exit`` ends the cell, and leaves the session."""
        self._interrupts.end()
        code = exit_.code
        if code is None or code == 0:
            return 0, None
        if not isinstance(code, int):
            print_error(code)
        return (code & 0xFF if isinstance(code, int) else 1), _report("SystemExit", code, "")

    def _fail(self, error: BaseException) -> "Tuple[int, Optional[Dict[str, str]]]":
        self._interrupts.end()
        try:
            report = _report(type(error).__name__, error, show(error))
        except BaseException:
            report = _report(type(error).__name__, "", "")
        error.__traceback__ = error.__traceback__ and own_trace(error)
        return (130 if isinstance(error, KeyboardInterrupt) else 1), report

    def _flush(self) -> None:
        child._flush()
        self._flush_streams()


def _report(name: str, value: Any, text: str) -> Dict[str, str]:
    """Cut so that any of it fits a frame."""
    return {"name": name[:256], "value": str(value)[:4096], "traceback": text[-_MOST_TRACEBACK_CHARACTERS:]}


def run(arguments: Dict[str, Any], channel: int) -> None:
    """Be a session; never returns."""
    try:
        os.environ.update(arguments["env"])
        if arguments["cwd"] is not None:
            os.chdir(arguments["cwd"])
            os.environ["PWD"] = sys.path[0] = os.getcwd()
    except OSError as error:
        sys.stderr.write(str(error))
        os._exit(1)
    Session(channel, arguments["language"]).serve()
