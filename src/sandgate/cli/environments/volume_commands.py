"""``sandgate volume create``, ``list``, ``get`` and ``delete``, and how an environment is given one."""

from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from sandgate.cli.connection import ProfileOption, connect
from sandgate.cli.environments.names import VolumeArgument, find_volume_id
from sandgate.cli.exits import WrongUsage
from sandgate.cli.printable import one_line
from sandgate.cli.state import JsonOption, LimitOption
from sandgate.cli.terminal import print_record, print_records, print_table, show_time

if TYPE_CHECKING:
    from sandgate.sdk.volumes import Mount, Volume

MountOption = Annotated[
    list[str] | None,
    typer.Option(
        "--volume", help="A volume of yours, and where it is to be; again for more.", metavar="NAME:PATH[:ro]"
    ),
]
_READ_ONLY = ":ro"


def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="No two of yours have the same.", show_default=False)],
    size_mb: Annotated[
        int | None,
        typer.Option("--size-mb", help="All that it may ever hold; by default the server's.", show_default=False),
    ] = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make an empty volume, and print its id.

    With --json: the volume.
    """
    with connect(profile) as client:
        made = client.create_volume(name, size_mb=size_mb)
    print_record(made) if as_json else typer.echo(made.volume_id)


def list_volumes(
    name: Annotated[str | None, typer.Option("--name", help="Only the one with this name.", show_default=False)] = None,
    limit: LimitOption = 50,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """List volumes, newest first.

    With --json: {"volumes": [{"volume_id", "name", "size_mb", "used_bytes", "environment_ids", …}]}.
    """
    with connect(profile) as client:
        rows = list(islice(client.list_volumes(name=name), limit))
    if as_json:
        print_records("volumes", rows)
        return
    cells = [
        (
            row.name,
            str(row.size_mb),
            _used(row),
            str(len(row.environment_ids)),
            show_time(row.creation_time),
            row.volume_id,
        )
        for row in rows
    ]
    print_table(("name", "MiB", "used", "environments", "made", "id"), cells)


def get(name: VolumeArgument, profile: ProfileOption = None) -> None:
    """Print a volume, with the live environments that have it, as JSON."""
    with connect(profile) as client:
        print_record(client.get_volume(find_volume_id(client, name)))


def delete(
    name: VolumeArgument,
    force: Annotated[bool, typer.Option("--force", help="End the live environments that have it, too.")] = False,
    profile: ProfileOption = None,
) -> None:
    """Delete a volume with all that is in it."""
    with connect(profile) as client:
        volume_id = find_volume_id(client, name)
        client.delete_volume(volume_id, force=force)
    typer.echo(f"{volume_id} was deleted.")


def read_mounts(texts: Iterable[str]) -> "list[Mount]":
    """``NAME:PATH`` or ``NAME:PATH:ro``, as many times as given. Raises ``WrongUsage``."""
    from sandgate.sdk.volumes import Mount

    mounts = []
    for text in texts:
        name, _, place = text.partition(":")
        path = place.removesuffix(_READ_ONLY)
        if not name or not path.startswith("/"):
            raise WrongUsage(
                f"--volume takes NAME:PATH or NAME:PATH:ro with an absolute path, not {one_line(text, 128)!r}"
            )
        mounts.append(Mount(name, path, read_only=place.endswith(_READ_ONLY)))
    return mounts


def _used(volume: "Volume") -> str:
    return "" if volume.used_bytes is None else f"{volume.used_bytes / 1024**2:.1f}"
