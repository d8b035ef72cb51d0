"""Whose the files in a state folder are."""

from pathlib import Path

import pytest

from sandgate.core.errors import ConfigurationError
from sandgate.store.folder_mark import MARK, claim_files

HELD, EMPTY = "snapshots", "templates/layers"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state folder in which there is a snapshot."""
    for name in (HELD, EMPTY):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / HELD / "a.tar").touch()
    return tmp_path


def _claim(state: Path, identity: str, *, is_new: bool = False) -> None:
    claim_files(state, identity, [state / HELD, state / EMPTY, state / "artifacts"], is_new=is_new)


def test_files_belong_to_the_database_that_made_them(state: Path) -> None:
    """No other one gets at them, used or new; the folders that are in its way are named."""
    _claim(state, "one")
    for is_new in (False, True):
        with pytest.raises(ConfigurationError, match="holds files of another database") as refused:
            _claim(state, "two", is_new=is_new)
        assert str(state / HELD) in refused.value.message
        assert str(state / EMPTY) not in refused.value.message
    _claim(state, "one")
    assert (state / MARK).read_text() == "one\n"


def test_files_without_a_mark_belong_to_a_database_that_was_used(state: Path) -> None:
    """An earlier version made no marks; a database that was made just now has made no files."""
    with pytest.raises(ConfigurationError):
        _claim(state, "new", is_new=True)
    assert not (state / MARK).exists()
    _claim(state, "used")
    assert (state / MARK).read_text() == "used\n"


def test_a_folder_without_files_is_anybodys(state: Path) -> None:
    """Whoever moves them away begins anew."""
    _claim(state, "one")
    (state / HELD / "a.tar").rename(state / "elsewhere")
    _claim(state, "two", is_new=True)
    (state / HELD / "b.tar").touch()
    with pytest.raises(ConfigurationError):
        _claim(state, "one")


def test_what_cannot_be_read_is_no_word_of_anybody(state: Path) -> None:
    """A start that cannot tell is refused."""
    (state / MARK).mkdir()
    with pytest.raises(ConfigurationError, match="cannot be read"):
        _claim(state, "one")
