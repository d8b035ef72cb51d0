"""Whom a server that root started may become."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sandgate.cli.privileges import can_become, give_folder

ASK = "from sandgate.cli.privileges import can_become; print(can_become({0}, {0}))"
SOMEBODY = 1_900_000_000


def test_everybody_may_stay_who_they_are() -> None:
    """The answer is about somebody else only for root; groups apart, which an ordinary user cannot give up."""
    assert can_become(os.geteuid(), os.getegid()) is (os.geteuid() == 0)


@pytest.mark.needs_root_namespaces
def test_root_may_become_anybody_but_not_in_a_container_of_one_user() -> None:
    """It is tried, not guessed: there the ids of others do not exist."""
    ask = [sys.executable, "-c", ASK.format(SOMEBODY)]
    outside = subprocess.run(ask, capture_output=True, text=True, check=True)
    inside = subprocess.run(["unshare", "--user", "--map-root-user", *ask], capture_output=True, text=True, check=True)
    assert (outside.stdout, inside.stdout) == ("True\n", "False\n")
    assert inside.stderr == ""


def _lay_out(state: Path) -> None:
    for path in ("sandgate.db", "keys/one.pem", "snapshots/a.tar", "templates/layers/tpl/bin/x", "volumes/vol.img"):
        (state / path).parent.mkdir(parents=True, exist_ok=True)
        (state / path).touch()


def _give(state: Path) -> None:
    closed = [state / "snapshots", state / "templates/layers"]
    give_folder(state, SOMEBODY, SOMEBODY, but=[state / "volumes"], closed=closed)


def _owned(state: Path) -> set[str]:
    """What is somebody's."""
    found = (path for path in state.rglob("*") if path.lstat().st_uid == SOMEBODY)
    return {str(path.relative_to(state)) for path in found}


@pytest.mark.needs_root_namespaces
def test_a_folder_of_roots_is_handed_over_but_for_what_stays_roots(tmp_path: Path) -> None:
    """Also when it is reached by a link; what lies elsewhere is not handed over by a link, or another name, in it."""
    state, elsewhere = tmp_path / "state", tmp_path / "elsewhere"
    _lay_out(state)
    elsewhere.touch()
    (state / "keys/link").symlink_to(elsewhere)
    (state / "keys/name").hardlink_to(elsewhere)
    (tmp_path / "link").symlink_to(state)
    _give(tmp_path / "link")
    everything = {str(path.relative_to(state)) for path in state.rglob("*")}
    assert everything - _owned(state) == {"keys/name", "volumes", "volumes/vol.img"}
    assert state.stat().st_uid == SOMEBODY
    assert elsewhere.stat().st_uid == 0


@pytest.mark.needs_root_namespaces
def test_what_only_the_gateway_writes_is_not_looked_through_again(tmp_path: Path) -> None:
    """A start takes no longer for as many files as are in there; what root may have made elsewhere is handed over."""
    _lay_out(tmp_path)
    _give(tmp_path)
    (tmp_path / "templates/layers/tpl/bin/new").touch()
    (tmp_path / "keys/new.pem").touch()
    _give(tmp_path)
    assert {"keys/new.pem", "templates/layers/tpl/bin/new"} & _owned(tmp_path) == {"keys/new.pem"}


@pytest.mark.needs_root_namespaces
def test_handing_over_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    """A folder that is not looked through belongs to the gateway once all in it does."""
    _lay_out(tmp_path)
    os.chown(tmp_path / "templates", SOMEBODY, SOMEBODY)
    os.chown(tmp_path / "templates/layers/tpl", SOMEBODY, SOMEBODY)
    _give(tmp_path)
    assert "templates/layers/tpl/bin/x" in _owned(tmp_path)
