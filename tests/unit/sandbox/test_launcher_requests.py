"""The launcher at a request that it fails at."""

import os
from pathlib import Path

import pytest

from sandgate.core.ids import make_environment_id
from sandgate.sandbox.launcher import protocol
from sandgate.sandbox.launcher.config import LauncherConfig
from sandgate.sandbox.launcher.server import Launcher


@pytest.mark.parametrize("at_keeping", [False, True])
def test_a_request_that_fails_is_refused(
    at_keeping: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """With a word to who asked and one in the log; what came with it is closed, and the launcher goes on."""
    said = []
    config = LauncherConfig(Path("/nonexistent"), "none", 0, 0, 1, standard=False, templates=())
    launcher = Launcher(config)
    monkeypatch.setattr(launcher._reception, "send", lambda message, ends: said.append((message, ends)))
    monkeypatch.setattr(launcher, "_keep" if at_keeping else "_do", lambda *_arguments: [][1])
    reading, writing = os.pipe()
    keep = protocol.Keep(make_environment_id(), "t", 0, 1, 0, 60.0)
    launcher._act(7, keep if at_keeping else protocol.Hello(), [reading])
    error = "the launcher failed at it: IndexError('list index out of range')"
    assert said == [({"number": 7, "ok": False, "error": error}, [])]
    assert "Traceback" in capfd.readouterr().err
    with pytest.raises(BrokenPipeError):
        os.write(writing, b"x")
    os.close(writing)
