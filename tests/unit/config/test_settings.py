"""The settings table: read once, refused when wrong, shown without secrets."""

import dataclasses
from contextlib import nullcontext
from pathlib import Path

import pytest
from pydantic import ValidationError

from sandgate.config import settings as table
from sandgate.config.groups.serving import default_state_folder
from sandgate.config.paths import database_location, interpreter_folders, keys_folder
from sandgate.config.settings import Settings, read_settings
from sandgate.core.errors import ConfigurationError
from sandgate.core.limits import Limits


def test_without_variables_every_setting_has_its_default() -> None:
    """Other programs' variables are not looked at."""
    assert read_settings({"PATH": "/bin", "sandgate_port": "1"}) == Settings()


def test_variables_set_and_options_override() -> None:
    """An option that was not given overrides nothing."""
    environ = {"SANDGATE_PORT": "1234", "SANDGATE_HOST": "::1", "SANDGATE_ALLOW_WEAK_ISOLATION": "1"}
    settings = read_settings(environ, {"port": 4321, "host": None})
    assert (settings.port, settings.host, settings.allow_weak_isolation) == (4321, "::1", True)


def test_everything_that_is_wrong_is_named_at_once() -> None:
    """One start shows all mistakes."""
    with pytest.raises(ConfigurationError) as refused:
        read_settings({"SANDGATE_PROT": "1", "SANDGATE_PORT": "70000", "SANDGATE_LOG_LEVEL": "loud"})
    for variable in ("SANDGATE_PROT is not a setting", "SANDGATE_PORT:", "SANDGATE_LOG_LEVEL:"):
        assert variable in refused.value.message


@pytest.mark.parametrize(("size", "is_taken"), [(0, True), (256, False), (1024, True)])
def test_a_file_of_a_few_bytes_is_meant_otherwise(size: int, is_taken: bool) -> None:
    """Nothing would work with such a limit."""
    with nullcontext() if is_taken else pytest.raises(ValidationError, match="1024 at least"):
        assert Settings(file_size_bytes=size).file_size_bytes == size


@pytest.mark.parametrize("name", ["SANDGATE_ADMIN_PASSWORD", "SANDGATE_DATABASE_URL"])
def test_secrets_are_never_shown(name: str) -> None:
    """Not when they are printed, and not when something else is wrong."""
    settings = read_settings({name: "hunter2hunter2"})
    assert "hunter2" not in repr(settings) + str(settings) + settings.model_dump_json()
    with pytest.raises(ConfigurationError) as refused:
        read_settings({name: "hunter2hunter2", "SANDGATE_PORT": "x"})
    assert "hunter2" not in refused.value.message


def test_a_retired_setting_says_what_to_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is silently without effect."""
    monkeypatch.setattr(table, "RETIRED", {"old_port": "use SANDGATE_PORT"})
    with pytest.raises(ConfigurationError, match="SANDGATE_OLD_PORT is no longer a setting: use SANDGATE_PORT"):
        read_settings({"SANDGATE_OLD_PORT": "1"})


def test_settings_are_frozen() -> None:
    """What was read at the start is in force to the end."""
    with pytest.raises(ValidationError):
        Settings().port = 1


def test_every_limit_can_be_set() -> None:
    """The limits of environments are settings of the same names, with the same defaults."""
    assert Settings().limits() == Limits()
    names = {field.name for field in dataclasses.fields(Limits)}
    assert names <= set(Settings.model_fields)
    changed = read_settings({f"SANDGATE_{name.upper()}": str(getattr(Limits(), name) // 2) for name in names})
    assert all(getattr(changed.limits(), name) == getattr(Limits(), name) // 2 for name in names)


@pytest.mark.parametrize("is_root", [True, False])
def test_the_state_is_where_it_belongs(monkeypatch: pytest.MonkeyPatch, is_root: bool) -> None:
    """The system's folder for root, the user's own for everybody else."""
    monkeypatch.setattr("os.geteuid", lambda: 0 if is_root else 1000)
    monkeypatch.setenv("XDG_DATA_HOME", "/data/ann")
    assert str(default_state_folder()) == ("/var/lib/sandgate" if is_root else "/data/ann/sandgate")


def test_places_in_the_state_folder() -> None:
    """The same for the server and the commands beside it."""
    settings = read_settings({"SANDGATE_STATE": "/srv/state", "SANDGATE_INTERPRETERS": "/opt/a::/opt/b"})
    assert database_location(settings) == Path("/srv/state/sandgate.db")
    assert keys_folder(settings) == Path("/srv/state/keys")
    assert interpreter_folders(settings) == (Path("/opt/a"), Path("/opt/b"))
    elsewhere = read_settings({"SANDGATE_DATABASE_URL": "postgresql://h/x"})
    assert database_location(elsewhere) == "postgresql://h/x"


def test_variables_of_clients_are_none_of_the_server() -> None:
    """A terminal that is set up to use a server may also start one."""
    assert read_settings(dict.fromkeys(table.CLIENT_VARIABLES, "x")) == Settings()
    assert not {name.removeprefix(table.PREFIX).lower() for name in table.CLIENT_VARIABLES} & set(Settings.model_fields)
