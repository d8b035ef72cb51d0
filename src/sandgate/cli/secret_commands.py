"""``sandgate secret set``, ``list`` and ``delete``: secrets of workflows and environments."""

import sys
from typing import Annotated

import typer

from sandgate.cli.asking import ask
from sandgate.cli.connection import ProfileOption, connect
from sandgate.cli.groups import command_group
from sandgate.cli.printable import one_line
from sandgate.cli.state import JsonOption
from sandgate.cli.terminal import print_record, print_records, print_table, show_time

app = command_group("Secrets of yours for code, which nobody can read back.")

# More than a server takes, so that it is the server that says how long one may be.
_LONGEST = 1024 * 1024

NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="1 to 64 of A-Z 0-9 _, as API_TOKEN.", show_default=False)
]


@app.command("set")
def set_value(
    name: NameArgument,
    value_stdin: Annotated[
        bool,
        typer.Option("--value-stdin", help="Read the value from standard input; a newline at its end is not of it."),
    ] = False,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a secret, or give it another value.

    The value is asked for. Workflows use it as ${{ secrets.NAME }}, environments are given it with --secret.

    With --json: {"name", "creation_time", "updated_at"}.
    """
    value = _read_value() if value_stdin else ask("Value", "--value-stdin", hide=True)
    with connect(profile) as client:
        secret = client.put_secret(name, value)
    print_record(secret) if as_json else typer.echo(one_line(f"{secret.name} is set."))


@app.command("list")
def list_secrets(profile: ProfileOption = None, as_json: JsonOption = False) -> None:
    """List secrets by name, without their values.

    With --json: {"secrets": [{"name", "creation_time", "updated_at"}]}.
    """
    with connect(profile) as client:
        rows = client.list_secrets()
    if as_json:
        print_records("secrets", rows)
        return
    print_table(
        ("name", "made", "changed"),
        [(row.name, show_time(row.creation_time), show_time(row.updated_at)) for row in rows],
    )


@app.command("delete")
def delete(name: NameArgument, profile: ProfileOption = None) -> None:
    """Delete a secret; steps that name it fail from now on."""
    with connect(profile) as client:
        client.delete_secret(name)
    typer.echo(one_line(f"{name} was deleted."))


def _read_value() -> str:
    return sys.stdin.read(_LONGEST).removesuffix("\n").removesuffix("\r")
