"""``scripts/packages``: what apt is asked for and how, and what is said where it cannot help."""

import pytest

from tests.unit.scripts.fresh import Fresh, note_environ

APT_FAILS = "echo 'E: Unable to locate package' >&2; exit 100"


def test_installs_what_is_asked_for_without_a_question(machine: Fresh) -> None:
    """One call for all, which answers yes, keeps files that were changed, and reads nothing from the keyboard."""
    machine.put("apt-get", 'echo "typed <$(cat)>" >>"$STATE/calls"\n' + note_environ("DEBIAN_FRONTEND"))
    done = machine.run("packages", "one", "two", typed="n\n")
    assert done.code == 0
    assert done.said == ""
    (call,) = done.calls_of("apt-get")
    assert call.endswith(" install -y --no-install-recommends one two")
    assert "--force-confold" in call
    assert "typed <>" in done.calls
    assert "DEBIAN_FRONTEND=noninteractive" in done.calls


def test_brings_old_package_lists_up_to_date_only_when_they_stand_in_the_way(machine: Fresh) -> None:
    """A first failure is met with new lists and a second try, and nobody is told of it."""
    machine.put(
        "apt-get", 'case "$*" in *update) : >"$STATE/new" ;; *) [ -e "$STATE/new" ] || { ' + APT_FAILS + "; } ;; esac"
    )
    done = machine.run("packages", "one")
    assert done.code == 0
    assert [call.split()[-1] for call in done.calls_of("apt-get")] == ["one", "update", "one"]
    assert "E:" not in done.complained


def test_says_what_to_type_where_apt_fails(machine: Fresh) -> None:
    """What apt said, and the command, with all names."""
    machine.put("apt-get", APT_FAILS)
    done = machine.run("packages", "one", "two")
    assert done.code == 1
    assert "E: Unable to locate package" in done.complained
    assert "apt-get update && apt-get install one two" in done.complained


def test_says_what_to_type_to_a_user_who_is_not_root(machine: Fresh) -> None:
    """Nothing is tried."""
    machine.put("apt-get", "")
    machine.become(1000)
    done = machine.run("packages", "one", "two")
    assert done.code == 1
    assert "Missing on this machine: one two" in done.complained
    assert "as root, on Debian or Ubuntu with: apt-get install one two" in done.complained
    assert done.calls_of("apt-get") == []


def test_says_so_on_a_system_without_apt(machine: Fresh) -> None:
    """Root of another distribution is told what is missing."""
    done = machine.run("packages", "one")
    assert done.code == 1
    assert "Missing on this machine: one" in done.complained


@pytest.mark.parametrize("hanging", ["install", "update"])
def test_a_server_that_never_answers_is_given_up(machine: Fresh, hanging: str) -> None:
    """apt itself is told of limits, and is ended when it does not keep them."""
    machine.have("hurry")
    machine.put("apt-get", f'case "$*" in *{hanging}*) exec sleep 20 ;; *) {APT_FAILS} ;; esac')
    done = machine.run("packages", "one")
    assert done.code == 1
    assert "Could not install one" in done.complained
    assert all(
        "Acquire::http::Timeout=" in call and "DPkg::Lock::Timeout=" in call for call in done.calls_of("apt-get")
    )
    assert {call.split()[1] for call in done.calls_of("timeout")} == {"900"}
