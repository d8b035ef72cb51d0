"""The profile that lets zygotes make user namespaces where AppArmor limits them."""

from pathlib import Path

import pytest

from sandgate.core.errors import MechanismFault
from sandgate.sandbox import apparmor
from sandgate.sandbox import probe as probing
from sandgate.sandbox.launcher import starter
from sandgate.sandbox.launcher.config import LauncherConfig


@pytest.fixture
def parser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in the place of AppArmor's, which notes what it is asked; the file that it notes it in."""
    notes = tmp_path / "notes"
    program = tmp_path / "apparmor_parser"
    program.write_text(f'#!/bin/sh\n{{ echo "$*"; cat; }} >>{notes}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return notes


@pytest.mark.parametrize(("text", "answer"), [("1\n", True), ("0\n", False), (None, False)])
def test_whether_it_limits(tmp_path: Path, text: str | None, answer: bool) -> None:
    """As the setting of the kernel says; most kernels have none."""
    switch = tmp_path / "switch"
    if text is not None:
        switch.write_text(text)
    assert apparmor.is_restricted(switch) is answer


def test_a_profile_is_loaded_and_forgotten(parser: Path) -> None:
    """It allows user namespaces, and forbids nothing."""
    profile = "abi <abi/4.0>,\nprofile one flags=(unconfined) {\n  userns,\n}\n"
    apparmor.load("one")
    apparmor.unload("one")
    assert parser.read_text() == f"--replace --quiet\n{profile}--remove --quiet\n{profile}"


def test_what_the_parser_says_is_passed_on(parser: Path) -> None:
    """So that the start of a server fails with it."""
    parser.with_name("apparmor_parser").write_text("#!/bin/sh\ncat >&2\necho no policy here >&2\nexit 1\n")
    with pytest.raises(MechanismFault, match="no policy here"):
        apparmor.load()


def test_without_a_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    """Said as well."""
    monkeypatch.setattr(apparmor, "_PARSER", "no-such-parser")
    with pytest.raises(MechanismFault, match="no-such-parser"):
        apparmor.load()


def test_a_launcher_that_would_be_of_no_use_is_not_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the limit holds and no profile can be had; plain processes need none."""
    monkeypatch.setattr(apparmor, "is_restricted", lambda: True)
    monkeypatch.setattr(apparmor, "_PARSER", "no-such-parser")
    config = LauncherConfig(tmp_path, "tree", 0, 0, 1, standard=True, templates=())
    with pytest.raises(MechanismFault, match="AppArmor limits user namespaces"):
        starter.start(config, tmp_path / "log")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.needs_root
def test_the_probe_tries_under_a_profile_of_its_own(
    parser: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loaded before, forgotten after; and without one it still tries."""
    says = '"found": " ".join(sys.argv)'
    (tmp_path / "probe_process.py").write_text(
        f'import json, sys\nprint(json.dumps({{"ability": "landlock", "ok": True, {says}}}))\n'
    )
    monkeypatch.setattr(probing, "__file__", str(tmp_path / "probe.py"))
    monkeypatch.setattr(apparmor, "is_restricted", lambda: True)

    def arguments() -> list[str]:
        return next(each.found for each in probing.probe().abilities if each.name == "landlock").split()[1:]

    name, _host_id, profile = arguments()
    assert profile == name
    actions = [line for line in parser.read_text().splitlines() if line.startswith("--")]
    assert actions == ["--replace --quiet", "--remove --quiet"]
    assert f"profile {name} " in parser.read_text()
    monkeypatch.setattr(apparmor, "_PARSER", "no-such-parser")
    assert len(arguments()) == 2
