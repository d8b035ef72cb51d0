"""What people write for an environment and what is in it or kept of it, and what is meant by it."""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from sandgate.cli.exits import WrongUsage
from sandgate.cli.naming import find_only, find_own
from sandgate.cli.printable import one_line
from sandgate.core.errors import EnvironmentNotFound, ProcessNotFound, SnapshotNotFound, VolumeNotFound

if TYPE_CHECKING:
    from sandgate.sdk.client import Client

EnvironmentArgument = Annotated[
    str,
    typer.Argument(metavar="ENVIRONMENT", help="Id or name of the environment.", show_default=False),
]
VolumeArgument = Annotated[str, typer.Argument(metavar="VOLUME", help="Id or name of the volume.", show_default=False)]
SnapshotArgument = Annotated[
    str, typer.Argument(metavar="SNAPSHOT", help="Id or name of the snapshot.", show_default=False)
]
SessionArgument = Annotated[str, typer.Argument(metavar="SESSION", help="Id of the session.", show_default=False)]
ProcessArgument = Annotated[
    str, typer.Argument(metavar="PROCESS", help="Id or name of the process.", show_default=False)
]
MetadataOption = Annotated[
    list[str] | None, typer.Option("--metadata", "-m", help="A label; again for more.", metavar="NAME=VALUE")
]

_ENVIRONMENT_ID = re.compile(r"env-[0-9a-z]{12,64}")
_VOLUME_ID = re.compile(r"vol-[0-9a-z]{12,64}")
_SNAPSHOT_ID = re.compile(r"snap-[0-9a-z]{12,64}")
_PROCESS_ID = re.compile(r"proc-[0-9a-z]{12,64}")


def find_environment_id(client: "Client", name: str) -> str:
    """The id that is meant: the text itself, or that of the caller's only live environment with this name.

    Raises ``EnvironmentNotFound``, ``NameNotClear``, and what the client raises.
    """
    if _ENVIRONMENT_ID.fullmatch(name):
        return name
    rows = ((each.environment_id, each.owner_id) for each in client.list_environments(name=name))
    found = find_own(client, rows, f"live environments are called {one_line(name, 128)}")
    if found is None:
        problem = f"No live environment of yours is called {one_line(name, 128)!r}"
        raise EnvironmentNotFound(f"{problem}; see: sandgate environment list")
    return found


def find_snapshot_id(client: "Client", name: str) -> str:
    """The same for a snapshot of the caller's. Raises ``SnapshotNotFound``, ``NameNotClear``."""
    if _SNAPSHOT_ID.fullmatch(name):
        return name
    rows = ((each.snapshot_id, each.owner_id) for each in client.list_snapshots(name=name))
    found = find_own(client, rows, f"snapshots are called {one_line(name, 128)}")
    if found is None:
        raise SnapshotNotFound(f"No snapshot of yours is called {one_line(name, 128)!r}; see: sandgate snapshot list")
    return found


def find_volume_id(client: "Client", name: str) -> str:
    """The same for a volume of the caller's, of which no two have the same name. Raises ``VolumeNotFound``."""
    if _VOLUME_ID.fullmatch(name):
        return name
    found = client.find_volume(name)
    if found is None:
        raise VolumeNotFound(f"No volume of yours is called {one_line(name, 128)!r}; see: sandgate volume list")
    return found.volume_id


def find_process_id(client: "Client", environment_id: str, name: str) -> str:
    """The same for a process: of those with this name the only one that runs, or else the only one that has ended.

    Raises ``ProcessNotFound``, ``NameNotClear``.
    """
    if _PROCESS_ID.fullmatch(name):
        return name
    shown = one_line(name, 128)
    named = [each for each in client.list_processes(environment_id) if each.name == name]
    live = [each for each in named if each.is_live]
    found = find_only((each.process_id for each in live or named), f"processes are called {shown}")
    if found is None:
        raise ProcessNotFound(f"No process there is called {shown!r}; see: sandgate process list")
    return found


def split_pairs(texts: Iterable[str], option: str) -> dict[str, str]:
    """``NAME=VALUE`` as many times as given. Raises ``WrongUsage``."""
    pairs: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise WrongUsage(f"{option} takes NAME=VALUE, not {one_line(text, 128)!r}")
        if name in pairs:
            raise WrongUsage(f"{option} has {one_line(name, 128)} twice")
        pairs[name] = value
    return pairs
