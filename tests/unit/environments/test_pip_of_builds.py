"""The program ``pip`` of a template: that of its interpreter, or the wheel that this has for new environments."""

import importlib.util
import os
import sysconfig
from pathlib import Path
from types import SimpleNamespace

import pytest

from sandgate.environments.builds import building


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where an interpreter without pip looks for it; the template's programs are beside it."""
    (tmp_path / "bin").mkdir()
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    monkeypatch.setattr(sysconfig, "get_config_var", lambda _name: str(folder))
    return folder


def _lay_out(folder: Path) -> dict[str, str]:
    """The programs that come of it, by name."""
    exec(building._PIP.format(folder=folder), {})
    return {each.name: each.read_text() for each in (folder / "bin").iterdir()}


def test_one_with_pip_has_it(wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the template's own interpreter, under both names; what the recipe has brought is left alone."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: SimpleNamespace())
    (wheels / "pip-9.0-py3-none-any.whl").touch()
    (tmp_path / "bin" / "pip3").write_text("of the recipe")
    programs = _lay_out(tmp_path)
    assert (set(programs), programs["pip3"]) == ({"pip", "pip3"}, "of the recipe")
    assert programs["pip"].startswith(f"#!{tmp_path}/bin/python\n")
    assert "whl" not in programs["pip"]
    assert os.access(tmp_path / "bin" / "pip", os.X_OK)


def test_one_without_pip_has_the_newest_wheel(wheels: Path, tmp_path: Path) -> None:
    """Such a wheel can be imported from as it is."""
    for version in ("21.0", "23.0"):
        (wheels / f"pip-{version}-py3-none-any.whl").touch()
    programs = _lay_out(tmp_path)
    assert set(programs) == {"pip", "pip3"}
    assert f"sys.path.insert(0, '{wheels}/pip-23.0-py3-none-any.whl')\nfrom pip." in programs["pip"]
