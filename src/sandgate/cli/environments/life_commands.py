"""``sandgate environment create``, ``list``, ``get``, ``update``, ``pause``, ``resume`` and ``delete``."""

from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from sandgate.cli.connection import ProfileOption, connect
from sandgate.cli.environments.names import (
    EnvironmentArgument,
    MetadataOption,
    find_environment_id,
    find_snapshot_id,
    split_pairs,
)
from sandgate.cli.environments.snapshot_commands import BeginWithOption
from sandgate.cli.environments.volume_commands import MountOption, read_mounts
from sandgate.cli.exits import WrongUsage
from sandgate.cli.printable import one_line
from sandgate.cli.state import JsonOption, LimitOption
from sandgate.cli.terminal import print_record, print_records, print_table, show_time
from sandgate.core.states import EnvironmentStatus, Isolation, OnTimeout

if TYPE_CHECKING:
    from sandgate.sdk.answers import Environment

#: The newest Python.
DEFAULT_TEMPLATE = "python"

TemplateOption = Annotated[
    str | None,
    typer.Option(
        "--template",
        "-t",
        help="What it is made from; by default the newest Python, or what the snapshot is of.",
        show_default=False,
    ),
]
AllowOption = Annotated[
    list[str] | None,
    typer.Option(
        "--allow", help="A host that its code may reach, as packages.example.com:443; again for more.", metavar="HOST"
    ),
]
IsolationOption = Annotated[
    Isolation | None,
    typer.Option("--isolation", help="What keeps it apart: the class of its walls.", show_default=False),
]
_Lifetime = Annotated[int | None, typer.Option("--timeout", help="Its lifetime in seconds.", show_default=False)]
_OnTimeout = Annotated[
    OnTimeout | None,
    typer.Option("--on-timeout", help="What becomes of it at the end of its lifetime.", show_default=False),
]
_IdleTimeout = Annotated[
    int | None,
    typer.Option("--idle-timeout", help="Pause it when unused for so many seconds. 0: never.", show_default=False),
]

_Variables = Annotated[
    list[str] | None,
    typer.Option("--env", help="An environment variable of all code in it; again for more.", metavar="NAME=VALUE"),
]
_Secrets = Annotated[
    list[str] | None,
    typer.Option("--secret", help="Name of a secret of yours that your code finds; again for more.", metavar="NAME"),
]


def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Need not be unique.", show_default=False)],
    template: TemplateOption = None,
    snapshot: BeginWithOption = None,
    volume: MountOption = None,
    timeout: _Lifetime = None,
    metadata: MetadataOption = None,
    env: _Variables = None,
    secret: _Secrets = None,
    allow: AllowOption = None,
    isolation: IsolationOption = None,
    memory_mb: Annotated[
        int | None,
        typer.Option(
            "--memory-mb", help="Its memory in MB, files included unless they are on the disk.", show_default=False
        ),
    ] = None,
    cpu: Annotated[
        float | None, typer.Option("--cpu", help="Its processor time, in cores.", show_default=False)
    ] = None,
    processes: Annotated[
        int | None, typer.Option("--processes", help="How many processes it may have.", show_default=False)
    ] = None,
    disk_mb: Annotated[
        int | None, typer.Option("--disk-mb", help="What its files may take, in MB.", show_default=False)
    ] = None,
    on_timeout: _OnTimeout = None,
    idle_timeout: _IdleTimeout = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make an environment, and print its id.

    With --json: the environment.
    """
    asked = {"memory_mb": memory_mb, "cpu": cpu, "processes": processes, "disk_mb": disk_mb}
    limits = {limit: value for limit, value in asked.items() if value is not None}
    labels, variables = split_pairs(metadata or [], "--metadata"), split_pairs(env or [], "--env")
    mounts = read_mounts(volume or [])
    with connect(profile) as client:
        made = client.create_environment(
            name,
            template or (None if snapshot else DEFAULT_TEMPLATE),
            snapshot_id=find_snapshot_id(client, snapshot) if snapshot else None,
            volumes=mounts or None,
            timeout_s=timeout,
            metadata=labels or None,
            isolation=isolation,
            limits=limits or None,
            allow=allow or None,
            env=variables or None,
            secrets=secret or None,
            on_timeout=on_timeout,
            idle_timeout_s=idle_timeout,
        )
    print_record(made) if as_json else typer.echo(made.environment_id)


def list_environments(
    status: Annotated[
        list[EnvironmentStatus] | None, typer.Option("--status", help="Only those that are so; by default the live.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Only those with this name.", show_default=False)] = None,
    metadata: MetadataOption = None,
    limit: LimitOption = 50,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """List environments, newest first.

    With --json: {"environments": [{"environment_id", "name", "template", "status", …}]}.
    """
    labels = split_pairs(metadata or [], "--metadata")
    with connect(profile) as client:
        found = client.list_environments(
            statuses=status or (), metadata=labels, **({} if name is None else {"name": name})
        )
        rows = list(islice(found, limit))
    if as_json:
        print_records("environments", rows)
        return
    cells = [(row.name, row.template, row.status, show_time(row.expires_at), row.environment_id) for row in rows]
    print_table(("name", "template", "status", "until", "id"), cells)


def get(name: EnvironmentArgument, profile: ProfileOption = None) -> None:
    """Print an environment as JSON."""
    with connect(profile) as client:
        print_record(client.get_environment(find_environment_id(client, name)))


def update(
    name: EnvironmentArgument,
    new_name: Annotated[str | None, typer.Option("--name", help="Another name.", show_default=False)] = None,
    timeout: _Lifetime = None,
    metadata: MetadataOption = None,
    on_timeout: _OnTimeout = None,
    idle_timeout: _IdleTimeout = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change an environment.

    Times are counted anew from now, and labels take the place of those that it has.

    With --json: the environment.
    """
    if all(each is None for each in (new_name, timeout, metadata or None, on_timeout, idle_timeout)):
        raise WrongUsage("say what is to be changed; see --help")
    with connect(profile) as client:
        row = client.update_environment(
            find_environment_id(client, name),
            name=new_name,
            metadata=split_pairs(metadata, "--metadata") if metadata else None,
            timeout_s=timeout,
            on_timeout=on_timeout,
            idle_timeout_s=idle_timeout,
        )
    _show(row, as_json)


def pause(name: EnvironmentArgument, profile: ProfileOption = None, as_json: JsonOption = False) -> None:
    """Let an environment stand still; whatever uses it next resumes it.

    With --json: the environment.
    """
    with connect(profile) as client:
        row = client.pause_environment(find_environment_id(client, name))
    _show(row, as_json)


def resume(name: EnvironmentArgument, profile: ProfileOption = None, as_json: JsonOption = False) -> None:
    """Let an environment that is paused go on.

    With --json: the environment.
    """
    with connect(profile) as client:
        row = client.resume_environment(find_environment_id(client, name))
    _show(row, as_json)


def delete(name: EnvironmentArgument, profile: ProfileOption = None) -> None:
    """End an environment with all that runs in it; its files are gone."""
    with connect(profile) as client:
        environment_id = find_environment_id(client, name)
        client.delete_environment(environment_id)
    typer.echo(f"{environment_id} was deleted.")


def _show(row: "Environment", as_json: bool) -> None:
    if as_json:
        print_record(row)
    else:
        until = show_time(row.expires_at)
        typer.echo(one_line(f"{row.name} ({row.environment_id}) is {row.status}, until {until} at most."))
