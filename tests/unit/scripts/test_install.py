"""``scripts/install`` on machines that lack this or that, with programs in place of Python, pip, uv and apt."""

import pytest

from tests.unit.scripts.fresh import Fresh, note_environ

COMPILE = "python -m compileall -q src"


@pytest.fixture
def machine(machine: Fresh) -> Fresh:
    """Has everything and reaches everything."""
    machine.have("index", "uv-index", "libseccomp", "python3.9")
    machine.find_python()
    machine.put("apt-get", "")
    return machine


def test_a_machine_that_has_everything(machine: Fresh) -> None:
    """pip brings uv, by its hash; uv the rest, by the hashes of the lock; nothing else is called."""
    done = machine.run("install", "--dev")
    assert (done.code, done.complained) == (0, "")
    (by_pip,) = [call for call in done.calls_of("python") if " install " in call]
    assert by_pip.endswith("--no-deps --require-hashes --requirement .venv/uv.lock")
    assert (machine.checkout / ".venv/uv.lock").read_text().startswith("uv==")
    packages, itself = done.calls_of("uv")
    assert packages.endswith("--no-deps --require-hashes --requirement requirements-dev.lock")
    assert itself.endswith("--no-deps --no-build-isolation --editable .")
    assert done.calls_of("apt-get") == []


def test_the_second_time(machine: Fresh) -> None:
    """Nothing is installed, for the smaller list neither, until a lock changes; changed sources are compiled."""
    machine.run("install", "--dev")
    for arguments in (["--dev"], []):
        done = machine.run("install", *arguments)
        assert (done.code, done.calls, done.said) == (0, [COMPILE], "")
    with (machine.checkout / "requirements-dev.lock").open("a") as lock:
        lock.write("\n")
    assert len(machine.run("install", "--dev").calls_of("uv")) == 2


def test_a_machine_without_python(machine: Fresh) -> None:
    """Python and its venv module are asked of apt, and then found."""
    machine.find_python(after="installed")
    machine.put("apt-get", ': >"$STATE/installed"')
    done = machine.run("install")
    assert done.code == 0
    assert [call.partition(" install")[2] for call in done.calls_of("apt-get")] == [
        " -y --no-install-recommends python3 python3-venv"
    ]


def test_a_system_whose_python_is_too_old(machine: Fresh) -> None:
    """The newest that is packaged beside it is taken."""
    machine.find_python(after="installed")
    machine.put("apt-get", 'case "$*" in *python3.11-venv) : >"$STATE/installed" ;; esac')
    machine.put("apt-cache", 'case "$*" in *3.11*) ;; *) exit 100 ;; esac')
    done = machine.run("install")
    assert done.code == 0
    assert [call.split()[-1] for call in done.calls_of("apt-get")] == ["python3-venv", "python3.11-venv"]


def test_a_user_who_is_not_root_is_told_what_root_has_to_type(machine: Fresh) -> None:
    """Nothing is installed, and nothing is left that looks like an installation."""
    machine.become(1000)
    machine.find_python(after="never")
    done = machine.run("install")
    assert done.code == 1
    assert done.complained.count("apt-get install python3 python3-venv") == 1
    assert "No Python 3.11 or newer with venv" in done.complained
    assert not (machine.checkout / ".venv").exists()
    assert done.calls_of("apt-get") == []


def test_what_would_be_better_to_have(machine: Fresh) -> None:
    """libseccomp and certificates are asked for, and their lack stops nobody."""
    (machine.state / "libseccomp").unlink()
    machine.put("apt-get", "exit 100")
    done = machine.run("install")
    assert done.code == 0
    assert {call.split()[-1] for call in done.calls_of("apt-get")} == {"libseccomp2", "update"}


def test_without_a_network(machine: Fresh) -> None:
    """It ends with pip's words and its own, and the next run tries again."""
    (machine.state / "index").unlink()
    done = machine.run("install")
    assert done.code == 1
    assert "ERROR: no index" in done.complained
    assert "could not be installed" in done.complained
    machine.have("index")
    assert machine.run("install").code == 0


def test_pip_stands_in_for_uv(machine: Fresh) -> None:
    """Where only pip is set up for the machine's index, it does the work, and uv's complaint is nobody's concern."""
    (machine.state / "uv-index").unlink()
    done = machine.run("install")
    assert (done.code, done.complained) == (0, "")
    assert [call.split()[-1] for call in done.calls_of("python") if " install " in call] == [
        ".venv/uv.lock",
        "requirements.lock",
        ".",
    ]


def test_variables_that_would_lead_elsewhere(machine: Fresh) -> None:
    """What would make pip install outside of .venv is not passed on."""
    script = (machine.bin / "python").read_text().partition("\n")[2].partition("\n")[2]
    machine.put("python", note_environ("PIP_TARGET", "PYTHONPATH", "PIP_RETRIES") + "\n" + script)
    done = machine.run("install", environ={"PIP_TARGET": "/elsewhere", "PYTHONPATH": "/elsewhere"})
    assert done.code == 0
    assert not [call for call in done.calls if "/elsewhere" in call]
    assert "PIP_RETRIES=2" in done.calls


def test_a_missing_python39_is_fetched(machine: Fresh) -> None:
    """uv is asked for it, within a minute."""
    (machine.state / "python3.9").unlink()
    machine.have("mirror")
    done = machine.run("install")
    assert (done.code, done.complained) == (0, "")
    assert done.calls_of("uv")[-1] == "python install --quiet 3.9"
    (limit,) = done.calls_of("timeout")
    assert " 60 " in limit
    assert "none could be fetched" not in done.said


@pytest.mark.parametrize("fetching", ["exit 1", "exec sleep 20"])
def test_a_python39_that_cannot_be_fetched_stops_nobody(machine: Fresh, fetching: str) -> None:
    """Refused at once or never answered: the installation is done, says so, and does not try again next time."""
    (machine.state / "python3.9").unlink()
    machine.have("hurry")
    machine.put("uv", f'case "$*" in *"python install"*) {fetching} ;; esac', machine.state)
    done = machine.run("install")
    assert done.code == 0
    assert "No Python 3.9 was found and none could be fetched" in done.said
    assert machine.run("install").calls == [COMPILE]
