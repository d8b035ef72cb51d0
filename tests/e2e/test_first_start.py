"""The first start of a server, from the password that it makes to the one that its owner chooses."""

import stat
from collections.abc import Iterator

import pytest

from bench.client import Connection, UnexpectedAnswer
from bench.sandgate_server import Server

pytestmark = pytest.mark.needs_root_namespaces


class FreshServer(Server):
    """A server that was given no password."""

    def _log_in(self) -> str:
        self.password = (self.state / "initial-admin-password").read_text().strip()
        return super()._log_in()


@pytest.fixture
def fresh() -> Iterator[FreshServer]:
    """Started for the first time."""
    with FreshServer({"SANDGATE_ADMIN_PASSWORD": ""}) as running:
        yield running


def test_the_first_password(fresh: FreshServer) -> None:
    """It is in a file for its owner only and in no log, logs in, and goes for good when it is changed."""
    file = fresh.state / "initial-admin-password"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert fresh.password not in fresh.log.read_text()
    assert str(file) in fresh.log.read_text()
    with fresh.connect() as connection:
        me = connection.expect(200, "GET", "/api/v1/me")
        assert (me["username"], me["role"]) == ("admin", "admin")
        connection.expect(200, "PATCH", f"/api/v1/users/{me['user_id']}", {"password": "chosen by its owner"})
    assert not file.exists()
    for password, status in ((fresh.password, 401), ("chosen by its owner", 200)):
        with Connection(fresh.port) as connection:
            connection.expect(status, "POST", "/api/v1/auth/token", {"username": "admin", "password": password})
    fresh.stop_process()
    fresh.start()
    assert not file.exists()


def test_another_database_removes_no_files(fresh: FreshServer) -> None:
    """A server whose state folder holds files that its database has never heard of does not start."""
    snapshot = fresh.state / "snapshots/snap-0123456789abcdef.tar"
    fresh.stop_process()
    snapshot.parent.mkdir(exist_ok=True)
    snapshot.write_text("kept")
    for path in fresh.state.glob("sandgate.db*"):
        path.rename(path.with_name(f"right-{path.name}"))
    with pytest.raises(UnexpectedAnswer, match="holds files of another database") as refused:
        fresh.start()
    assert str(snapshot.parent) in str(refused.value)
    assert snapshot.read_text() == "kept"
    snapshot.rename(fresh.folder / "moved-away")
    fresh.start()
