"""The decisions of ``scripts/run`` before it starts a server."""

import socket
from pathlib import Path

import pytest

from sandgate.cli import demo


def test_a_taken_port_is_passed_over() -> None:
    """A second checkout finds a port of its own beside the first."""
    with socket.create_server((demo.HOST, 0)) as taken:
        port = taken.getsockname()[1]
        assert demo.find_port(port) > port


def test_no_free_port_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the way out."""
    monkeypatch.setattr(demo, "PORTS", 1)
    with socket.create_server((demo.HOST, 0)) as taken, pytest.raises(demo.DemoFailedError, match="--port"):
        demo.find_port(taken.getsockname()[1])


def test_a_strong_server_keeps_the_settings_of_the_caller() -> None:
    """Where it serves is decided here, everything else by whoever calls, and nothing makes it weaker."""
    environ = {"SANDGATE_PROCESSES": "8", "SANDGATE_PORT": "1", "SANDGATE_LOG_LEVEL": "debug"}
    made = demo.server_environ(environ, Path("/state"), 8085, weak=False)
    assert made == environ | {
        "SANDGATE_HOST": "127.0.0.1",
        "SANDGATE_PORT": "8085",
        "SANDGATE_STATE": "/state",
    }


def test_a_weak_server_stays_on_loopback() -> None:
    """A machine without walls serves nobody but itself, whatever the caller's settings say."""
    made = demo.server_environ({"SANDGATE_HOST": "0.0.0.0"}, Path("/state"), 8085, weak=True)
    assert made["SANDGATE_HOST"] == "127.0.0.1"
    assert (made["SANDGATE_ALLOW_WEAK_ISOLATION"], made["SANDGATE_ISOLATION"]) == ("1", "process")


def test_the_password_is_looked_for_where_the_server_puts_it(tmp_path: Path) -> None:
    """A given one comes first; one that was cleared away is no error."""
    assert demo.find_password({}, tmp_path) is None
    (tmp_path / "initial-admin-password").write_text("from-the-file\n")
    assert demo.find_password({}, tmp_path) == "from-the-file"
    assert demo.find_password({"SANDGATE_ADMIN_PASSWORD": "given"}, tmp_path) == "given"


def test_steps_that_run_side_by_side_are_shown_so() -> None:
    """Bars begin and end where the steps do; what has not run has none."""

    def ran(begin: int, end: int) -> dict[str, str]:
        return {
            "started_at": f"2026-01-01T00:00:00.{begin:03}000Z",
            "finished_at": f"2026-01-01T00:00:00.{end:03}000Z",
        }

    steps = [
        {"name": "a", "items": None, **ran(100, 116)},
        {"name": "b", "items": [{"index": 0, **ran(116, 124)}, {"index": 1, **ran(116, 132)}], **ran(116, 132)},
        {"name": "c", "items": None, "started_at": None, "finished_at": None},
    ]
    lines = demo.timeline({"steps": steps})
    assert [line.split()[0] for line in lines] == ["a", "b[0]", "b[1]"]
    bars = [line[23 : 23 + demo.TIMELINE_COLUMNS] for line in lines]
    half = demo.TIMELINE_COLUMNS // 2
    assert bars == ["█" * half + " " * half, " " * half + "█" * 8 + " " * 8, " " * half + "█" * half]
    assert demo.timeline({"steps": []}) == []
