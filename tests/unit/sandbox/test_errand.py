"""Processes of the launcher's own: told how they went, whoever buries them."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from sandgate.sandbox.launcher.errand import Errand
from sandgate.sandbox.launcher.reactor import Reactor

# In a process of its own, because strays are all children of the one that looks for them.
BESIDE_STRAYS = """
import os, subprocess, sys
from sandgate.sandbox.launcher.errand import Errand
from sandgate.sandbox.launcher.reactor import Reactor
from sandgate.sandbox.launcher.reclaim import kill_strays
reactor, (gate, opener) = Reactor(), os.pipe()
stray = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])

def then(said, reason):
    print(said, reason)
    reactor.stop()

Errand(reactor, lambda: os.read(gate, 9), [gate], 60.0, then)
kill_strays(reactor.children)
os.write(opener, b"whole")
reactor.run()
stray.wait(60)
print(reactor.children, reactor.allowance.held)
"""


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    """One that stops with a signal rather than never."""
    made = Reactor()
    late = made.call_later(120, lambda: os.kill(os.getpid(), signal.SIGALRM))
    yield made
    made.cancel(late)
    made._selector.close()


def test_who_looks_for_strays_leaves_it_alone() -> None:
    """What is left of sandboxes is killed; what works for the launcher is not."""
    ran = subprocess.run(
        [sys.executable, "-c", BESIDE_STRAYS], capture_output=True, text=True, timeout=120, check=False
    )
    assert (ran.stdout, ran.stderr) == ("b'whole' \nset() 0\n", "")


@pytest.mark.parametrize("said", [b"", b"whole"])
def test_one_that_somebody_else_has_buried(said: bytes, reactor: Reactor) -> None:
    """How it ended is not known: that is no success, and nothing of it is left."""
    told: list[tuple[bytes | None, str]] = []

    def then(answer: bytes | None, reason: str) -> None:
        told.append((answer, reason))
        reactor.stop()

    errand = Errand(reactor, lambda: said, [], 20.0, then)
    os.waitpid(errand._pid, 0)
    reactor.run()
    assert told == [(None, said.decode() or "it ended nobody knows how")]
    assert (errand.is_buried, reactor.children, reactor.allowance.held) == (True, set(), 0)
