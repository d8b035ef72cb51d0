"""``scripts/find-python``: which interpreter ``.venv`` is made with."""

from pathlib import Path

import pytest

from tests.unit.scripts.fresh import Fresh

OURS = "/ours"


def interpreter(place: str, where: str) -> str:
    """A program that answers the probe as an interpreter in ``where`` would."""
    return f"echo {place}; echo {where}"


def test_takes_the_newest_that_works(machine: Fresh) -> None:
    """What does not start or lacks a module is passed over."""
    machine.put("python3.13", "exit 1")
    machine.put("python3.12", interpreter("shared", OURS))
    machine.put("python3.11", interpreter("shared", "/older"))
    assert machine.run("find-python").said == f"{OURS}\n"


@pytest.mark.parametrize(("user_id", "found"), [(0, "/shared"), (1000, "/private")])
def test_for_root_one_that_every_user_can_reach_comes_first(machine: Fresh, user_id: int, found: str) -> None:
    """The server of root gives up root and must still read it; a user's own server stays who it is."""
    machine.become(user_id)
    machine.put("python3.13", interpreter("private", "/private"))
    machine.put("python3.12", interpreter("shared", "/shared"))
    assert machine.run("find-python").said == f"{found}\n"


def test_a_path_with_blanks(machine: Fresh, tmp_path: Path) -> None:
    """Names of folders are taken as they are."""
    folder = tmp_path / "a folder"
    folder.mkdir()
    machine.put("python3.13", interpreter("shared", f"'{folder}/python3.13'"), folder)
    found = machine.run("find-python", environ={"PATH": f"{folder}:{machine.bin}"})
    assert found.said == f"{folder}/python3.13\n"
