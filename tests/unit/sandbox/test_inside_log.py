"""What comes from inside reaches the log in lines that can do no harm there."""

import os

import pytest

from sandgate.sandbox.launcher.inside_log import InsideLog
from sandgate.sandbox.launcher.reactor import Reactor


def test_lines_are_made_harmless_and_the_last_one_is_kept(capfd: pytest.CaptureFixture[str]) -> None:
    """Also what was written just before the end; the descriptor is closed with it."""
    reading, writing = os.pipe()
    log = InsideLog(Reactor(), reading, "zygote x")
    os.write(writing, b"one\n\n\x1b[2Jtwo\xff\n" + b"y" * 600)
    os.close(writing)
    log.close()
    assert log.last_words == "y" * 500
    assert capfd.readouterr().err.splitlines() == [
        "launcher: zygote x: one", "launcher: zygote x:  [2Jtwo ", f"launcher: zygote x: {'y' * 500}"
    ]  # fmt: skip
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(reading)


def test_a_flood_does_not_fill_the_log(capfd: pytest.CaptureFixture[str]) -> None:
    """It is read on, so that nobody waits, and not told."""
    reading, writing = os.pipe()
    log = InsideLog(Reactor(), reading, "zygote x")
    for _each in range(40):
        os.write(writing, b"z" * 4095 + b"\n")
        log._read()
    assert len(capfd.readouterr().err.splitlines()) == 16
    os.close(writing)
    log.close()
