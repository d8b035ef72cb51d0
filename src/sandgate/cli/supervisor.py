"""The process that ``sandgate serve`` is: keeps a gateway and a launcher running, and ends both in order.

It does nothing else, so that nothing else can end it. The gateway dies with it; the launcher does not, and is found
again by the next start, with its sandboxes.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress

from sandgate.cli.early_gateway import end_with
from sandgate.core.errors import MechanismFault
from sandgate.core.last_resort import say
from sandgate.sandbox.launcher import reclaim, starter
from sandgate.sandbox.launcher.config import LauncherConfig

# A gateway that cannot start says so with this code, and is not started again.
EXIT_REFUSED = 78
# One that finds a part of the machine away says so with this one. A server that had been started waits for the part.
EXIT_UNAVAILABLE = 75
_UNAVAILABLE_PAUSE_S = 0.5
_QUICK_DEATH_S = 5.0
_MOST_QUICK_DEATHS = 5
_LAUNCHER_PAUSE_S = 0.2
_LAUNCHER_GONE_LIMIT_S = 10.0


class Supervisor:
    """``run_gateway()`` runs in the forked gateway process and answers its exit code.

    ``start_first()`` answers the process id of the first one, where that has been forked already.
    """

    def __init__(
        self,
        config: LauncherConfig,
        start_launcher: Callable[[], subprocess.Popen[str]],
        run_gateway: Callable[[], int],
        start_first: Callable[[], int] | None = None,
    ) -> None:
        self._config = config
        self._start_launcher = start_launcher
        self._run_gateway = run_gateway
        self._start_first = start_first
        self._launcher: subprocess.Popen[str] | None = None
        self._gateway = -1
        self._stopping = False
        self._forks = 0
        self._quick_deaths = 0

    def run(self) -> int:
        """Serve until told to stop; the exit code. Raises ``MechanismFault`` when no launcher can be started."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        # The gateway takes longer to start, and waits for the launcher.
        self._fork_gateway()
        if not starter.is_running(self._config):
            self._start_first_launcher()
        code = self._watch()
        if code == EXIT_REFUSED and self._launcher is None:
            # What an earlier server left is found by one that can be started.
            return code
        self._end_launcher(asked=code != 0)
        return code

    def _start_first_launcher(self) -> None:
        try:
            self._launcher = self._start_launcher()
        except MechanismFault:
            os.kill(self._gateway, signal.SIGKILL)
            os.waitpid(self._gateway, 0)
            raise

    def _on_stop(self, _number: int, _frame: object) -> None:
        self._stopping = True
        if self._gateway > 0:
            os.kill(self._gateway, signal.SIGTERM)

    def _fork_gateway(self) -> None:
        self._born = time.monotonic()
        self._forks += 1
        start, self._start_first = self._start_first or os.fork, None
        # Until the gateway has handlers of its own it must not answer for its parent.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT])
        self._gateway = start()
        if self._gateway == 0:
            end_with(self._be_gateway)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM, signal.SIGINT])

    def _be_gateway(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        # A terminal's Ctrl-C goes to the whole foreground; the supervisor passes it on once.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        return self._run_gateway()

    def _watch(self) -> int:
        """Wait for ends and start again what should not have ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                pid, status = 0, 0
            if pid == 0:
                # A signal ends the wait early; the limit finds a launcher that is no child of this process.
                time.sleep(1.0) if not self._is_launcher_missing() else self._revive_launcher()
            elif pid == self._gateway:
                code = self._on_gateway_end(os.waitstatus_to_exitcode(status))
                if code is not None:
                    return code
            elif self._launcher is not None and pid == self._launcher.pid:
                self._launcher.returncode = os.waitstatus_to_exitcode(status)
                self._launcher = None

    def _is_launcher_missing(self) -> bool:
        return not self._stopping and self._launcher is None and not starter.is_running(self._config)

    def _revive_launcher(self) -> None:
        say("sandgate: the launcher died; starting it again")
        try:
            self._launcher = self._start_launcher()
        except MechanismFault as error:
            say(f"sandgate: {error}")
            time.sleep(_LAUNCHER_PAUSE_S)

    def _on_gateway_end(self, code: int) -> int | None:
        """The exit code of the server; None when the gateway is started again."""
        self._gateway = -1
        if self._stopping or code in (0, EXIT_REFUSED):
            return code
        if code == EXIT_UNAVAILABLE:
            return self._wait_for_what_is_away()
        self._quick_deaths = self._quick_deaths + 1 if time.monotonic() - self._born < _QUICK_DEATH_S else 1
        if self._quick_deaths >= _MOST_QUICK_DEATHS:
            say(f"sandgate: the gateway died {self._quick_deaths} times in a row; giving up")
            return 1
        say(f"sandgate: the gateway died ({code}); starting it again")
        self._fork_gateway()
        return None

    def _wait_for_what_is_away(self) -> int | None:
        """The database, as a rule. It ends a start, and holds up a server that had been serving."""
        if self._forks == 1:
            return EXIT_REFUSED
        time.sleep(_UNAVAILABLE_PAUSE_S)
        if self._stopping:
            return 0
        self._quick_deaths = 0
        self._fork_gateway()
        return None

    def _end_launcher(self, *, asked: bool) -> None:
        """The gateway has ended it if all went well; otherwise it is ``asked`` here, whoever started it."""
        if self._launcher is not None:
            self._launcher.terminate()
            try:
                self._launcher.wait(_LAUNCHER_GONE_LIMIT_S)
            except subprocess.TimeoutExpired:
                self._launcher.kill()
                self._launcher.wait()
        elif asked:
            starter.shut_down(self._config, _LAUNCHER_GONE_LIMIT_S)
        else:
            starter.wait_until_gone(self._config, _LAUNCHER_GONE_LIMIT_S)
        if not starter.is_running(self._config):
            # One that died just before the stop has had no successor to clean up after it.
            with suppress(MechanismFault, OSError):
                reclaim.remove_traces(self._config)
