"""``sandgate files ls``, ``get`` and ``put``."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from sandgate.cli.connection import ProfileOption, connect
from sandgate.cli.environments.names import EnvironmentArgument, find_environment_id
from sandgate.cli.exits import WrongUsage
from sandgate.cli.printable import one_line
from sandgate.cli.state import JsonOption, LimitOption
from sandgate.cli.terminal import print_record, print_records, print_table, show_time

_STANDARD = "-"
_PIECE_BYTES = 256 * 1024

PathArgument = Annotated[
    str,
    typer.Argument(metavar="PATH", help="In the environment, as seen from its work folder.", show_default=False),
]


def list_files(
    name: EnvironmentArgument,
    path: Annotated[str, typer.Argument(metavar="PATH", help="A folder in the environment.")] = ".",
    limit: LimitOption = 1000,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """List what is in a folder, by name.

    With --json: {"files": [{"path", "name", "kind", "size_bytes", "mode", "modified_at", …}]}.
    """
    with connect(profile) as client:
        entries = list(islice(client.list_files(find_environment_id(client, name), path), limit))
    if as_json:
        print_records("files", entries)
        return
    rows = [
        (entry.mode, entry.kind, str(entry.size_bytes), show_time(entry.modified_at), entry.name) for entry in entries
    ]
    print_table(("mode", "kind", "bytes", "changed", "name"), rows)


def get(
    name: EnvironmentArgument,
    path: PathArgument,
    target: Annotated[
        str | None,
        typer.Argument(metavar="FILE", help="Here; - is standard output. By default its name, in this folder."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace a file that is here already.")] = False,
    profile: ProfileOption = None,
) -> None:
    """Copy a file from an environment.

    It comes to this machine whole, or not at all.
    """
    wanted = target or path.rstrip("/").rpartition("/")[2]
    if wanted in ("", ".", ".."):
        raise WrongUsage(f"{one_line(path, 128)!r} has no name of a file; say where it is to go")
    if wanted != _STANDARD and Path(wanted).exists() and not force:
        raise WrongUsage(f"{one_line(wanted, 256)} is here already; replace it with --force")
    with connect(profile) as client, client.open_file(find_environment_id(client, name), path) as pieces:
        if wanted == _STANDARD:
            _write(sys.stdout.buffer, pieces)
        else:
            _write_file(Path(wanted), pieces)


def put(
    name: EnvironmentArgument,
    source: Annotated[str, typer.Argument(metavar="FILE", help="Here; - is standard input.", show_default=False)],
    path: Annotated[
        str | None,
        typer.Argument(metavar="PATH", help="In the environment; by default its name, in the work folder."),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Refuse where there is a file already.")] = False,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy a file to an environment.

    It goes there whole, or not at all.

    With --json: the file as it is there.
    """
    if path is None and source == _STANDARD:
        raise WrongUsage("say which PATH standard input is to have")
    with _opened(source) as file, connect(profile) as client:
        environment_id = find_environment_id(client, name)
        wanted = path or Path(source).name
        entry = client.write_file(environment_id, wanted, _pieces(file), overwrite=not keep)
    if as_json:
        print_record(entry)
    else:
        typer.echo(one_line(f"{entry.path} has {entry.size_bytes} bytes."))


def _opened(source: str) -> BinaryIO:
    """Raises ``WrongUsage``."""
    if source == _STANDARD:
        return sys.stdin.buffer
    try:
        return Path(source).open("rb")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise WrongUsage(f"{one_line(source, 256)} cannot be read: {reason}") from error


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.read(_PIECE_BYTES):
        yield piece


def _write(file: BinaryIO, pieces: Iterator[bytes]) -> None:
    file.writelines(pieces)
    file.flush()


def _write_file(target: Path, pieces: Iterator[bytes]) -> None:
    """Beside its place first, so that what is cut off in the middle leaves nothing. Raises ``WrongUsage``."""
    try:
        descriptor, beside = tempfile.mkstemp(prefix=".sandgate-", dir=target.parent)
    except OSError as error:
        raise WrongUsage(f"{one_line(str(target), 256)} cannot be written: {error.strerror}") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            _write(file, pieces)
        Path(beside).chmod(0o666 & ~_mask())
        Path(beside).replace(target)
    except OSError as error:
        raise WrongUsage(f"{one_line(str(target), 256)} cannot be written: {error.strerror}") from error
    finally:
        with suppress(FileNotFoundError):
            Path(beside).unlink()


def _mask() -> int:
    """What this user takes away from the mode of new files."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
