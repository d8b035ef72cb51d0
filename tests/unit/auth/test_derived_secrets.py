"""Secrets that follow from a key: the same every time, and different for everything else."""

import os
from pathlib import Path

import pytest

from sandgate.auth.derived_secrets import DerivedSecrets
from sandgate.core.errors import ConfigurationError


def _opened(folder: Path) -> DerivedSecrets:
    derived = DerivedSecrets(folder)
    derived.open()
    return derived


def test_a_secret_outlives_the_process(tmp_path: Path) -> None:
    """The key is made once, in a file that nobody else may read."""
    first = _opened(tmp_path / "keys").derive("a", b"1")
    assert _opened(tmp_path / "keys").derive("a", b"1") == first
    assert len(first) == 32
    assert (tmp_path / "keys" / "derived-secrets.key").stat().st_mode & 0o777 == 0o600
    assert _opened(tmp_path / "other").derive("a", b"1") != first


def test_each_purpose_has_its_own(tmp_path: Path) -> None:
    """Parts cannot be moved from one into the next."""
    derived = _opened(tmp_path / "keys")
    asked = [("a", b"bc"), ("a", b"b", b"c"), ("ab", b"c"), ("a",), ("a", b""), ("a", b"bc", b""), ("abc",)]
    assert len({derived.derive(purpose, *parts) for purpose, *parts in asked}) == len(asked)  # type: ignore[arg-type]


@pytest.mark.parametrize("content", [b"", b"AAAA\n", b"?" * 44, b"\xff" * 44])
def test_what_is_no_key_is_refused(tmp_path: Path, content: bytes) -> None:
    """It is not replaced: what followed from it would be lost without a word."""
    folder = tmp_path / "keys"
    folder.mkdir(mode=0o700)
    path = folder / "derived-secrets.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match="not a key"):
        _opened(folder)
    assert path.read_bytes() == content


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    """With what to type."""
    _opened(tmp_path / "keys")
    os.chmod(tmp_path / "keys" / "derived-secrets.key", 0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        _opened(tmp_path / "keys")
