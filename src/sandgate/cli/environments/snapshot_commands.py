"""``sandgate snapshot create``, ``list``, ``get`` and ``delete``, and ``sandgate environment fork``."""

from itertools import islice
from typing import Annotated

import typer

from sandgate.cli.connection import ProfileOption, connect
from sandgate.cli.environments.names import (
    EnvironmentArgument,
    MetadataOption,
    SnapshotArgument,
    find_environment_id,
    find_snapshot_id,
    split_pairs,
)
from sandgate.cli.state import JsonOption, LimitOption
from sandgate.cli.terminal import print_record, print_records, print_table, show_time

BeginWithOption = Annotated[
    str | None,
    typer.Option("--snapshot", help="Id or name of a snapshot to begin with.", metavar="SNAPSHOT", show_default=False),
]


def create(
    name: EnvironmentArgument,
    called: Annotated[str | None, typer.Option("--name", help="Need not be unique.", show_default=False)] = None,
    metadata: MetadataOption = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Keep the files of an environment, and print the id.

    Other environments can begin with them as they are now: see --snapshot of `environment create`.

    With --json: the snapshot.
    """
    labels = split_pairs(metadata or [], "--metadata")
    with connect(profile) as client:
        made = client.create_snapshot(find_environment_id(client, name), name=called, metadata=labels or None)
    if not made.consistent:
        typer.echo("sandgate: files were changed while they were read; not all are of the same moment", err=True)
    print_record(made) if as_json else typer.echo(made.snapshot_id)


def list_snapshots(
    name: Annotated[str | None, typer.Option("--name", help="Only those with this name.", show_default=False)] = None,
    template: Annotated[
        str | None, typer.Option("--template", "-t", help="Only those of this template.", show_default=False)
    ] = None,
    limit: LimitOption = 50,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """List snapshots, newest first.

    With --json: {"snapshots": [{"snapshot_id", "name", "template", "size_bytes", "files", …}]}.
    """
    with connect(profile) as client:
        rows = list(islice(client.list_snapshots(name=name, template=template), limit))
    if as_json:
        print_records("snapshots", rows)
        return
    cells = [
        (
            row.name,
            row.template,
            str(row.files),
            f"{row.size_bytes / 1024**2:.1f}",
            show_time(row.creation_time),
            row.snapshot_id,
        )
        for row in rows
    ]
    print_table(("name", "template", "files", "MiB", "made", "id"), cells)


def get(name: SnapshotArgument, profile: ProfileOption = None) -> None:
    """Print a snapshot as JSON."""
    with connect(profile) as client:
        print_record(client.get_snapshot(find_snapshot_id(client, name)))


def delete(name: SnapshotArgument, profile: ProfileOption = None) -> None:
    """Delete a snapshot.

    Environments that began with it keep their files.
    """
    with connect(profile) as client:
        snapshot_id = find_snapshot_id(client, name)
        client.delete_snapshot(snapshot_id)
    typer.echo(f"{snapshot_id} was deleted.")


def fork(
    name: EnvironmentArgument,
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=1000, help="How many copies.")] = 1,
    called: Annotated[
        str | None, typer.Option("--name", help="Of the copies; by default that of the original.", show_default=False)
    ] = None,
    metadata: MetadataOption = None,
    timeout: Annotated[
        int | None, typer.Option("--timeout", help="Their lifetime in seconds.", show_default=False)
    ] = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make copies of an environment, and print their ids.

    They begin with its files as they are now, and are as the original is in all that is not given. Nothing that runs is
    copied. There are all of them, or none.

    With --json: {"environments": [{"environment_id", "name", "forked_from", …}]}.
    """
    labels = split_pairs(metadata, "--metadata") if metadata else None
    with connect(profile) as client:
        environment_id = find_environment_id(client, name)
        copies = client.fork_environment(environment_id, count, name=called, metadata=labels, timeout_s=timeout)
    if as_json:
        print_records("environments", copies)
        return
    for copy in copies:
        typer.echo(copy.environment_id)
