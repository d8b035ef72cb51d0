"""``scripts/audit``: what uv is asked, and what follows from its answer."""

import re

import pytest

from tests.unit.scripts.fresh import UV, Fresh


@pytest.fixture
def machine(machine: Fresh) -> Fresh:
    """An installation that is done."""
    machine.have("index", "uv-index", "libseccomp", "python3.9")
    machine.find_python()
    machine.put("uv", f'case "$*" in audit*) . "$STATE/audit" ;; *) {UV} ;; esac', machine.state)
    assert machine.run("install", "--dev").code == 0
    return machine


def answer(machine: Fresh, how: str) -> None:
    """Let uv answer so, after it has kept a copy of the list."""
    (machine.state / "audit").write_text(f'for last; do :; done; cp "$last" "$STATE/list"; {how}')


def test_asks_about_every_version(machine: Fresh) -> None:
    """All that the larger lock names, with its markers, and nothing is left behind."""
    answer(machine, "")
    done = machine.run("audit", environ={"TMPDIR": str(machine.folder)})
    assert (done.code, done.complained) == (0, "")
    listed = re.findall(r'^#   "(.*)",$', (machine.state / "list").read_text(), re.MULTILINE)
    lock = (machine.checkout / "requirements-dev.lock").read_text()
    assert listed == [line.removesuffix(" \\") for line in lock.splitlines() if "==" in line and line[0] != " "]
    assert [each.name for each in machine.folder.glob("tmp.*")] == []


def test_a_known_vulnerability_fails(machine: Fresh) -> None:
    """With what uv says of it."""
    answer(machine, "echo 'h11 has 1 known vulnerability'; exit 1")
    done = machine.run("audit")
    assert done.code == 1
    assert "h11 has 1 known vulnerability" in done.said


@pytest.mark.parametrize("how", ["echo 'error: dns' >&2; exit 2", "exec sleep 20"])
def test_a_list_that_cannot_be_asked_is_no_failure(machine: Fresh, how: str) -> None:
    """Refused or never answered, it is said, and nobody takes it for good news."""
    machine.have("hurry")
    answer(machine, how)
    done = machine.run("audit")
    assert done.code == 0
    assert "Nothing was found out about vulnerabilities" in done.complained
