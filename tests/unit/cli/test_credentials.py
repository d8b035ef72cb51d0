"""Logins: where they are kept, and which one a command uses."""

import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from sandgate.cli.connection import Login, find_login
from sandgate.cli.credentials import Profile, change_profiles, credentials_path, read_profiles
from sandgate.cli.exits import NotLoggedIn, WrongUsage
from sandgate.core.errors import ConfigurationError
from sandgate.sdk.errors import InvalidAddress

HOME = Profile("http://127.0.0.1:8080", "ann", "sgk_home", "key-1", "2026-04-01T00:00:00Z")
WORK = Profile("https://work.example", "ann", "sgk_work")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file will be."""
    return credentials_path({"XDG_CONFIG_HOME": str(tmp_path / "config")})


def put(path: Path, **profiles: Profile) -> dict[str, str]:
    """Store logins; answers the variables that lead to them."""
    change_profiles(path, lambda stored: stored.update(profiles))
    return {"XDG_CONFIG_HOME": str(path.parent.parent)}


def test_the_file_is_where_the_standard_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In XDG_CONFIG_HOME when that is a whole path, otherwise in .config of the home folder."""
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    usual = tmp_path / ".config" / "sandgate" / "credentials.json"
    assert credentials_path({}) == credentials_path({"XDG_CONFIG_HOME": "relative"}) == usual
    assert credentials_path({"XDG_CONFIG_HOME": "/x"}) == Path("/x/sandgate/credentials.json")


def test_only_the_owner_can_read_it(path: Path) -> None:
    """The file 0600, its folder 0700, from the first moment and after a change; nothing else is left there."""
    for profile in (HOME, WORK):
        put(path, default=profile)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert [each.name for each in path.parent.iterdir()] == ["credentials.json"]
        assert read_profiles(path) == {"default": profile}
    assert "sgk_" not in repr(HOME)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_file_that_others_can_read_is_refused(path: Path, mode: int) -> None:
    """With the command that mends it."""
    put(path, default=HOME)
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match=f"chmod 600 {path}"):
        read_profiles(path)


def test_a_folder_that_others_can_read_is_refused(path: Path) -> None:
    """Nothing is written there."""
    path.parent.mkdir(parents=True, mode=0o755)
    with pytest.raises(ConfigurationError, match="chmod 700"):
        put(path, default=HOME)
    assert not path.exists()


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"version": 1}', '{"version": 1, "profiles": []}', '{"version": 1, "profiles": {"a": {}}}',
     '{"version": 1, "profiles": {"a": {"address": 1, "username": "x", "credential": "y"}}}',
     '{"version": 1, "profiles": {"a": {"address": "h", "username": "x", "credential": "y", "new": "z"}}}'],
)  # fmt: skip
def test_a_damaged_file_says_what_to_do(path: Path, text: str) -> None:
    """It is not overwritten either."""
    put(path, default=HOME)
    path.write_text(text)
    with pytest.raises(ConfigurationError, match="log in again"):
        read_profiles(path)
    with pytest.raises(ConfigurationError):
        put(path, default=HOME)
    assert path.read_text() == text


def test_a_file_of_a_newer_version_is_left_alone(path: Path) -> None:
    """Its meaning is not guessed."""
    put(path, default=HOME)
    path.write_text(json.dumps({"version": 2, "profiles": {}}))
    with pytest.raises(ConfigurationError, match="another version"):
        read_profiles(path)


PUT_MANY = """
import sys
from pathlib import Path
from sandgate.cli.credentials import Profile, change_profiles
for number in range(20):
    profile = Profile("http://host", "ann", "sgk_key")
    change_profiles(Path(sys.argv[1]), lambda stored: stored.update({f"{sys.argv[2]}-{number}": profile}))
"""


def test_processes_at_once_lose_nothing(path: Path) -> None:
    """What one writes, another keeps."""
    processes = [subprocess.Popen([sys.executable, "-c", PUT_MANY, path, name]) for name in ("a", "b", "c")]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert len(read_profiles(path)) == 60


def test_the_login_called_default_is_used(path: Path) -> None:
    """Another by its name in an option or a variable; the option is stronger."""
    environ = put(path, default=HOME, work=WORK)
    home, work = Login(HOME.address, "sgk_home", "default"), Login(WORK.address, "sgk_work", "work")
    assert find_login(environ) == home
    assert find_login(environ, "work") == work
    assert find_login(environ | {"SANDGATE_PROFILE": "work"}) == work
    assert find_login(environ | {"SANDGATE_PROFILE": "work"}, "default") == home


def test_variables_win_over_the_file_and_options_over_both(path: Path) -> None:
    """A key and a token are the same to a server; the key comes first."""
    environ = put(path, default=HOME, work=WORK)
    given = environ | {"SANDGATE_URL": "https://ci.example/", "SANDGATE_TOKEN": "token"}
    assert find_login(given) == Login("https://ci.example", "token")
    assert find_login(given | {"SANDGATE_API_KEY": "key"}).credential == "key"
    assert find_login(given | {"SANDGATE_PROFILE": "work"}) == Login("https://ci.example", "token")
    assert find_login(given, "work") == Login(WORK.address, "sgk_work", "work")
    empty = environ | {"SANDGATE_URL": "", "SANDGATE_TOKEN": "", "SANDGATE_API_KEY": ""}
    assert find_login(empty).profile == "default"


def test_half_of_a_login_is_completed_where_it_fits(path: Path) -> None:
    """A stored credential goes to its own server only; a credential without a server needs one that is known."""
    environ = put(path, default=HOME, work=WORK)
    assert find_login(environ | {"SANDGATE_API_KEY": "key"}) == Login(HOME.address, "key")
    assert find_login(environ | {"SANDGATE_URL": f"{HOME.address}/"}).credential == "sgk_home"
    work = {"SANDGATE_URL": WORK.address, "SANDGATE_PROFILE": "work"}
    assert find_login(environ | work).credential == "sgk_work"
    with pytest.raises(NotLoggedIn, match="no login called default is of that server"):
        find_login(environ | {"SANDGATE_URL": "https://evil.example"})
    with pytest.raises(NotLoggedIn, match="set SANDGATE_URL"):
        find_login({"XDG_CONFIG_HOME": "/nowhere", "SANDGATE_TOKEN": "t"})


def test_without_a_login_it_is_said_how_to_get_one(path: Path) -> None:
    """With the names that there are, when another was asked for."""
    environ = put(path, default=HOME)
    with pytest.raises(NotLoggedIn, match=r"there are: default\. Log in with: sandgate login --profile work"):
        find_login(environ, "work")
    with pytest.raises(NotLoggedIn, match=r"Log in with: sandgate login$"):
        find_login({"XDG_CONFIG_HOME": "/nowhere"})
    with pytest.raises(WrongUsage):
        find_login(environ, "../work")
    with pytest.raises(InvalidAddress):
        find_login(environ | {"SANDGATE_URL": "nonsense", "SANDGATE_TOKEN": "t"})
