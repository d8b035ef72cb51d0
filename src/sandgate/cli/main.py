"""The command ``sandgate``: its subcommands, and how their refusals reach the terminal.

Exit codes: see :mod:`sandgate.cli.exits`. Modules that take long to import are imported inside the commands that need
them, so that ``--help`` answers at once.
"""

import io
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from sandgate import __version__
from sandgate.cli import (
    audit_commands,
    config_command,
    doctor,
    keys_command,
    login_commands,
    migrate_command,
    secret_commands,
    serve_command,
    template_commands,
    user_commands,
)
from sandgate.cli.environments import app as environment_app
from sandgate.cli.environments import code_command, terminal_command
from sandgate.cli.exits import EXIT_INTERRUPTED, EXIT_REFUSED, exit_code_of
from sandgate.cli.printable import neutralise
from sandgate.cli.workflows import app as workflow_app
from sandgate.core.errors import NotAuthenticated, SandgateError
from sandgate.sdk.errors import ApiError, ClientError


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sandgate {__version__}")
        raise typer.Exit


def _version() -> None:
    """Print the version."""
    _print_version(True)


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Run untrusted code in isolated environments behind an HTTP API.

    To begin a server: `sandgate doctor`, then `sandgate serve`. To use one: `sandgate login`, then `sandgate run`. Each
    command says more with --help.
    """


def make_app() -> typer.Typer:
    """All commands."""
    app = typer.Typer(
        name="sandgate",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        callback=_options,
    )
    app.command("serve")(serve_command.serve)
    app.command("doctor")(doctor.doctor)
    app.command("config")(config_command.config)
    app.command("migrate")(migrate_command.migrate)
    app.command("version")(_version)
    app.command("login")(login_commands.login)
    app.command("logout")(login_commands.logout)
    app.command("whoami")(login_commands.whoami)
    app.command("run", context_settings={"allow_interspersed_args": False})(code_command.run)
    app.command("terminal")(terminal_command.terminal)
    app.add_typer(environment_app.app, name="environment")
    app.add_typer(environment_app.files, name="files")
    app.add_typer(environment_app.sessions, name="session")
    app.add_typer(environment_app.processes, name="process")
    app.add_typer(environment_app.ports, name="port")
    app.add_typer(environment_app.snapshots, name="snapshot")
    app.add_typer(environment_app.volumes, name="volume")
    app.add_typer(workflow_app.app, name="workflow")
    app.add_typer(secret_commands.app, name="secret")
    app.add_typer(user_commands.app, name="user")
    app.add_typer(template_commands.app, name="template")
    app.add_typer(keys_command.app, name="keys")
    app.add_typer(audit_commands.app, name="audit")
    return app


def run(arguments: Sequence[str]) -> int:
    """Run one command and answer its exit code; a refusal is one line on standard error."""
    try:
        make_app()(list(arguments), prog_name="sandgate")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    except (SandgateError, ClientError) as error:
        sys.stderr.write(f"sandgate: {neutralise(_explain(error))}\n")
        return exit_code_of(error)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has gone; nothing is left to be flushed at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_REFUSED
    return 0


def _explain(error: SandgateError | ClientError) -> str:
    """The message, and what to do about it where that is always the same."""
    if isinstance(error, ApiError) and error.code == NotAuthenticated.code:
        return f"{error.message}\nLog in with: sandgate login"
    return error.message


def main() -> None:
    """The entry point."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that lacks a character is shown its number instead of a traceback.
            stream.reconfigure(errors="backslashreplace")
    sys.exit(run(sys.argv[1:]))
