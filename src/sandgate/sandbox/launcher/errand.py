"""What takes its time, or needs another place than the launcher's: done by a process of its own.

So the launcher waits for no disk, and is never where a sandbox could see it.
"""

import os
import signal
from collections.abc import Callable, Sequence
from typing import NoReturn

from sandgate.sandbox.launcher import processes
from sandgate.sandbox.launcher.inside_log import printable
from sandgate.sandbox.launcher.reactor import Reactor
from sandgate_agent import system

# Of the launcher: the process, and what it says.
_DESCRIPTORS = 2
_MOST_WORDS = 500
# What fits into a pipe that nobody reads meanwhile.
MOST_ANSWER = 32_768

Then = Callable[[bytes | None, str], None]
"""Is given the answer and no reason, or no answer and the reason."""


class Errand:
    """One such process. ``then`` is called once, also when it takes more than ``limit_s``."""

    def __init__(
        self, reactor: Reactor, work: Callable[[], bytes], kept: Sequence[int], limit_s: float, then: Then
    ) -> None:
        """Start it: ``work`` is done there, with copies of the descriptors ``kept`` and no others.

        Raises ``OSError``, and then ``then`` is not called.
        """
        self._reactor = reactor
        self._then: Then | None = then
        # Whether nothing is left of it.
        self.is_buried = False
        reactor.allowance.take(_DESCRIPTORS)
        try:
            self._start(work, kept)
        except OSError:
            reactor.allowance.give_back(_DESCRIPTORS)
            raise
        reactor.watch(self._pidfd, self._on_exit, self._fail)
        self._deadline = reactor.call_later(limit_s, lambda: self._fail(f"it took more than {limit_s:g} seconds"))

    def _start(self, work: Callable[[], bytes], kept: Sequence[int]) -> None:
        self._words, words = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        pid, launcher = -1, os.getpid()
        try:
            pid = system.clone(0)
            if pid == 0:
                _run(work, kept, words, launcher)
            self._pidfd = os.pidfd_open(pid)
        except OSError:
            processes.abandon(pid)
            os.close(self._words)
            raise
        finally:
            os.close(words)
        self._pid = pid
        self._reactor.children.add(pid)

    def give_up(self, reason: str) -> None:
        """Nobody wants it any more; whoever waits for it is told so."""
        if not self.is_over:
            self._fail(reason)

    @property
    def is_over(self) -> bool:
        """Whether it has been told how it went."""
        return self._then is None

    def _fail(self, reason: str) -> None:
        """It is buried when it has ended; nobody waits for that."""
        if not self.is_buried:
            # Later the number may be another's.
            processes.kill(self._pidfd)
        self._tell(None, reason)

    def _tell(self, answer: bytes | None, reason: str) -> None:
        then, self._then = self._then, None
        if then is not None:
            then(answer, reason)

    def _on_exit(self) -> None:
        self._reactor.forget(self._pidfd)
        self._reactor.cancel(self._deadline)
        status = self._bury()
        try:
            said = os.read(self._words, 2 * MOST_ANSWER)
        except BlockingIOError:
            said = b""
        os.close(self._words)
        os.close(self._pidfd)
        self.is_buried = True
        self._reactor.allowance.give_back(_DESCRIPTORS)
        if status == 0:
            self._tell(said, "")
        else:
            how = "nobody knows how" if status is None else f"with status {status}"
            self._tell(None, printable(said.decode("utf-8", "replace")) or f"it ended {how}")

    def _bury(self) -> int | None:
        """How it ended; None when somebody else has buried it."""
        self._reactor.children.discard(self._pid)
        try:
            return os.waitpid(self._pid, 0)[1]
        except ChildProcessError:
            return None


def _run(work: Callable[[], bytes], kept: Sequence[int], words: int, launcher: int) -> NoReturn:
    """In the process; never returns."""
    status = 1
    try:
        processes.end_with(launcher)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        # Some of the launcher's keep other sandboxes alive.
        _close_all_but([*kept, words])
        os.write(words, work()[:MOST_ANSWER])
        status = 0
    except BaseException as error:
        os.write(words, _describe(error).encode("utf-8", "replace")[:_MOST_WORDS])
    finally:
        os._exit(status)


def _describe(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return "it needs more memory than it may have"
    return error.strerror if isinstance(error, OSError) and error.strerror else repr(error)


def _close_all_but(kept: Sequence[int]) -> None:
    first = 3
    for descriptor in sorted(kept):
        os.closerange(first, descriptor)
        first = descriptor + 1
    os.closerange(first, os.sysconf("SC_OPEN_MAX"))
