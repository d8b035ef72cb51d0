"""Secrets are sealed for the database."""

from pathlib import Path

import pytest

from sandgate.auth.keys import SEALING, KeyRing
from sandgate.auth.sealing import Sealer
from sandgate.core.clock import ManualClock
from sandgate.core.errors import SecretUnreadable
from sandgate.core.ids import UserId

OWNER, OTHER = UserId("user-1"), UserId("user-2")


def a_ring(folder: Path, kind: str = SEALING) -> KeyRing:
    """The open keys of a folder."""
    ring = KeyRing(folder / "keys", ManualClock(), kind)
    ring.open()
    return ring


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    """Keys of the test's own."""
    return a_ring(tmp_path)


def test_what_is_sealed_can_be_opened(ring: KeyRing) -> None:
    """By whoever has the key; the sealed value does not show the text, nor that two are the same."""
    sealer, text = Sealer(ring), "é\U0001f40d secret" * 100
    key_id, sealed = sealer.seal(OWNER, "A", text)
    assert sealer.open(OWNER, "A", key_id, sealed) == text
    assert sealer.seal(OWNER, "A", text)[1] != sealed
    assert b"secret" not in sealed


def test_a_sealed_value_belongs_to_its_owner_and_name(ring: KeyRing) -> None:
    """Moved to another row, or changed in any bit, it cannot be opened; the refusal shows nothing of it."""
    sealer = Sealer(ring)
    key_id, sealed = sealer.seal(OWNER, "A", "hunter2-hunter2")
    changed = [sealed[:place] + bytes([sealed[place] ^ 1]) + sealed[place + 1 :] for place in range(len(sealed))]
    for owner, name, value in [(OTHER, "A", sealed), (OWNER, "B", sealed), *((OWNER, "A", one) for one in changed)]:
        with pytest.raises(SecretUnreadable) as refused:
            sealer.open(owner, name, key_id, value)
        assert "hunter" not in str(refused.value)
    for short in (b"", sealed[:5], sealed[:12]):
        with pytest.raises(SecretUnreadable):
            sealer.open(OWNER, "A", key_id, short)


def test_older_keys_go_on_opening(ring: KeyRing) -> None:
    """The newest one seals; a server without a key says which it lacks."""
    sealer = Sealer(ring)
    old_id, old = sealer.seal(OWNER, "A", "old secret")
    new_id = ring.rotate().kid
    assert sealer.seal(OWNER, "A", "new secret")[0] == new_id != old_id
    assert sealer.open(OWNER, "A", old_id, old) == "old secret"
    with pytest.raises(SecretUnreadable, match="sealing-00000000000000000000000000, which is not in"):
        sealer.open(OWNER, "A", "sealing-" + "0" * 26, old)


def test_each_kind_of_key_knows_its_own(tmp_path: Path) -> None:
    """Keys that sign tokens and keys that seal lie in one folder, and neither kind takes the other's."""
    sealing, signing = a_ring(tmp_path), a_ring(tmp_path, "key")
    assert sealing.active().secret != signing.active().secret
    assert signing.find(sealing.active().kid) is None
    assert sealing.find(signing.active().kid) is None
    names = sorted(path.name for path in (tmp_path / "keys").iterdir())
    assert names == [f"{signing.active().kid}.json", f"{sealing.active().kid}.json"]
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in (tmp_path / "keys").iterdir())
