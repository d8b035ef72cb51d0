"""``sandgate user``: the accounts, straight in the database."""

import json
from pathlib import Path
from typing import Any

import pytest
import typer

from sandgate.cli import asking, user_commands
from tests.unit.cli.conftest import Command

PASSWORD = "right password\n"


def create(sandgate: Command, name: str, role: str = "user") -> dict[str, Any]:
    """A user, as the command describes it."""
    answer = sandgate("user", "create", name, "--role", role, "--password-stdin", "--json", stdin=PASSWORD)
    assert answer.code == 0, answer.err
    made: dict[str, Any] = json.loads(answer.out)
    return made


def listed(sandgate: Command) -> list[dict[str, Any]]:
    """All users."""
    users: list[dict[str, Any]] = json.loads(sandgate("user", "list", "--json").out)["users"]
    return users


def test_a_user_is_made_and_listed(sandgate: Command, state: Path) -> None:
    """In a database that is made for it, readable by its owner only; no hash is shown."""
    made = create(sandgate, "ann", "admin")
    assert (made["name"], made["role"], made["disabled"]) == ("ann", "admin", False)
    assert made["created_at"].endswith("Z")
    assert set(made) == {"user_id", "name", "role", "disabled", "created_at"}
    assert listed(sandgate) == [made]
    assert (state / "sandgate.db").stat().st_mode & 0o077 == 0


def test_a_person_gets_a_table(sandgate: Command) -> None:
    """One line each."""
    create(sandgate, "ann", "admin")
    assert sandgate("user", "create", "bob", "--password-stdin", stdin=PASSWORD).out == "The user bob was made.\n"
    lines = sandgate("user", "list").out.splitlines()
    assert [line.split()[:3] for line in lines] == [
        ["name", "role", "status"],
        ["bob", "user", "enabled"],
        ["ann", "admin", "enabled"],
    ]


def test_the_first_password_goes_with_its_successor(sandgate: Command, state: Path) -> None:
    """The file of the first start is of no use any more."""
    create(sandgate, "admin", "admin")
    file = state / "initial-admin-password"
    file.write_text("of the first start\n")
    assert sandgate("user", "set-password", "admin", "--password-stdin", stdin="another password\n").code == 0
    assert not file.exists()


def test_every_change_is_made(sandgate: Command) -> None:
    """Role, disabled, enabled, removed; by name or by id."""
    create(sandgate, "ann", "admin")
    bob = create(sandgate, "bob")
    assert sandgate("user", "set-role", "bob", "viewer").out == "The user bob has the role viewer.\n"
    assert sandgate("user", "disable", bob["user_id"]).out == "The user bob is disabled.\n"
    assert listed(sandgate)[0] == {**bob, "role": "viewer", "disabled": True}
    assert json.loads(sandgate("user", "enable", "bob", "--json").out)["disabled"] is False
    assert sandgate("user", "delete", "bob", "--yes").out == "The user bob was removed.\n"
    assert [user["name"] for user in listed(sandgate)] == ["ann"]


def test_more_users_than_a_page_are_all_listed(sandgate: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Page by page."""
    names = [f"user{number}" for number in range(5)]
    for name in names:
        create(sandgate, name)
    original = user_commands.LIST_PAGE
    monkeypatch.setattr(user_commands, "LIST_PAGE", 2)
    assert original == 200
    assert [user["name"] for user in listed(sandgate)] == names[::-1]


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "message"),
    [
        (["user", "create", "ann", "--password-stdin"], PASSWORD, 1, "'ann' already"),
        (["user", "create", "bad name", "--password-stdin"], PASSWORD, 2, "name: must be 1 to 64"),
        (["user", "create", "bob", "--password-stdin"], "short\n", 2, "password: must have 8 to 1024"),
        (["user", "create", "bob", "--password-stdin"], "", 2, "password: must have 8 to 1024"),
        (["user", "create", "bob", "--password-stdin"], "x" * 70_000, 2, "password: must have 8 to 1024"),
        (["user", "create", "bob"], PASSWORD, 2, "use --password-stdin"),
        (["user", "create", "bob", "--password", "x"], "", 2, "No such option"),
        (["user", "create", "bob", "--role", "king", "--password-stdin"], PASSWORD, 2, "king"),
        (["user", "set-password", "ann"], PASSWORD, 2, "use --password-stdin"),
        (["user", "disable", "ann"], "", 1, "last enabled admin"),
        (["user", "delete", "ann", "--yes"], "", 1, "last enabled admin"),
        (["user", "set-role", "ann", "user"], "", 1, "last enabled admin"),
        (["user", "delete", "ann"], "y\n", 2, "use --yes"),
        (["user", "enable", "nobody"], "", 1, "There is no user 'nobody'"),
        (["user", "disable", "' OR 1=1"], "", 1, "There is no user"),
        (["user", "disable", "\udcff\0"], "", 1, "There is no user '\\udcff\\x00'"),
        (["user"], "", 2, ""),
        (["user", "list", "extra"], "", 2, "extra"),
    ],
)
def test_refusals_are_one_clear_line(
    sandgate: Command, arguments: list[str], stdin: str, code: int, message: str
) -> None:
    """1 for what is refused or not found, 2 for a mistake in the call; nothing of the inside, nothing changed."""
    before = create(sandgate, "ann", "admin")
    answer = sandgate(*arguments, stdin=stdin)
    assert answer.code == code
    assert message in answer.err
    assert "Traceback" not in answer.err
    assert listed(sandgate) == [before]


def test_a_changed_password_is_the_one_that_counts(sandgate: Command, state: Path) -> None:
    """It is read to the end of the line and kept as it is."""
    create(sandgate, "ann", "admin")
    stdin = " another password \r\nsecond line\n"
    assert sandgate("user", "set-password", "ann", "--password-stdin", stdin=stdin).code == 0
    hashes = {word for word in (state / "sandgate.db").read_bytes().split(b"\0") if b"$argon2id$" in word}
    assert hashes or (state / "sandgate.db-wal").exists()


@pytest.mark.parametrize("command", [["list"], ["disable", "ann"], ["delete", "ann", "--yes"]])
def test_a_folder_without_a_database_is_not_made_one(sandgate: Command, state: Path, command: list[str]) -> None:
    """A mistyped folder must not answer that there are no users."""
    answer = sandgate("user", *command)
    assert answer.code == 1
    assert f"There is no database {state}/sandgate.db" in answer.err
    assert not state.exists()


def test_a_person_is_asked(sandgate: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a password twice and unseen, and before a user is removed."""
    asked: list[tuple[str, dict[str, Any]]] = []

    def prompt(text: str, **options: Any) -> str:
        asked.append((text, options))
        return "right password"

    def confirm(text: str, **options: Any) -> bool:
        asked.append((text, options))
        raise typer.Abort

    for module in (asking, user_commands):
        monkeypatch.setattr(module, "check_terminal", lambda _: None)
    monkeypatch.setattr(typer, "prompt", prompt)
    monkeypatch.setattr(typer, "confirm", confirm)
    assert sandgate("user", "create", "ann").code == 0
    assert sandgate("user", "delete", "ann").code == 1
    assert asked == [
        ("Password", {"hide_input": True, "confirmation_prompt": True}),
        ("Remove the user ann and all API keys of that user?", {"abort": True}),
    ]
    assert [user["name"] for user in listed(sandgate)] == ["ann"]
