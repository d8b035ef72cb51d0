"""Signing keys: kept private, rotated beside a running server."""

import json
import os
import stat
import threading
from pathlib import Path

import pytest

from sandgate.auth.keys import LONGEST_TOKEN_S, KeyRing
from sandgate.auth.tokens import Tokens
from sandgate.config.settings import Settings
from sandgate.core.clock import ManualClock
from sandgate.core.errors import ConfigurationError
from sandgate.core.ids import make_user_id


def open_ring(folder: Path, clock: ManualClock) -> KeyRing:
    """A ring, as one process has it."""
    ring = KeyRing(folder / "keys", clock)
    ring.open()
    return ring


@pytest.fixture
def ring(tmp_path: Path, clock: ManualClock) -> KeyRing:
    """The ring of the server."""
    return open_ring(tmp_path, clock)


def test_a_first_key_is_made_and_kept(tmp_path: Path, clock: ManualClock, ring: KeyRing) -> None:
    """It has 256 bits, and the next start finds it."""
    assert len(ring.active().secret) == 32
    assert open_ring(tmp_path, clock).active() == ring.active()


def test_nobody_else_can_read_keys(tmp_path: Path, ring: KeyRing) -> None:
    """Folder 0700, files 0600, and nothing besides the keys is left there."""
    files = list((tmp_path / "keys").iterdir())
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
    assert [stat.S_IMODE(path.stat().st_mode) for path in files] == [0o600]
    assert [path.name for path in files] == [f"{ring.active().kid}.json"]


def test_the_secret_is_never_shown(ring: KeyRing) -> None:
    """Not even when a key is printed."""
    assert "secret" not in repr(ring.active())


@pytest.mark.parametrize(("mode", "target"), [(0o755, "folder"), (0o640, "file"), (0o604, "file"), (0o770, "folder")])
def test_keys_that_others_can_read_are_refused(
    tmp_path: Path, clock: ManualClock, ring: KeyRing, mode: int, target: str
) -> None:
    """The server does not start, and says what to run."""
    folder = tmp_path / "keys"
    path = folder if target == "folder" else next(folder.iterdir())
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match=f"chmod [67]00 {path}"):
        open_ring(tmp_path, clock)


def test_a_key_behind_a_symbolic_link_is_refused(tmp_path: Path, clock: ManualClock, ring: KeyRing) -> None:
    """Nobody can have another file read as a key."""
    path = next((tmp_path / "keys").iterdir())
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError):
        open_ring(tmp_path, clock)


@pytest.mark.parametrize(
    "change",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        {"secret": "AAAA"},
        {"secret": "!"},
        {"secret": 1},
        {"kid": "key-00000000000000000000000000"},
        {"generation": "x"},
        {"created_at": "yesterday"},
    ],
)
def test_what_is_no_key_is_refused(tmp_path: Path, clock: ManualClock, ring: KeyRing, change: object) -> None:
    """A broken, short or renamed key stops the start with the file's name and without its content."""
    path = next((tmp_path / "keys").iterdir())
    fields = json.loads(path.read_bytes())
    path.write_bytes(change if isinstance(change, bytes) else json.dumps({**fields, **change}).encode())  # type: ignore[dict-item]
    with pytest.raises(ConfigurationError) as refused:
        open_ring(tmp_path, clock)
    assert str(path) in refused.value.message
    assert fields["secret"] not in refused.value.message


def test_rotation_logs_nobody_out(clock: ManualClock, ring: KeyRing) -> None:
    """New tokens are signed by the new key, old ones are good for as long as they last."""
    tokens = Tokens(ring, clock, lifetime_s=3600)
    before = ring.active()
    old = tokens.issue(make_user_id(), clock.now()).access_token
    assert ring.rotate() == ring.active() != before
    assert Tokens(ring, clock, lifetime_s=3600).verify(old)
    assert tokens.verify(tokens.issue(make_user_id(), clock.now()).access_token)


def test_a_running_server_sees_a_rotation(tmp_path: Path, clock: ManualClock, ring: KeyRing) -> None:
    """The command line rotates in another process: a second later the server signs with the new key."""
    before = ring.active()
    rotated = open_ring(tmp_path, clock).rotate()
    assert ring.active() == before
    clock.advance(1)
    assert ring.active() == rotated


def test_an_unknown_key_is_looked_for_at_once(tmp_path: Path, clock: ManualClock, ring: KeyRing) -> None:
    """A gateway that has rotated and its neighbour that has not looked yet understand each other."""
    assert ring.find(open_ring(tmp_path, clock).rotate().kid) is not None
    assert ring.find("key-" + "0" * 26) is None
    assert ring.find("../keys") is None


def test_the_folder_is_looked_at_once_a_second(
    ring: KeyRing, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many tokens are verified."""
    looks: list[Path] = []
    original = os.listdir

    def list_folder(path: Path) -> list[str]:
        looks.append(path)
        return original(path)

    monkeypatch.setattr(os, "listdir", list_folder)
    for _ in range(5):
        clock.advance(0.5)
        for _ in range(100):
            ring.find(ring.active().kid)
    assert len(looks) == 2


def test_outlived_keys_are_removed(tmp_path: Path, clock: ManualClock, ring: KeyRing) -> None:
    """A key goes when its successor has signed for longer than any token lives, not before."""
    first = ring.active()
    second = ring.rotate()
    clock.advance(LONGEST_TOKEN_S - 1)
    third = ring.rotate()
    assert {ring.find(key.kid) for key in (first, second, third)} == {first, second, third}
    clock.advance(2)
    fourth = ring.rotate()
    assert ring.find(first.kid) is None
    assert len(list((tmp_path / "keys").iterdir())) == 3
    assert ring.active() == fourth


def test_a_known_secret_can_be_dropped_at_once(tmp_path: Path, clock: ManualClock, ring: KeyRing) -> None:
    """``drop_old`` ends every token, also in a server that is running."""
    old = ring.active()
    open_ring(tmp_path, clock).rotate(drop_old=True)
    clock.advance(1)
    assert ring.find(old.kid) is None
    assert ring.active() != old


def test_a_clock_that_went_back_does_not_bring_back_an_old_key(clock: ManualClock, ring: KeyRing) -> None:
    """Which key signs is decided by counting, not by the time of day."""
    ring.rotate()
    clock.advance(-86_400)
    rotated = ring.rotate()
    assert ring.active() == rotated


def test_rotations_at_the_same_time_end_in_one_active_key(tmp_path: Path, clock: ManualClock, ring: KeyRing) -> None:
    """Every process sees the same key as active, whoever was first."""
    rings = [open_ring(tmp_path, clock) for _ in range(4)]
    threads = [threading.Thread(target=each.rotate) for each in rings]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    clock.advance(1)
    assert len({each.active() for each in (*rings, ring)}) == 1


def test_a_folder_that_has_gone_stops_nothing(tmp_path: Path, clock: ManualClock, ring: KeyRing) -> None:
    """The keys in memory go on until it is back."""
    active = ring.active()
    (tmp_path / "keys").rename(tmp_path / "gone")
    clock.advance(1)
    assert ring.active() == active


def test_no_setting_outlives_the_keys() -> None:
    """A key is kept for as long as the longest token that the settings allow."""
    bounds = [item.le for item in Settings.model_fields["token_lifetime_s"].metadata if hasattr(item, "le")]
    assert bounds == [LONGEST_TOKEN_S]
