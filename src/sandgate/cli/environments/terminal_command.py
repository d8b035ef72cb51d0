"""``sandgate terminal``: a shell in an environment, or the terminal of a process there."""

import re
import sys
from typing import Annotated

import typer

from sandgate.cli.connection import ProfileOption, connect
from sandgate.cli.environments.names import EnvironmentArgument, find_environment_id
from sandgate.cli.exits import WrongUsage
from sandgate.cli.printable import one_line

_EXITED = re.compile(r"exited with (\d{1,3})")


def terminal(
    name: EnvironmentArgument,
    process: Annotated[
        str | None,
        typer.Option("--process", help="The terminal of this process; by default a new shell.", show_default=False),
    ] = None,
    profile: ProfileOption = None,
) -> None:
    """Work in an environment on this terminal.

    The exit code is that of the shell or process.

    Ctrl-] leaves: a shell then ends, a process goes on. Every other key goes to the environment. What runs there may
    draw on this terminal as it likes, as with any remote shell.
    """
    from sandgate.cli.environments.raw_terminal import lend, size_of

    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise WrongUsage("sandgate terminal needs a terminal; without one use: sandgate run")
    keys, screen = sys.stdin.fileno(), sys.stdout.fileno()
    size = rows, columns = size_of(screen)
    with connect(profile) as client:
        environment_id = find_environment_id(client, name)
        remote = client.open_terminal(environment_id, process_id=process, rows=rows, columns=columns)
        with remote:
            has_ended = lend(remote, keys, screen, size)
    if not has_ended:
        typer.echo(f"\nLeft {environment_id}.")
        return
    exited = _EXITED.fullmatch(remote.ending)
    if exited is None:
        typer.echo(f"\nThe {'shell' if process is None else 'process'} {one_line(remote.ending) or 'has ended'}.")
    raise typer.Exit(min(255, int(exited[1])) if exited else 1)
