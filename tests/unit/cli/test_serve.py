"""What ``sandgate serve`` says when it serves."""

import io
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandgate.assembly import Started
from sandgate.auth.first_admin import FirstAdmin
from sandgate.cli.serve import _announce, _most_sandboxes, _spare_counts, find_container_runtime
from sandgate.config.settings import Settings
from sandgate.core.errors import IsolationUnavailable
from sandgate.core.states import Isolation


class Terminal(io.StringIO):
    """Standard output with a person in front of it."""

    def isatty(self) -> bool:
        """It is."""
        return True


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """The socket that is served."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound


def _said(monkeypatch: pytest.MonkeyPatch, listener: socket.socket, out: io.StringIO, admin: FirstAdmin | None) -> str:
    monkeypatch.setattr(sys, "stdout", out)
    _announce(listener, Started(admin))
    return out.getvalue()


@pytest.mark.parametrize(("out", "shown"), [(Terminal(), True), (io.StringIO(), False)])
def test_the_first_password_is_shown_to_a_person_only(
    monkeypatch: pytest.MonkeyPatch, listener: socket.socket, out: io.StringIO, shown: bool
) -> None:
    """On a terminal once; never in what is kept as a log, which is told where it is."""
    said = _said(monkeypatch, listener, out, FirstAdmin("admin", "random-password", Path("/state/file")))
    assert ("random-password" in said) is shown
    assert "/state/file" in said
    assert f"http://127.0.0.1:{listener.getsockname()[1]}/docs" in said


def test_a_given_password_is_not_repeated(monkeypatch: pytest.MonkeyPatch, listener: socket.socket) -> None:
    """Whoever set it knows it; later starts say nothing of passwords."""
    said = _said(monkeypatch, listener, Terminal(), FirstAdmin("admin", "given-password", None))
    assert "given-password" not in said
    assert "SANDGATE_ADMIN_PASSWORD" in said
    assert "password" not in _said(monkeypatch, listener, Terminal(), None)


def test_spares_take_no_place_from_environments(tmp_path: Path) -> None:
    """Not even when every template has as many as it may; and all stay within the ids of the server."""
    settings = Settings(state=tmp_path, max_environments=100, gvisor_spare_sandboxes=3)
    assert _most_sandboxes(settings, 6, 64) == 100 + 6 * (64 + 3)
    assert _most_sandboxes(settings, 6, 0) == 100 + 6 * 3
    most = _most_sandboxes(settings.model_copy(update={"max_environments": 40_000}), 6, 64)
    assert 65_536 - 3 < most * 3 + 256 + 16 <= 65_536


def test_few_spares_where_each_holds_more_than_memory(tmp_path: Path) -> None:
    """In the process class, and of environments on the disk; what is set holds everywhere."""
    settings = Settings(state=tmp_path)
    on_disk = settings.model_copy(update={"environment_disk": "image"})
    assert max(_spare_counts(settings, Isolation.PROCESS)) <= 20
    assert max(_spare_counts(on_disk, Isolation.STANDARD)) <= 20
    many = on_disk.model_copy(update={"spare_sandboxes": 70, "most_spare_sandboxes": 80})
    assert _spare_counts(many, Isolation.PROCESS) == (70, 80)


@pytest.mark.parametrize(
    ("wanted", "isolation"),
    [
        ({}, Isolation.GVISOR),
        ({"gvisor_templates": "python"}, Isolation.STANDARD),
        ({"gvisor_platform": "ptrace"}, Isolation.STANDARD),
        ({}, Isolation.STANDARD),
    ],
)
def test_a_class_that_was_asked_for_has_to_be_there(
    tmp_path: Path, wanted: dict[str, str], isolation: Isolation
) -> None:
    """Without ``runsc`` a server that needs it does not start, and one that could do with it has one class less."""
    absent = tmp_path / "runsc"
    absent.write_text("#!/bin/sh\nexit 1\n")
    absent.chmod(0o755)
    settings = Settings.model_validate({"state": tmp_path, "runsc": str(absent), **wanted})
    with pytest.raises(IsolationUnavailable, match="sandgate doctor"):
        find_container_runtime(settings, isolation)
    assert find_container_runtime(settings, Isolation.PROCESS) is None
