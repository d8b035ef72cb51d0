"""``sandgate session create``, ``list``, ``get``, ``interrupt``, ``restart`` and ``delete``."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from sandgate.cli.connection import ProfileOption, connect
from sandgate.cli.environments.names import EnvironmentArgument, SessionArgument, find_environment_id, split_pairs
from sandgate.cli.printable import one_line
from sandgate.cli.state import JsonOption
from sandgate.cli.terminal import print_record, print_records, print_table, show_time

if TYPE_CHECKING:
    from sandgate.sdk.answers import Session


class SessionLanguage(StrEnum):
    """What a session's code may be written in."""

    PYTHON = "python"
    BASH = "bash"


def create(
    name: EnvironmentArgument,
    language: Annotated[
        SessionLanguage, typer.Option("--language", "-l", help="What its code is written in.")
    ] = SessionLanguage.PYTHON,
    env: Annotated[
        list[str] | None, typer.Option("--env", help="An environment variable; again for more.", metavar="NAME=VALUE")
    ] = None,
    cwd: Annotated[str | None, typer.Option("--cwd", help="The folder to begin in.", show_default=False)] = None,
    idle_timeout: Annotated[
        float | None,
        typer.Option("--idle-timeout", help="End it when unused for so many seconds.", show_default=False),
    ] = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Begin a session, and print its id.

    It is an interpreter that keeps what its code makes; `sandgate run --session` runs code in it.

    With --json: the session.
    """
    variables = split_pairs(env or [], "--env")
    with connect(profile) as client:
        made = client.create_session(
            find_environment_id(client, name),
            language=language,
            cwd=cwd,
            env=variables or None,
            idle_timeout_s=idle_timeout,
        )
    print_record(made) if as_json else typer.echo(made.session_id)


def list_sessions(name: EnvironmentArgument, profile: ProfileOption = None, as_json: JsonOption = False) -> None:
    """List sessions of an environment, newest first.

    The last ones that have ended are among them.

    With --json: {"sessions": [{"session_id", "language", "status", "executions", …}]}.
    """
    with connect(profile) as client:
        rows = client.list_sessions(find_environment_id(client, name))
    if as_json:
        print_records("sessions", rows)
        return
    cells = [
        (row.language, row.status, str(row.executions), show_time(row.last_used_at), row.session_id) for row in rows
    ]
    print_table(("language", "status", "executions", "used", "id"), cells)


def get(name: EnvironmentArgument, session_id: SessionArgument, profile: ProfileOption = None) -> None:
    """Print a session as JSON.

    `background` is what it has written between executions.
    """
    with connect(profile) as client:
        print_record(client.get_session(find_environment_id(client, name), session_id))


def interrupt(
    name: EnvironmentArgument, session_id: SessionArgument, profile: ProfileOption = None, as_json: JsonOption = False
) -> None:
    """Interrupt what runs in a session; what it knows stays.

    With --json: the session.
    """
    with connect(profile) as client:
        _show(client.interrupt_session(find_environment_id(client, name), session_id), as_json)


def restart(
    name: EnvironmentArgument, session_id: SessionArgument, profile: ProfileOption = None, as_json: JsonOption = False
) -> None:
    """Give a session a new interpreter, which knows nothing.

    With --json: the session.
    """
    with connect(profile) as client:
        _show(client.restart_session(find_environment_id(client, name), session_id), as_json)


def delete(name: EnvironmentArgument, session_id: SessionArgument, profile: ProfileOption = None) -> None:
    """End a session with all that runs in it."""
    with connect(profile) as client:
        client.delete_session(find_environment_id(client, name), session_id)
    typer.echo(one_line(f"{session_id} has ended."))


def _show(session: "Session", as_json: bool) -> None:
    if as_json:
        print_record(session)
    else:
        typer.echo(one_line(f"{session.session_id} is {session.status}."))
