"""All attacks of the test suite, while a server beside them has to keep answering: R4.

The attacks look after a neighbour on their own launcher, one after the other; what this adds is a whole server on the
same machine, with environments at work, that is asked all the time.
"""

import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.sandgate_server import create, execute
from tests.crash.server_process import CrashServer

_ROOT = Path(__file__).resolve().parents[2]
_NAMED = re.compile(r"`((?:contract/)?runtime/\w+\.py::\w+)`")
_PAUSE_S = 0.02
#: Nothing may take longer, however many attack.
_LATEST_S = 15.0
_SETTINGS = {"SANDGATE_SPARE_SANDBOXES": "2", "SANDGATE_MOST_SPARE_SANDBOXES": "2"}


@dataclass
class Probe:
    """Asks for the service's health and runs code in a neighbour, again and again, in a thread of its own."""

    server: CrashServer
    answers: int = 0
    slowest_s: float = 0.0
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="probe")

    def __enter__(self) -> "Probe":
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._ask_until_told()
        except BaseException as failure:
            self.problems.append(f"the server stopped answering: {failure!r}")

    def _ask_until_told(self) -> None:
        with self.server.connect() as connection:
            neighbour = create(connection, "python")
            execute(connection, neighbour, {"code": "open('kept', 'w').write('mine')"})
            while not self._stop.wait(_PAUSE_S):
                self._time(lambda: connection.expect(200, "GET", "/readyz"))
                answer = self._time(lambda: execute(connection, neighbour, {"code": "print(open('kept').read())"}))
                if answer["stdout"] != "mine\n":
                    self.problems.append(f"the neighbour's file is not what it was: {answer}")

    def _time(self, ask: Callable[[], dict[str, object]]) -> dict[str, object]:
        begun = time.monotonic()
        answer = ask()
        taken_s = time.monotonic() - begun
        self.answers += 1
        self.slowest_s = max(self.slowest_s, taken_s)
        if taken_s > _LATEST_S:
            self.problems.append(f"an answer took {taken_s:.1f} s")
        return answer


def find_attacks() -> Sequence[str]:
    """All of tests/security, and what docs/security.md names of the tests of walls and limits."""
    named = set(_NAMED.findall((_ROOT / "docs" / "security.md").read_text(encoding="utf-8")))
    return ["tests/security", *sorted(f"tests/{name}" for name in named)]


def besiege(more: Sequence[str] = ()) -> tuple[Probe, str]:
    """Run them; ``more`` are further arguments of pytest. Fails when one got through, or somebody was not answered.

    Answers what was seen meanwhile, and pytest's last line.
    """
    with CrashServer(_SETTINGS) as server, Probe(server) as probe:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *find_attacks(), *more]
        done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"an attack got through, or could not be tried:\n{done.stdout[-8000:]}"
    assert not probe.problems, "\n".join(probe.problems)
    return probe, done.stdout.strip().splitlines()[-1]
