"""The commands that are not about users."""

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import sandgate as package
from sandgate.cli import template_commands
from sandgate.cli.main import make_app
from sandgate.config.settings import Settings
from sandgate.core.errors import (
    ConfigurationError,
    IsolationUnavailable,
    MechanismFault,
    NotFound,
    SandgateError,
    TemplateUnavailable,
)
from sandgate.core.states import Isolation
from sandgate.sandbox import gvisor_probe, interpreters, pools_probe, probe
from sandgate.sandbox.probe import Ability, Machine
from tests.unit.cli.conftest import Command


@pytest.mark.parametrize("arguments", [["version"], ["--version"]])
def test_the_version(sandgate: Command, arguments: list[str]) -> None:
    """As a command and as an option."""
    answer = sandgate(*arguments)
    assert (answer.code, answer.out) == (0, f"sandgate {package.__version__}\n")


@pytest.mark.parametrize("arguments", [["nonsense"], ["--nonsense"], ["doctor", "--nonsense"], ["keys", "turn"]])
def test_what_does_not_exist_is_a_mistake_in_the_call(sandgate: Command, arguments: list[str]) -> None:
    """Exit code 2."""
    assert sandgate(*arguments).code == 2


ROOT: Any = typer.main.get_command(make_app())


def _commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], bool]]:
    """What to type for each command, and whether it is a group of others."""
    members: dict[str, Any] = getattr(command, "commands", {})
    yield path, bool(members)
    for name, member in members.items():
        yield from _commands(member, (*path, name))


def _help(path: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        ROOT.main([*path, "--help"], prog_name="sandgate")
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_every_command_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    """Each with a help of its own; a list of commands says what each does in a sentence that fits into its line."""
    commands = list(_commands(ROOT))
    assert len(commands) > 80
    for path, is_group in commands:
        shown = _help(path, capsys)
        assert shown.startswith(" ".join(["Usage: sandgate", *path]))
        _usage, _title, listed = shown.partition("\nCommands:\n")
        assert bool(listed) is is_group
        assert [line for line in listed.splitlines() if line.endswith("...")] == []


def test_the_settings_in_force(sandgate: Command, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From variables and options, secrets masked."""
    monkeypatch.setenv("SANDGATE_ADMIN_PASSWORD", "hunter2hunter2")
    monkeypatch.setenv("SANDGATE_PORT", "1234")
    answer = sandgate("config", "--json", "--database-url", "postgresql://ann:hunter2@h/x")
    values = json.loads(answer.out)
    assert list(values) == list(Settings.model_fields)
    assert (values["port"], values["state"], values["allow_weak_isolation"]) == (1234, str(state), False)
    assert values["admin_password"] == values["database_url"] == "***"
    table = sandgate("config").out
    assert "hunter2" not in table + answer.out
    assert [line.split()[1] for line in table.splitlines() if line.startswith("SANDGATE_ADMIN_PASSWORD")] == ["***"]


def test_wrong_settings_are_a_mistake_in_the_call(sandgate: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the command is."""
    monkeypatch.setenv("SANDGATE_PROT", "1234")
    for arguments in (["config"], ["serve"], ["doctor"], ["migrate"], ["user", "list"], ["audit", "verify"]):
        answer = sandgate(*arguments)
        assert (answer.code, answer.out) == (2, "")
        assert "SANDGATE_PROT is not a setting" in answer.err


def test_the_schema_is_brought_up_to_date(sandgate: Command, state: Path) -> None:
    """Checking changes nothing and says by its exit code whether there is work."""
    assert sandgate("migrate", "--check").code == 1
    assert not state.exists()
    done = sandgate("migrate")
    assert (done.code, done.err) == (0, "")
    checked = sandgate("migrate", "--check")
    assert (checked.code, done.out.split()[-1].rstrip(".") in checked.out) == (0, True)


def test_keys_are_rotated(sandgate: Command, state: Path) -> None:
    """A new key beside the old one; with --drop-old in its place."""
    state.mkdir(mode=0o700)
    for arguments, kept in (([], 1), ([], 2), (["--drop-old"], 1)):
        answer = sandgate("keys", "rotate", *arguments)
        assert answer.code == 0
        names = [path.name for path in (state / "keys").iterdir()]
        assert len(names) == kept
        assert f"{answer.out.split()[-1].rstrip('.')}.json" in names
    assert stat.S_IMODE((state / "keys").stat().st_mode) == 0o700


def test_no_keys_are_made_in_a_wrong_folder(sandgate: Command, state: Path) -> None:
    """A mistyped folder is named."""
    answer = sandgate("keys", "rotate")
    assert (answer.code, str(state) in answer.err, state.exists()) == (1, True, False)


def machine(*lacking: str) -> Machine:
    """A machine with two abilities that classes need and one that is better to have."""
    needs = {"root": {Isolation.STANDARD}, "seccomp": {Isolation.STANDARD, Isolation.PROCESS}, "landlock": set()}
    return Machine(
        tuple(
            Ability(name, name not in lacking, "found", "something", frozenset(classes), "mend" * (name in lacking))
            for name, classes in needs.items()
        )
    )


@pytest.mark.parametrize(
    ("lacking", "code", "can_hold"),
    [
        ((), 0, {"standard": True, "process": True}),
        (("landlock",), 0, {"standard": True, "process": True}),
        (("root",), 3, {"standard": False, "process": True}),
        (("root", "seccomp"), 3, {"standard": False, "process": False}),
    ],
)
def test_the_doctor_says_what_can_be_held(
    sandgate: Command,
    monkeypatch: pytest.MonkeyPatch,
    lacking: tuple[str, ...],
    code: int,
    can_hold: dict[str, bool],
) -> None:
    """To programs as JSON, to people as a table with what to do; exit code 3 without the standard class."""
    runsc = Ability("runsc", False, "found", "something", frozenset({Isolation.GVISOR}), "install it")
    monkeypatch.setattr(probe, "probe", lambda *_, **__: machine(*lacking))
    monkeypatch.setattr(gvisor_probe, "probe_gvisor", lambda *_, **__: (runsc,))
    terminals = Ability("terminals", True, "64 each", "something", frozenset(), "")
    monkeypatch.setattr(pools_probe, "probe_pools", lambda *_: (terminals,))
    answer = sandgate("doctor", "--json")
    document = json.loads(answer.out)
    assert (answer.code, document["can_hold"]) == (code, can_hold | {"gvisor": False})
    assert document["missing"]["gvisor"] == ["runsc"]
    assert document["missing"]["standard"] == [name for name in lacking if name != "landlock"]
    assert document["abilities"][0] == {
        "name": "root",
        "ok": "root" not in lacking,
        "found": "found",
        "needed_for": "something",
        "required_by": ["standard"],
        "mend": "mend" if "root" in lacking else "",
    }
    shown = sandgate("doctor")
    assert shown.code == code
    assert [f"To get {name}: mend" in shown.out for name in lacking] == [True] * len(lacking)
    assert ("absent" in shown.out) is ("landlock" in lacking)
    assert "To get runsc: install it" in shown.out
    assert "64 each" in shown.out
    assert f"The standard class {'can' if can_hold['standard'] else 'cannot'} be held" in shown.out


@pytest.fixture
def no_interpreters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No interpreter is found but in uv's folder, which is answered."""
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    monkeypatch.setenv("UV_PYTHON_INSTALL_DIR", str(tmp_path / "uv"))
    monkeypatch.setattr(interpreters, "_SYSTEM_FOLDERS", ())
    return tmp_path / "uv"


def install_uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A program in the place of uv."""
    program = tmp_path / "fake-uv"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(template_commands, "find_uv", lambda: str(program))


def test_interpreters_are_listed(sandgate: Command, no_interpreters: Path) -> None:
    """Those that cannot be used with what brings them."""
    templates = json.loads(sandgate("template", "interpreters", "--json").out)["templates"]
    assert [template["name"] for template in templates][:3] == ["python", "python-3.8", "python-3.9"]
    assert not any(template["available"] for template in templates)
    table = sandgate("template", "interpreters").out
    assert "run `sandgate template install python-3.9`" in table


def test_a_template_is_installed_with_uv(
    sandgate: Command, no_interpreters: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the server looks for it; what was installed is proven to run."""
    folder = no_interpreters / "cpython-3.9.25-linux" / "bin"
    says = (
        f'{{"version": [3, 9, 25], "prefix": "{folder.parent}", "flags": "", "name": "cpython",'
        f' "executable": "{folder}/python3.9"}}'
    )
    script = f"""
    echo "$@" > {tmp_path}/arguments
    mkdir -p {folder}
    printf '#!/bin/sh\\necho '"'"'{says}'"'"'\\n' > {folder}/python3.9
    chmod 755 {folder}/python3.9
    """
    install_uv(tmp_path, monkeypatch, script)
    answer = sandgate("template", "install", "python-3.9")
    assert (answer.code, answer.err) == (0, "")
    assert f"Python 3.9.25 is at {folder}/python3.9" in answer.out
    assert (tmp_path / "arguments").read_text() == "python install --no-bin --no-progress 3.9\n"
    assert "3.9.25" in sandgate("template", "interpreters").out


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo 'error: no network' >&2; exit 2", "has failed: error: no network"),
        ("exit 1", "it said nothing"),
        ("exit 0", "does not run here"),
        ("sleep 60", "was not done within"),
    ],
)
def test_what_cannot_be_installed_is_explained(
    sandgate: Command,
    no_interpreters: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    message: str,
) -> None:
    """Exit code 3, with what uv said."""
    install_uv(tmp_path, monkeypatch, f"exec {script}" if script.startswith("sleep") else script)
    monkeypatch.setattr(template_commands, "_INSTALL_LIMIT_S", 0.3 if script.startswith("sleep") else 30.0)
    answer = sandgate("template", "install", "python-3.9")
    assert (answer.code, message in answer.err) == (3, True)


def test_without_uv_it_is_said_how_to_get_it(sandgate: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 3."""
    monkeypatch.setattr(template_commands, "find_uv", lambda: None)
    answer = sandgate("template", "install", "python")
    assert (answer.code, answer.err) == (3, "sandgate: uv is not installed; install it with: pip install uv\n")


@pytest.mark.parametrize("name", ["3.9", "python-2.7", "python-3.9.1", "ruby", "--help-me", "python-"])
def test_only_templates_are_installed(sandgate: Command, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Nothing else reaches uv."""
    monkeypatch.setattr(template_commands, "find_uv", lambda: pytest.fail("uv was asked for"))
    assert sandgate("template", "install", name).code in (1, 2)


def test_serve_is_given_the_settings(sandgate: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Options override variables; the exit code is the server's."""
    given: list[Settings] = []

    def run(settings: Settings) -> int:
        given.append(settings)
        return 7

    monkeypatch.setattr("sandgate.cli.serve.run", run)
    monkeypatch.setenv("SANDGATE_PORT", "1234")
    monkeypatch.setenv("SANDGATE_HOST", "::1")
    options = ["--port", "0", "--state", str(tmp_path / "other"), "--allow-weak-isolation", "--log-level", "debug"]
    assert sandgate("serve", *options, "--log-format", "json", "--database-url", "postgresql://h/x").code == 7
    (settings,) = given
    assert (settings.host, settings.port, settings.state) == ("::1", 0, tmp_path / "other")
    assert (settings.allow_weak_isolation, settings.log_level, settings.log_format) == (True, "debug", "json")
    assert settings.database_url.get_secret_value() == "postgresql://h/x"
    assert sandgate("serve").code == 7
    assert given[1].allow_weak_isolation is False


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigurationError("it is wrong"), 1),
        (NotFound("it is wrong"), 1),
        (MechanismFault("it is wrong"), 1),
        (IsolationUnavailable("it is wrong"), 3),
        (TemplateUnavailable("it is wrong"), 3),
        (KeyboardInterrupt(), 130),
    ],
)
def test_what_a_command_raises_becomes_an_exit_code(
    sandgate: Command, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int
) -> None:
    """And one line on standard error."""

    def run(settings: Settings) -> int:
        raise error

    monkeypatch.setattr("sandgate.cli.serve.run", run)
    answer = sandgate("serve")
    assert (answer.code, answer.out) == (code, "")
    assert answer.err == ("sandgate: it is wrong\n" if isinstance(error, SandgateError) else "")


def test_a_bug_is_not_hidden(sandgate: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else is raised is no refusal, and shows where it happened."""

    def run(settings: Settings) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr("sandgate.cli.serve.run", run)
    with pytest.raises(ZeroDivisionError):
        sandgate("serve")
