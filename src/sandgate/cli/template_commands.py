"""``sandgate template``: what environments can be made from."""

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sandgate.cli import state as state_folder
from sandgate.cli import template_builds
from sandgate.cli.exits import MachineLacks
from sandgate.cli.groups import command_group
from sandgate.cli.state import JsonOption, StateOption
from sandgate.cli.terminal import print_json, print_table
from sandgate.core.errors import TemplateNotFound
from sandgate.sandbox.uv import find_uv

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sandgate.core.template import Template

app = command_group("What environments can be made from.")

app.command("build")(template_builds.build)
app.command("list")(template_builds.list_templates)
app.command("get")(template_builds.get)
app.command("log")(template_builds.log)
app.command("delete")(template_builds.delete)

_NEWEST = "3.13"
_INSTALL_LIMIT_S = 600.0
_SHOWN_OF_ERROR = 500


@app.command("interpreters")
def list_interpreters(state: StateOption = None, as_json: JsonOption = False) -> None:
    """List interpreters of this machine, and templates of them.

    That is what a server that is started here offers, with the reason why one cannot be used.

    With --json: {"templates": [{"name", "language", "language_version", "available", "unavailable_reason",
    "interpreter"}]}.
    """
    templates = _find_templates(state)
    if as_json:
        print_json({"templates": [_describe(template) for template in templates]})
        return
    rows = [
        (each.name, each.language_version, each.interpreter or f"unavailable: {each.unavailable_reason}")
        for each in templates
    ]
    print_table(("template", "version", "interpreter"), rows)


@app.command("install")
def install(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="A name of `sandgate template interpreters`, as python-3.9.", show_default=False
        ),
    ],
) -> None:
    """Fetch the interpreter of a template from the internet.

    It is installed with uv, for the user who runs this, where the server finds it at its next start.
    """
    from sandgate.sandbox.interpreters import SUPPORTED, find_interpreters

    version = _NEWEST if name == "python" else name.removeprefix("python-")
    if version not in SUPPORTED or name == version:
        known = ", ".join(f"python-{each}" for each in SUPPORTED)
        raise TemplateNotFound(f"There is no template {name!r} to install; there are: {known}")
    typer.echo(f"Installing Python {version} with uv ...")
    _run_uv(["python", "install", "--no-bin", "--no-progress", version])
    found = find_interpreters().get(version)
    if found is None:
        raise MachineLacks(f"uv has installed Python {version}, but it does not run here; try: uv python list")
    typer.echo(f"Python {found.full_version} is at {found.executable}; restart the server to use it.")


def _run_uv(arguments: "Sequence[str]") -> None:
    """Run uv within a time limit. Raises ``MachineLacks`` with the end of what it said."""
    program = find_uv()
    if program is None:
        raise MachineLacks("uv is not installed; install it with: pip install uv")
    command = f"uv {' '.join(arguments)}"
    try:
        done = subprocess.run(  # noqa: S603 - a fixed program; the version was checked
            [program, *arguments], stdin=subprocess.DEVNULL, capture_output=True, timeout=_INSTALL_LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise MachineLacks(f"`{command}` was not done within {_INSTALL_LIMIT_S:.0f} s; is there a network?") from None
    except OSError as error:
        raise MachineLacks(f"`{command}` could not be started: {error.strerror}") from error
    if done.returncode != 0:
        said = " ".join(done.stderr.decode(errors="replace").split())[-_SHOWN_OF_ERROR:]
        raise MachineLacks(f"`{command}` has failed: {said or 'it said nothing'}")


def _find_templates(state: Path | None) -> "Sequence[Template]":
    """The templates that a server started now would have."""
    from sandgate.config.paths import interpreter_folders
    from sandgate.environments.templates import TemplateCatalogue
    from sandgate.sandbox.interpreters import find_interpreters

    settings = state_folder.read(state=state)
    return TemplateCatalogue(find_interpreters(interpreter_folders(settings)), settings.limits()).list()


def _describe(template: "Template") -> dict[str, object]:
    """A template as ``--json`` shows it."""
    return {
        "name": template.name,
        "language": template.language,
        "language_version": template.language_version,
        "available": template.available,
        "unavailable_reason": template.unavailable_reason,
        "interpreter": template.interpreter,
    }
