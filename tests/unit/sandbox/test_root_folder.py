"""What the launcher shows of a root file system: found by names alone, in a bounded time."""

import os
from pathlib import Path

import pytest

from sandgate.sandbox.launcher.root_folder import RootFolder, look_at, open_shown

ROOT = "root-0123456789ab"


def _make(layers: Path, *folders: str) -> Path:
    root = layers / ROOT
    for folder in folders:
        (root / folder).mkdir(parents=True)
        (root / folder / "file").touch()
    return root


def test_folders_are_shown_and_the_sandboxs_own_are_not(tmp_path: Path) -> None:
    """Of three of them what is in them; links as links, files not at all."""
    root = _make(
        tmp_path, "usr", "etc", "app", "var/lib", "var/tmp", "opt/one", "opt/template", "home/me", "home/user", "tmp",
        "proc", "sandgate", "env", "workspace", "dev", "run", "sys",
    )  # fmt: skip
    (root / "srv").mkdir()
    (root / "bin").symlink_to("usr/bin")
    (root / "var/run").symlink_to("/run")
    found = look_at(tmp_path, ROOT)
    assert found == RootFolder(
        ROOT, ("/app", "/etc", "/home/me", "/opt/one", "/usr", "/var/lib"), ("/srv",),
        (("/bin", "usr/bin"), ("/var/run", "/run")),
    )  # fmt: skip
    with open_shown(tmp_path, found) as shown:
        assert [path for _source, path in shown] == list(found.shown)
        assert all(os.path.samefile(source, f"{root}{path}") for source, path in shown)


@pytest.mark.parametrize("name", ["usr", "etc", "opt", "var", "home"])
def test_a_folder_that_every_sandbox_has_is_never_a_link(tmp_path: Path, name: str) -> None:
    """It would lead the launcher, or the walls, to somewhere else."""
    root = _make(tmp_path, "app")
    (root / name).symlink_to("/")
    assert look_at(tmp_path, ROOT) == RootFolder(ROOT, ("/app",))


def test_what_has_become_a_link_is_not_followed(tmp_path: Path) -> None:
    """The folder is another user's, who may change it at any time; so is that of all layers."""
    root = _make(tmp_path, "var/lib")
    found = look_at(tmp_path, ROOT)
    (root / "var").rename(root / "old")
    (root / "var").symlink_to("old")
    with pytest.raises(NotADirectoryError), open_shown(tmp_path, found):
        pass
    (tmp_path / "root-link").symlink_to(root)
    for name in ("root-link", "missing"):
        with pytest.raises(OSError, match=r"Not a directory|No such file"):
            look_at(tmp_path, name)


@pytest.mark.parametrize("where", ["", "var", "opt"])
def test_there_are_so_many_and_no_more(tmp_path: Path, where: str) -> None:
    """Files among them count: what is looked at is bounded, not only what is found."""
    root = _make(tmp_path, "usr", "var/lib", "opt/one")
    for number in range(100):
        (root / where / f"f{number}").touch()
    with pytest.raises(OSError, match="more than 100 folders"):
        look_at(tmp_path, ROOT)
