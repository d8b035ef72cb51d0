"""A session of bash: a shell that stays, fed with one cell after another by the session's own process.

It is interactive, because only such a shell goes on after an interrupt, but has no terminal. A cell is sourced from a
file in memory, so that it runs in the shell itself; then the shell is told to say its exit status on a pipe of its own.
"""

import os
import threading
from typing import Any, Callable, Dict, List

from sandgate_agent import surroundings

# Out of the way of what shell scripts open.
_STDERR, _STDIN, _CELL, _STATUS = 59, 60, 61, 62
_ARGUMENTS = ["bash", "--noprofile", "--norc", "--noediting", "-i"]
# What an interactive shell does beyond running commands, and where its errors go from now on. Until then what it has to
# say of its missing terminal goes nowhere.
_BEGINNING = "PS1= PS2=; set +H +o history; unset HISTFILE; exec 2>&{0} {0}>&-\n".format(_STDERR)


def quote(text: str) -> str:
    """One word of a shell."""
    return "'" + text.replace("'", "'\\''") + "'"


class Shell:
    """The shell, and the pipes to it. When it ends, so does the session, with its exit code."""

    def __init__(self) -> None:
        """Raises ``OSError``."""
        self._number = 0
        self._rest = b""
        # What was asked for, and can be asked for once more.
        self._asked = b""
        commands, self._commands = os.pipe()
        self._status, status = os.pipe()
        self._cell = os.memfd_create("cell", os.MFD_CLOEXEC)
        self._stdin = os.memfd_create("stdin", os.MFD_CLOEXEC)
        self._pid = os.fork()
        if self._pid == 0:
            self._become(commands, status)
        os.close(commands)
        os.close(status)
        threading.Thread(target=self._wait, daemon=True).start()
        self._send(_BEGINNING)

    def _become(self, commands: int, status: int) -> None:
        """In the child; never returns."""
        try:
            os.dup2(2, _STDERR)
            null = os.open(os.devnull, os.O_WRONLY)
            for source, number in ((self._stdin, _STDIN), (self._cell, _CELL), (status, _STATUS), (commands, 0)):
                os.dup2(source, number)
            os.dup2(null, 2)
            os.execvp(_ARGUMENTS[0], _ARGUMENTS)
        except OSError as error:
            os.write(_STDERR, "bash cannot be started: {}\n".format(error).encode())
        finally:
            os._exit(127)

    def _wait(self) -> None:
        status = os.waitpid(self._pid, 0)[1]
        os._exit(128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))

    def _send(self, text: str, cell: str = "", begun: Callable[[], None] = lambda: None) -> int:
        """Have lines executed, and the one of a cell after them, which has ``begun`` when the shell says so.

        The exit status of the last of them.
        """
        self._number += 1
        if cell:
            # In one line: an interrupt that comes behind the word ends all of it.
            text += "builtin printf '%d\\n' {} >&{}; {}\n".format(self._number, _STATUS, cell)
        asked = "builtin printf '%d %d\\n' $? {} >&{}\n".format(self._number, _STATUS)
        data = (text + asked).encode("utf-8", "surrogateescape")
        while data:
            data = data[os.write(self._commands, data) :]
        self._asked = b"\n" + asked.encode()
        while True:
            words = self._read_line().split()
            if words == [b"%d" % self._number]:
                self._asked = b"\n" + asked.encode()
                begun()
            # Other lines are the code's own.
            if len(words) == 2 and all(word.isdigit() for word in words) and int(words[1]) == self._number:
                self._asked = b""
                return int(words[0]) & 0xFF

    def ask_again(self) -> None:
        """After an interrupt: one that comes when a cell has just ended makes the shell forget what it was asked."""
        asked, self._asked = self._asked, b""
        if asked:
            os.write(self._commands, asked)

    def _read_line(self) -> bytes:
        while b"\n" not in self._rest:
            part = os.read(self._status, 4096)
            if not part:
                # It has closed the pipe, and is to end.
                threading.Event().wait()
            # Of one that never ends a line the end is enough.
            self._rest = (self._rest + part)[-4096:]
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def begin(self) -> None:
        """Wait until it takes cells."""
        self._send("")

    def run(self, source: bytes, facts: Dict[str, Any], begun: Callable[[], None]) -> int:
        """Run a cell; its exit status. Raises ``OSError`` for what cannot be laid out."""
        arguments: List[str] = []
        stdin = os.devnull
        before = ""
        if facts:
            # What is relative is so to the shell's folder.
            os.chdir("/proc/{}/cwd".format(self._pid))
            around = surroundings.Surroundings({**facts, "env": {}}, source)
            around.lay_out()
            source, arguments = around.code, facts["args"]
            before = "".join("export {}={}\n".format(name, quote(text)) for name, text in facts["env"].items())
            if facts["cwd"] is not None:
                before += "cd -- {}\n".format(quote(os.getcwd()))
            if facts["stdin_bytes"]:
                _fill(self._stdin, around.stdin)
                stdin = "/dev/fd/{}".format(_STDIN)
        _fill(self._cell, source + b"\n")
        words = " ".join(quote(argument) for argument in arguments)
        return self._send(before, "source /dev/fd/{} {} <{}".format(_CELL, words, stdin), begun)


def _fill(descriptor: int, content: bytes) -> None:
    os.ftruncate(descriptor, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    while content:
        content = content[os.write(descriptor, content) :]
