"""The last word of a process that must not end because of it."""

import errno
import io
import sys
from typing import Any

import pytest

from sandgate.core.last_resort import say


class _Full(io.StringIO):
    """On a disk without room."""

    def write(self, _text: str) -> int:
        """Nothing fits."""
        raise OSError(errno.ENOSPC, "No space left on device")


def _closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("stream", [_Full(), _closed(), None])
def test_nobody_ends_because_nothing_can_be_said(stream: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk, a stream that is closed, none at all."""
    monkeypatch.setattr(sys, "stderr", stream)
    say("unheard")


def test_what_can_be_said_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """At once, as a line."""
    say("heard")
    assert capsys.readouterr().err == "heard\n"
