"""The command ``sandgate``: its subcommands, and how their refusals reach the terminal.

Exit codes: see :mod:`sandgate.cli.exits`. Modules that take long to import are imported inside the commands that need
them, and commands when they are asked for, so that each answers at once.
"""

import io
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from sandgate.cli.commands import LazyGroup
from sandgate.cli.exits import EXIT_INTERRUPTED, EXIT_REFUSED, exit_code_of
from sandgate.cli.printable import neutralise
from sandgate.cli.version_command import print_version
from sandgate.core.errors import NotAuthenticated, SandgateError
from sandgate.sdk.errors import ApiError, ClientError


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Run untrusted code in isolated environments behind an HTTP API.

    To begin a server: `sandgate doctor`, then `sandgate serve`. To use one: `sandgate login`, then `sandgate run`. Each
    command says more with --help.
    """


def make_app() -> typer.Typer:
    """All commands."""
    return typer.Typer(
        name="sandgate",
        cls=LazyGroup,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        callback=_options,
    )


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
    # The library for requests would import its own command as well, and with it as much as most of ours need.
    sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that lacks a character is shown its number instead of a traceback.
            stream.reconfigure(errors="backslashreplace")
    sys.exit(run(sys.argv[1:]))
