"""The ``runsc`` of a machine, by what it says of itself; here a script that says it."""

from datetime import date
from pathlib import Path

import pytest

from sandgate.core.states import Isolation
from sandgate.sandbox import gvisor_probe
from sandgate.sandbox.gvisor_probe import probe_gvisor
from sandgate.sandbox.launcher.gvisor.runsc import PREFERRED, Runsc, find_runsc


def script(folder: Path, version: str, platforms: str) -> str:
    """A program that answers as ``runsc`` does."""
    path = folder / "runsc"
    path.write_text(f'#!/bin/sh\n[ "$1" = help ] && printf "{platforms}" || printf "{version}"\n')
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("version", "released"),
    [
        ("0.0~20221219.0", date(2022, 12, 19)),
        ("release-20240916.0", date(2024, 9, 16)),
        ("0.0.0~20230102", date(2023, 1, 2)),
        ("VERSION_MISSING", None),
        ("release-20241399.0", None),
    ],
)
def test_it_is_as_old_as_its_version_says(tmp_path: Path, version: str, released: date | None) -> None:
    """However the distribution writes it."""
    found = find_runsc(script(tmp_path, f"runsc version {version}\\nspec: 1.0.2\\n", "kvm\\nptrace\\n"))
    assert found is not None
    assert (found.version, found.released, found.platform) == (version, released, "ptrace")


@pytest.mark.parametrize(
    ("there", "wanted", "taken"),
    [
        ("kvm\\nptrace\\nsystrap\\n", "auto", "systrap"),
        ("kvm\\nptrace\\n", "auto", "ptrace"),
        ("kvm\\n", "auto", ""),
        ("kvm\\nptrace\\n", "kvm", "kvm"),
        ("kvm\\nptrace\\n", "systrap", ""),
    ],
)
def test_the_platform(tmp_path: Path, there: str, wanted: str, taken: str) -> None:
    """The best that is there, and KVM for who asks for it."""
    found = find_runsc(script(tmp_path, "runsc version x\\n", there), wanted)
    assert found is not None
    assert found.platform == taken


def test_another_program_of_the_name_is_none(tmp_path: Path) -> None:
    """Nor is one that is not there."""
    assert find_runsc(script(tmp_path, "something else", "")) is None
    assert find_runsc(str(tmp_path / "absent")) is None


@pytest.mark.parametrize(
    ("working", "wanted", "lacking"),
    [
        (("ptrace",), "auto", ["runsc_recent"]),
        ((), "auto", ["gvisor_platform", "runsc_recent"]),
        (("ptrace",), "kvm", ["gvisor_platform", "runsc_recent"]),
    ],
)
def test_the_doctor_tries_the_platform(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, working: tuple[str, ...], wanted: str, lacking: list[str]
) -> None:
    """What hangs is no platform; an old release is told, and keeps nothing from being held."""

    def runs(_runsc: Runsc, platform: str, _limit_s: float) -> bool:
        return platform in working

    monkeypatch.setattr(gvisor_probe, "runs", runs)
    path = script(tmp_path, "runsc version 0.0~20221219.0\\n", "kvm\\nptrace\\n")
    abilities = probe_gvisor(path, wanted)
    assert [ability.name for ability in abilities if not ability.ok] == lacking
    assert all(bool(ability.mend) is not ability.ok for ability in abilities)
    assert next(each.found for each in abilities if each.name == "runsc_recent") == "released 2022-12-19"
    required = {each.name for each in abilities if Isolation.GVISOR in each.required_by}
    assert required == {"runsc", "gvisor_platform"}


def test_without_runsc_the_doctor_says_how_to_get_it(tmp_path: Path) -> None:
    """And tries nothing."""
    (ability,) = probe_gvisor(str(tmp_path / "absent"))
    assert (ability.ok, ability.name) == (False, "runsc")
    assert "apt-get install runsc" in ability.mend


@pytest.mark.needs_gvisor
def test_a_platform_runs_or_does_not() -> None:
    """Tried with the real program; one that there is not runs nothing."""
    runsc = find_runsc()
    assert runsc is not None
    for platform in [name for name in PREFERRED if name in runsc.platforms]:
        assert gvisor_probe.runs(runsc, platform), platform
    assert not gvisor_probe.runs(runsc, "none")
