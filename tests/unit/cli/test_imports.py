"""What each process of the product imports: time to start is for the greater part imports."""

import json
import subprocess
import sys
from collections.abc import Sequence

import pytest

_SERVER = ("sandgate.config.settings", "sqlalchemy", "structlog", "fastapi", "starlette", "jwt", "argon2", "uvicorn")
_ALL = (*_SERVER, "rich", "httpx", "asyncio.base_events")
_OF_LIBRARIES = ("rich", "click", "pygments")


def _imported(program: str, names: Sequence[str]) -> list[str]:
    """Which of the modules are there when the program has run in a Python of its own."""
    told = f"json.dumps([name for name in {names!r} if name in sys.modules])"
    whole = f"import atexit, json, sys; atexit.register(lambda: print({told}, file=sys.stderr)); {program}"
    done = subprocess.run([sys.executable, "-c", whole], capture_output=True, text=True, check=False)
    found: list[str] = json.loads(done.stderr.splitlines()[-1])
    return found


def _run(*arguments: str) -> str:
    """As the installed command does it."""
    return f"sys.argv = ['sandgate', *{arguments!r}]; from sandgate.cli.main import main; main()"


@pytest.mark.parametrize("arguments", [["--help"], ["user", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    """It answers at once."""
    assert _imported(_run(*arguments), _ALL) == []


def test_a_command_imports_none_of_the_others() -> None:
    """Whether it is one of the root or one of a group."""
    others = ("sandgate.cli.workflows", "sandgate.cli.environments", "sandgate.cli.serve_command")
    assert _imported(_run("version"), (*_ALL, *others)) == []
    assert _imported(_run("secret", "--help"), (*_ALL, *others)) == []


@pytest.mark.parametrize("arguments", [["template", "list"], ["workflow", "status", "run-1"]])
def test_what_asks_a_server_imports_nothing_of_one(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor the command of the library that it asks with. Nobody listens at port 0."""
    monkeypatch.setenv("SANDGATE_URL", "http://127.0.0.1:0")
    monkeypatch.setenv("SANDGATE_API_KEY", "sgk_none")
    assert _imported(_run(*arguments), ("httpx", *_SERVER, *_OF_LIBRARIES)) == ["httpx"]


def test_the_supervisor_and_the_launcher_import_nothing_of_the_gateway() -> None:
    """They stay as long as it does, and are small."""
    heavy = ("sqlalchemy", "structlog", "fastapi", "starlette", "jwt", "argon2", "uvicorn", "sandgate.http", "httpx")
    assert _imported("import sandgate.cli.serve", heavy) == []
    assert _imported("import sandgate.sandbox.launcher.main", (*heavy, "pydantic", "typer", "sandgate.config")) == []


def test_the_gateway_imports_only_what_it_serves_with() -> None:
    """Not what describes the API, checks definitions, brings a database of old up to date, or belongs to clients."""
    described = ("fastapi", "fastapi_offline", "jsonschema_rs", "sandgate.workflows.form")
    seldom = (*described, "alembic", "yaml", "httpx", "typer", "sandgate.sdk", "sandgate.cli")
    assert _imported("import sandgate.assembly", seldom) == []


def test_models_are_built_when_they_are_used() -> None:
    """Building all takes as long as all other imports of the API; the form to log in with is described by hand."""
    program = """
import sys, sandgate.http.app
from sandgate.http.models.base import Model
kinds = [Model]
for kind in kinds:
    kinds += kind.__subclasses__()
print(len(kinds) > 50, sorted(kind.__name__ for kind in kinds[1:] if kind.__pydantic_complete__))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "True ['Credentials', 'PasswordForm']\n"
