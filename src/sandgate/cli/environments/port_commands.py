"""``sandgate port ask`` and ``link``: what listens in environments."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sandgate.cli.connection import ProfileOption, connect
from sandgate.cli.environments.names import EnvironmentArgument, find_environment_id
from sandgate.cli.exits import EXIT_REFUSED, WrongUsage
from sandgate.cli.printable import neutralise, one_line
from sandgate.cli.state import JsonOption
from sandgate.cli.terminal import complain, print_record

if TYPE_CHECKING:
    from collections.abc import Iterator

_STANDARD = "-"
_PIECE_BYTES = 64 * 1024
_FIRST_ERROR = 400

PortArgument = Annotated[
    int, typer.Argument(metavar="PORT", min=1, max=65535, help="What it listens on.", show_default=False)
]


def ask(
    name: EnvironmentArgument,
    port: PortArgument,
    path: Annotated[str, typer.Argument(metavar="PATH", help="With its query, if there is one.")] = "/",
    method: Annotated[
        str | None,
        typer.Option("--method", "-X", help="By default GET, or POST where there is a body.", show_default=False),
    ] = None,
    header: Annotated[
        list[str] | None, typer.Option("--header", "-H", help="Again for more.", metavar="NAME:VALUE")
    ] = None,
    body: Annotated[
        str | None,
        typer.Option("--body", help="A file to send; - is standard input.", metavar="FILE", show_default=False),
    ] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Send control characters to the terminal as they are.")] = False,
    profile: ProfileOption = None,
) -> None:
    """Ask an HTTP server that listens in an environment.

    The body of its answer is printed as it comes.

    Exit code 1 when the status of the answer is 400 or more, which is then said on standard error.
    """
    headers = dict(_split_header(text) for text in header or [])
    content = None if body is None else _read(body)
    verb = method or ("GET" if content is None else "POST")
    with connect(profile) as client:
        environment_id = find_environment_id(client, name)
        with client.open_port(environment_id, port, path, method=verb, headers=headers, content=content) as answer:
            _write(answer.pieces, raw=raw)
    if answer.status >= _FIRST_ERROR:
        complain(f"the server inside has answered {answer.status}")
        raise typer.Exit(EXIT_REFUSED)


def link(
    name: EnvironmentArgument,
    port: PortArgument,
    expires_in: Annotated[
        int | None, typer.Option("--expires-in", min=1, help="Seconds; by default an hour.", show_default=False)
    ] = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print an address of a port for others.

    Whoever has it may talk to the port, without any login, until it expires.

    With --json: {"link_path", "link_url", "port", "expires_at"}.
    """
    with connect(profile) as client:
        made = client.create_port_link(find_environment_id(client, name), port, expires_in_s=expires_in)
        address = made.link_url or client.address + made.link_path
    print_record(made) if as_json else typer.echo(one_line(address))


def _split_header(text: str) -> tuple[str, str]:
    """Raises ``WrongUsage``."""
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise WrongUsage(f"--header takes NAME:VALUE, not {one_line(text, 128)!r}")
    return name.strip(), value.strip()


def _read(path: str) -> bytes:
    """Raises ``WrongUsage``."""
    try:
        return sys.stdin.buffer.read() if path == _STANDARD else Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise WrongUsage(f"{one_line(path, 256)} cannot be read: {reason}") from error


def _write(pieces: "Iterator[bytes]", *, raw: bool) -> None:
    """As it is, or made harmless for a terminal."""
    if raw or not sys.stdout.isatty():
        for piece in pieces:
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
        return
    sys.stdout.write(neutralise(b"".join(pieces).decode(errors="replace")))
