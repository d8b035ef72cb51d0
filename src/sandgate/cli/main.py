"""The command ``sandgate``: its subcommands, and how their refusals reach the terminal.

Exit codes: 0 done, 1 refused or not found, 2 the command line is wrong, 3 this machine lacks something. Modules that
take long to import are imported inside the commands that need them, so that ``--help`` answers at once.
"""

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from sandgate import __version__
from sandgate.cli import (
    config_command,
    doctor,
    keys_command,
    migrate_command,
    serve_command,
    template_commands,
    user_commands,
)
from sandgate.cli.exits import EXIT_INTERRUPTED, EXIT_REFUSED, exit_code_of
from sandgate.core.errors import SandgateError


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

    To begin: `sandgate doctor`, then `sandgate serve`. Each command says more with --help.
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
    app.add_typer(user_commands.app, name="user")
    app.add_typer(template_commands.app, name="template")
    app.add_typer(keys_command.app, name="keys")
    return app


def run(arguments: Sequence[str]) -> int:
    """Run one command and answer its exit code; a refusal is one line on standard error."""
    try:
        make_app()(list(arguments), prog_name="sandgate")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    except SandgateError as error:
        sys.stderr.write(f"sandgate: {error.message}\n")
        return exit_code_of(error)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has gone; nothing is left to be flushed at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_REFUSED
    return 0


def main() -> None:
    """The entry point."""
    sys.exit(run(sys.argv[1:]))
