"""Another role of a child: it starts a command that nobody waits for, and stands by it until it ends.

What the command writes goes to the pipes of the child, or through a terminal that the child holds and from there to the
pipe of stdout, as fast as that is read. The host feeds it, resizes its terminal and signals it over the channel (see
``wire``), and never has more input under way than is told of as taken: so whatever the command does not read, the
channel stays free for signals. When the command ends, the child ends in the same way, and with it the slot.
"""

import _signal
import ctypes
import os
import struct
from typing import Any, Dict, Optional, Sequence

from sandgate_agent import calls, programs, system, wire

_READ_BYTES = 64 * 1024
# A terminal holds a few pages; what else writes on it after its command has ended need not be waited for.
_MOST_LAST_WORDS = 64
_STDOUT = 1
_END_OF_TRANSMISSION = b"\x04"
# Source: include/uapi/asm-generic/ioctls.h, poll(2)
_TIOCSCTTY, _TIOCSWINSZ = 0x540E, 0x5414
_IN, _OUT = 1, 4
_ITEM = struct.Struct("@ihh")
# Source: include/uapi/asm-generic/ioctls.h, termbits.h: struct termios begins with four words of flags.
_TCGETS, _TERMIOS_BYTES, _ISIG = 0x5401, 64, 0x1
_FLAGS = struct.Struct("@4I")
_OF_CHARACTER = {3: _signal.SIGINT, 28: _signal.SIGQUIT, 26: _signal.SIGTSTP}
_MOST_DESCRIPTORS = 256
_NOT_STARTED = 127
# What the interpreter handles or ignores.
_TO_DEFAULT = (_signal.SIGINT, _signal.SIGPIPE, _signal.SIGXFSZ)
_BLOCKED = (_signal.SIGCHLD, _signal.SIGTERM)

# Whether the kernel makes signals of control characters on a terminal, and tells who does not have it as its own which
# group is in the foreground. gVisor's does neither.
kernel_signals = True


def _poll(wanted: Dict[int, int]) -> Dict[int, int]:
    """Wait for one of these events by descriptor; those that there are."""
    items = b"".join(_ITEM.pack(descriptor, events, 0) for descriptor, events in wanted.items())
    found = ctypes.create_string_buffer(items, len(items))
    if calls.prepare("poll", found, len(wanted), -1)() <= 0:
        return {}
    return {descriptor: events for descriptor, _asked, events in _ITEM.iter_unpack(found.raw) if events}


def _makes_signals(terminal: int) -> bool:
    """Whether control characters are signals there, and no input."""
    flags = ctypes.create_string_buffer(_TERMIOS_BYTES)
    return calls.prepare("ioctl", terminal, _TCGETS, flags)() == 0 and bool(_FLAGS.unpack_from(flags)[3] & _ISIG)


def _signal_foreground(terminal: int, group: int, number: int) -> None:
    """Signal the group in the foreground of a terminal; ``group`` when there is none."""
    try:
        os.killpg(os.tcgetpgrp(terminal) or group, number)
    except OSError:
        # It has ended, or what is there now is not its own.
        return


def _resize(terminal: int, rows: int, columns: int) -> None:
    calls.prepare("ioctl", terminal, _TIOCSWINSZ, struct.pack("@4H", rows, columns, 0, 0))()


class _Command:
    """A command that runs. ``feed`` takes its input, ``terminal`` and ``slave`` are both sides of its terminal."""

    def __init__(self, request: Dict[str, Any]) -> None:
        """Start it. Raises ``OSError``."""
        os.environ.update(request["env"])
        if request["cwd"] is not None:
            os.chdir(request["cwd"])
            os.environ["PWD"] = os.getcwd()
        self.feed = self.terminal = -1
        self.slave = stdin = -1
        self._signaller = -1
        if request["pty"] is not None:
            if "TERM" not in request["env"]:
                os.environ["TERM"] = "xterm-256color"
            # The other side stays open: a terminal that nobody has open cannot be waited for.
            self.terminal, self.slave = os.openpty()
            _resize(self.terminal, *request["pty"])
            self.feed = self.terminal
            if not kernel_signals:
                self._orders, self._signaller = os.pipe()
        elif request["stdin"]:
            stdin, self.feed = os.pipe()
        self.pid = self._start(*programs.choose(request["commands"]), stdin)
        if stdin >= 0:
            os.close(stdin)
        if self.feed >= 0:
            os.set_blocking(self.feed, False)

    def _start(self, path: str, command: Sequence[str], stdin: int) -> int:
        hearing, telling = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                self._become(path, command, stdin)
            except OSError as error:
                os.write(telling, str(error.errno or 0).encode())
            finally:
                os._exit(_NOT_STARTED)
        os.close(telling)
        # Closed by the program's start.
        failure = os.read(hearing, 16)
        os.close(hearing)
        if failure:
            os.waitpid(pid, 0)
            raise OSError(int(failure), os.strerror(int(failure)), path)
        return pid

    def _become(self, path: str, command: Sequence[str], stdin: int) -> None:
        os.setsid()
        for number in _TO_DEFAULT:
            _signal.signal(number, _signal.SIG_DFL)
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, _BLOCKED)
        if self.slave >= 0:
            calls.prepare("ioctl", self.slave, _TIOCSCTTY, 0)()
            for number in (0, 1, 2):
                os.dup2(self.slave, number)
            if self._signaller >= 0:
                self._leave_signaller()
        elif stdin >= 0:
            os.dup2(stdin, 0)
        os.execve(path, list(command), os.environ)

    def _leave_signaller(self) -> None:
        """A process that is nobody's child, but of the session that the terminal belongs to."""
        group = os.getpid()
        pid = os.fork()
        if pid:
            os.waitpid(pid, 0)
            return
        if os.fork():
            os._exit(0)
        os.setpgid(0, 0)
        # Whatever it held open, somebody might wait for the end of.
        os.dup2(self._orders, 1)
        os.closerange(2, _MOST_DESCRIPTORS)
        for number in iter(lambda: os.read(1, 1), b""):
            _signal_foreground(0, group, number[0])
        os._exit(0)

    def signal(self, number: int) -> None:
        """Signal its group; of one on a terminal, the group in the foreground."""
        if self._signaller >= 0:
            os.write(self._signaller, bytes([number]))
        elif self.terminal >= 0:
            _signal_foreground(self.terminal, self.pid, number)
        else:
            try:
                os.killpg(self.pid, number)
            except OSError:
                # It has ended, or what is there now is not its own.
                return

    def bury(self) -> Optional[int]:
        """Its wait status; None while it runs."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return status if pid else None


class _Attendant:
    """Stands between a command and the host."""

    def __init__(self, command: _Command, channel: int, signals: int) -> None:
        self._command = command
        self._channel = channel
        self._signals = signals
        self._said = b""
        self._input = b""
        self._ends_input = False
        self._output = b""

    def serve(self) -> int:
        """Until the command ends; its wait status."""
        if self._command.terminal >= 0:
            os.set_blocking(_STDOUT, False)
        self._tell(wire.BEGUN, self._command.pid)
        while True:
            found = _poll(self._wanted())
            if self._channel in found:
                self._hear()
            if found.get(self._command.feed, 0) & ~_IN:
                self._feed()
            if _STDOUT in found:
                self._write_output()
            if found.get(self._command.terminal, 0) & _IN and not self._output:
                self._read_terminal()
            if self._signals in found:
                os.read(self._signals, 1024)
                status = self._command.bury()
                if status is not None:
                    self._hear_last_words()
                    return status

    def _wanted(self) -> Dict[int, int]:
        command = self._command
        wanted = {self._signals: _IN}
        if self._channel >= 0:
            wanted[self._channel] = _IN
        if self._output:
            wanted[_STDOUT] = _OUT
        elif command.terminal >= 0:
            wanted[command.terminal] = _IN
        if self._input and command.feed >= 0:
            wanted[command.feed] = wanted.get(command.feed, 0) | _OUT
        return wanted

    def _tell(self, kind: bytes, number: int) -> None:
        try:
            os.write(self._channel, wire.pack_word(kind, number))
        except OSError:
            self._channel = -1

    def _hear(self) -> None:
        """Take what the host says. Input that is told of before it ends comes whole."""
        try:
            said = os.read(self._channel, _READ_BYTES)
        except OSError:
            said = b""
        if not said:
            self._channel = -1
            return
        self._said += said
        while len(self._said) >= wire.WORD_BYTES:
            kind, number = wire.parse_word(self._said[: wire.WORD_BYTES])
            end = wire.WORD_BYTES + (number if kind == wire.INPUT else 0)
            if len(self._said) < end:
                return
            content, self._said = self._said[wire.WORD_BYTES : end], self._said[end:]
            self._obey(kind, number, content)

    def _obey(self, kind: bytes, number: int, content: bytes) -> None:
        if kind == wire.INPUT:
            self._take_input(content)
        elif kind == wire.INPUT_END:
            self._ends_input = True
            self._feed()
        elif kind == wire.RESIZE and self._command.terminal >= 0:
            _resize(self._command.terminal, number >> 16, number & 0xFFFF)
        elif kind == wire.SIGNAL:
            self._command.signal(number)

    def _take_input(self, content: bytes) -> None:
        if not kernel_signals and self._command.terminal >= 0 and any(code in content for code in _OF_CHARACTER):
            content = self._signal_by(content)
        self._input += content
        self._feed()

    def _signal_by(self, content: bytes) -> bytes:
        """Do what the kernel does not; the input without control characters that were signals."""
        if not _makes_signals(self._command.slave):
            return content
        for code in content:
            if code in _OF_CHARACTER:
                self._command.signal(_OF_CHARACTER[code])
        rest = bytes(code for code in content if code not in _OF_CHARACTER)
        self._tell(wire.TAKEN, len(content) - len(rest))
        return rest

    def _feed(self) -> None:
        """Write what there is to be read for the command, as far as it takes it."""
        command = self._command
        if self._ends_input and command.terminal >= 0:
            self._ends_input = False
            self._input += _END_OF_TRANSMISSION
        taken = 0
        try:
            while self._input and command.feed >= 0:
                written = os.write(command.feed, self._input)
                self._input = self._input[written:]
                taken += written
        except BlockingIOError:
            pass
        except OSError:
            self._close_input()
        if taken:
            self._tell(wire.TAKEN, taken)
        if command.feed < 0:
            self._input = b""
        elif self._ends_input and not self._input:
            self._close_input()

    def _close_input(self) -> None:
        if self._command.feed != self._command.terminal:
            os.close(self._command.feed)
        self._command.feed = -1
        self._tell(wire.INPUT_CLOSED, 0)

    def _read_terminal(self) -> None:
        try:
            self._output = os.read(self._command.terminal, _READ_BYTES)
        except OSError:
            # Somebody read it before; or nobody has it open, which cannot be.
            return
        self._write_output()

    def _write_output(self) -> None:
        try:
            self._output = self._output[os.write(_STDOUT, self._output) :]
        except BlockingIOError:
            return
        except OSError:
            self._output = b""

    def _hear_last_words(self) -> None:
        """What is left on the terminal, however long it takes the host to read it."""
        if self._command.terminal < 0:
            return
        os.set_blocking(_STDOUT, True)
        self._write_output()
        for _read in range(_MOST_LAST_WORDS):
            try:
                self._output = os.read(self._command.terminal, _READ_BYTES)
            except OSError:
                return
            while self._output:
                self._write_output()


def run(request: Dict[str, Any], channel: int) -> int:
    """Run a command to its end and answer the exit code; a signal that ended it ends this process, too."""
    signals = system.open_child_signals()
    try:
        command = _Command(request)
    except OSError as error:
        os.write(channel, wire.pack_report(type(error).__name__, str(error), ""))
        return _NOT_STARTED
    return programs.end_as(_Attendant(command, channel, signals).serve())
