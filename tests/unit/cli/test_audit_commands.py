"""``sandgate audit``, and what other commands tell the audit log."""

import asyncio
import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest

from sandgate.cli import audit_commands
from sandgate.cli import state as state_folder
from sandgate.cli.audit_commands import audited
from sandgate.core.errors import StoreUnavailable
from sandgate.store.base import AuditFilter
from sandgate.store.sql_store import SqlStore
from sandgate.testing.faults import PlannedFaults
from sandgate.testing.faulty_store import FaultyStore
from tests.unit.cli.conftest import Command
from tests.unit.cli.test_user_commands import create

SECRET = "a canary of a password"


def _entries(sandgate: Command, *options: str) -> list[dict[str, Any]]:
    answer = sandgate("audit", "list", "--json", *options)
    assert answer.code == 0, answer.err
    found: list[dict[str, Any]] = json.loads(answer.out)["entries"]
    return found


def test_commands_that_change_something_are_told(sandgate: Command) -> None:
    """With whose account of the machine they ran in, and without any password."""
    user = create(sandgate, "ann", "admin")
    create(sandgate, "bob")
    for command in (
        ["set-password", "bob", "--password-stdin"],
        ["set-role", "bob", "viewer"],
        ["disable", "bob"],
        ["enable", "bob"],
        ["delete", "bob", "--yes"],
    ):
        assert sandgate("user", *command, stdin=f"{SECRET}\n").code == 0
    assert sandgate("keys", "rotate").code == 0
    entries = _entries(sandgate)
    assert [entry["action"] for entry in entries][::-1] == [
        "create_user", "create_user", "update_user", "update_user", "update_user", "update_user", "delete_user",
        "rotate_keys",
    ]  # fmt: skip
    assert {(entry["credential"], entry["outcome"], bool(entry["username"])) for entry in entries} == {
        ("command", "done", True)
    }
    assert entries[-1]["resource_id"] == user["user_id"]
    assert entries[-1]["details"] == {"username": "ann", "role": "admin"}
    assert entries[4]["details"] == {"role": "viewer"}
    assert SECRET not in json.dumps(entries)


async def _change(state: Path, *faults: str) -> list[str]:
    """What the log tells of, newest first, after a change whose entry met with these."""
    planned = PlannedFaults(*faults)
    settings = state_folder.read(state=state, database_url=None)
    async with state_folder.opened_store(settings) as store:
        async with audited(settings, cast(SqlStore, FaultyStore(store, planned)), "rotate_keys"):
            pass
        assert not planned.waiting
        return [row.entry.action for row in await store.audit.list(AuditFilter(), None, 10)]


def test_what_was_done_is_told_as_soon_as_the_log_can_be_had(sandgate: Command, state: Path) -> None:
    """Once, also when nobody knows whether it was written; a server may have the log's end meanwhile."""
    create(sandgate, "ann", "admin")
    told = asyncio.run(_change(state, "audit.append.before=fail@1", "audit.append.after=unknown@1"))
    assert told == ["rotate_keys", "create_user"]


def test_what_cannot_be_told_is_said(sandgate: Command, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That it is done nevertheless, so that nobody does it again."""
    create(sandgate, "ann", "admin")
    monkeypatch.setattr(audit_commands, "_PATIENCE_S", 0.0)
    with pytest.raises(StoreUnavailable, match=r"^It is done \(rotate_keys\), but could not be told"):
        asyncio.run(_change(state, "audit.append.before=fail@1"))


def test_a_command_that_is_refused_changes_and_tells_nothing(sandgate: Command) -> None:
    """Nobody but the terminal was asked."""
    create(sandgate, "ann", "admin")
    assert sandgate("user", "disable", "ann").code == 1
    assert len(_entries(sandgate)) == 1


def test_entries_are_listed_for_people(sandgate: Command) -> None:
    """One line each; narrowed by name and by what was done."""
    create(sandgate, "ann", "admin")
    create(sandgate, "bob")
    lines = sandgate("audit", "list").out.splitlines()
    assert lines[0].split() == ["number", "at", "who", "action", "what", "outcome", "from"]
    assert [line.split()[0] for line in lines[1:]] == ["2", "1"]
    assert len(_entries(sandgate, "--limit", "1")) == 1
    assert _entries(sandgate, "--action", "delete_user") == []
    assert _entries(sandgate, "--user", "ann") == []


def test_what_was_done_to_the_log_is_found(sandgate: Command, state: Path) -> None:
    """Which row it was stands in the answer, and the exit code is 1."""
    for name in ("ann", "bob", "cay"):
        create(sandgate, name, "admin")
    right = sandgate("audit", "verify")
    assert (right.code, right.out.splitlines()[0]) == (0, "3 rows were looked at: nothing is missing or changed.")
    end = right.out.splitlines()[1].removeprefix("End: ")
    assert sandgate("audit", "verify", "--expect", end).code == 0
    shutil.copy(state / "sandgate.db", state.parent / "older.db")
    with closing(sqlite3.connect(state / "sandgate.db")) as database:
        database.executescript(
            "DROP TRIGGER audit_log_keeps_rows; UPDATE audit_log SET actor_name = 'eve' WHERE number = 2;"
        )
    wrong = sandgate("audit", "verify", "--json")
    found = json.loads(wrong.out)
    assert (wrong.code, found["rows"], len(found["problems"])) == (1, 3, 1)
    assert found["problems"][0].startswith("Row 2 (audit-")


def test_an_older_copy_is_found_by_who_kept_the_end(sandgate: Command, state: Path) -> None:
    """It is whole by itself."""
    create(sandgate, "ann", "admin")
    older = state.parent / "older.db"
    with closing(sqlite3.connect(state / "sandgate.db")) as source, closing(sqlite3.connect(older)) as target:
        source.backup(target)
    create(sandgate, "bob")
    end = json.loads(sandgate("audit", "verify", "--json").out)["end"]
    for suffix in ("-wal", "-shm"):
        (state / f"sandgate.db{suffix}").unlink(missing_ok=True)
    older.replace(state / "sandgate.db")
    assert sandgate("audit", "verify").code == 0
    told = sandgate("audit", "verify", "--expect", end)
    assert (told.code, told.out.splitlines()[0]) == (1, "Row 2 is missing")
    assert sandgate("audit", "verify", "--expect", "x").code == 2


def test_another_key_adds_nothing(sandgate: Command, state: Path) -> None:
    """A log that goes on with another key could not be verified any more."""
    create(sandgate, "ann", "admin")
    key = state / "keys" / "derived-secrets.key"
    kept = key.read_bytes()
    key.unlink()
    assert "is not in" in sandgate("audit", "verify").err
    refused = sandgate("user", "create", "bob", "--password-stdin", stdin="right password\n")
    assert (refused.code, "The key of the audit log is not in" in refused.err) == (1, True)
    key.touch(0o600)
    key.write_bytes(b"A" * 43 + b"=\n")
    assert "are not those of the audit log" in sandgate("user", "disable", "ann").err
    key.write_bytes(kept)
    assert sandgate("audit", "verify").code == 0
