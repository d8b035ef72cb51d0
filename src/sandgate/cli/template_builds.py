"""``sandgate template build``, ``list``, ``get``, ``log`` and ``delete``: templates of a server's users."""

import hashlib
import json
import os
import re
import stat
from base64 import b64encode
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sandgate.cli.connection import ProfileOption, connect
from sandgate.cli.exits import EXIT_REFUSED, WrongUsage
from sandgate.cli.printable import neutralise, one_line
from sandgate.cli.state import JsonOption
from sandgate.cli.streams import follow_to_end
from sandgate.cli.terminal import complain_once, print_record, print_records, print_table

if TYPE_CHECKING:
    from sandgate.sdk.client import Client
    from sandgate.sdk.templates import Template

_SHA256 = re.compile(r"[0-9a-f]{64}")
_PIECE_BYTES = 1 << 20
_MOST_FILE_BYTES = 8 << 20
NameArgument = Annotated[str, typer.Argument(help="NAME, NAME@VERSION or an id.", show_default=False, metavar="NAME")]


def build(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A recipe in YAML or JSON; - is standard input.")],
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Also when the newest version is the same.")] = False,
    public: Annotated[bool, typer.Option("--public", help="For everybody; only an admin may.")] = False,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Build a template from a recipe, on a server.

    A `base` that is `tar: FILE` is an archive on this machine, which is sent where the server needs it, and a file of
    `files` with `source: FILE` is one on this machine. Both are seen from the folder of the recipe. Files go with the
    recipe, in one request of the size that the server takes.

    What the build says is shown to its end. Ctrl-C ends the command, not the build. A server that restarts meanwhile is
    waited for. Exit code 1 when the build fails.

    With --json: the template at the end.
    """
    from sandgate.cli.workflows.documents import read_document

    recipe = read_document(file).value
    if not isinstance(recipe, dict):
        raise WrongUsage(f"{file} is no recipe: it has to be an object")
    folder = Path() if file == "-" else Path(file).parent
    recipe, archive = _find_archive(_with_sources(recipe, folder), folder)
    chosen = {name: True for name, on in (("rebuild", rebuild), ("public", public)) if on}
    with connect(profile) as client:
        begun = client.build_template({**recipe, **chosen})
        reference = begun.template_id or begun.name
        if begun.awaits_upload and archive is not None:
            with archive.open("rb") as content:
                client.upload_template_archive(reference, iter(partial(content.read, _PIECE_BYTES), b""))
        if begun.status == "building":
            _follow(client, reference, quietly=as_json)
        _show(client.get_template(reference), as_json)


def list_templates(
    name: Annotated[
        str | None,
        typer.Option("--name", help="All versions of this one; by default the newest of each.", show_default=False),
    ] = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """List templates of a server.

    With --json: {"templates": [{"name", "language", "available", "isolations", "version", "status", …}]}.
    """
    with connect(profile) as client:
        templates = client.list_templates(name)
    if as_json:
        print_records("templates", templates)
        return
    rows = [(each.name, str(each.version or ""), each.language_version, _usable(each)) for each in templates]
    print_table(("template", "version", "python", "status"), rows)


def _usable(template: "Template") -> str:
    if template.status in ("building", "failed"):
        return f"{template.status}: {template.status_reason}" if template.status_reason else template.status
    return "ready" if template.available else f"unavailable: {template.unavailable_reason}"


def _with_sources(recipe: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The recipe with the content of the files that it names by where they are on this machine."""
    files = recipe.get("files")
    if not isinstance(files, list):
        return recipe
    return {**recipe, "files": [_with_source(each, folder) for each in files]}


def _with_source(file: Any, folder: Path) -> Any:
    """What the server takes; what else is wrong with it the server says."""
    if not isinstance(file, dict) or not isinstance(file.get("source"), str):
        return file
    path = folder / file["source"]
    try:
        with _open(path) as content:
            whole = content.read(_MOST_FILE_BYTES + 1)
            is_program = bool(os.fstat(content.fileno()).st_mode & stat.S_IXUSR)
    except OSError as error:
        raise WrongUsage(f"{path} cannot be read: {error.strerror}") from None
    if len(whole) > _MOST_FILE_BYTES:
        raise WrongUsage(f"{path} is larger than the {_MOST_FILE_BYTES >> 20} MiB that files of a recipe have together")
    rest = {name: value for name, value in file.items() if name != "source"}
    return {"executable": is_program, **rest, "content_base64": b64encode(whole).decode()}


def _open(path: Path) -> BufferedReader:
    """A file to be read. Raises ``WrongUsage`` for what is none, and ``OSError``."""
    if "\0" in str(path):
        raise WrongUsage("The name of a file cannot have a NUL character")
    # A pipe that nobody writes is not waited for.
    content = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    if not stat.S_ISREG(os.fstat(content.fileno()).st_mode):
        content.close()
        raise WrongUsage(f"{path} is no file")
    return content


def _find_archive(recipe: dict[str, Any], folder: Path) -> tuple[dict[str, Any], Path | None]:
    """The recipe with the digest of the archive that it names by its path, and that."""
    base = recipe.get("base")
    named = base.get("tar") if isinstance(base, dict) else None
    if not isinstance(named, str) or _SHA256.fullmatch(named):
        return recipe, None
    path = folder / named
    try:
        with _open(path) as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise WrongUsage(f"{path} cannot be read: {error.strerror}") from None
    return {**recipe, "base": {"tar": digest}}, path


def get(name: NameArgument, profile: ProfileOption = None) -> None:
    """Print a template, with the lock of its packages, as JSON."""
    with connect(profile) as client:
        print_record(client.get_template(name))


def log(name: NameArgument, profile: ProfileOption = None) -> None:
    """Print what the build of a template has said."""
    with connect(profile) as client:
        typer.echo(neutralise(client.get_template_log(name)), nl=False)


def delete(
    name: NameArgument,
    force: Annotated[
        bool, typer.Option("--force", help="Also where there are snapshots, with which nothing can begin then.")
    ] = False,
    profile: ProfileOption = None,
) -> None:
    """Delete a template that was built.

    By a name all of its versions are deleted, by NAME@VERSION or an id that one.
    """
    with connect(profile) as client:
        client.delete_template(name, force=force)
    typer.echo(f"{one_line(name)} was deleted.")


def _follow(client: "Client", reference: str, *, quietly: bool) -> None:
    """Wait for the end of a build, and print what it says meanwhile."""
    for event in follow_to_end(lambda last: client.follow_template(reference, last), complain_once()):
        if event.kind == "log" and not quietly:
            typer.echo(neutralise(str(json.loads(event.data)["text"])), nl=False)


def _show(template: "Template", as_json: bool) -> None:
    if as_json:
        print_record(template)
    elif template.status == "ready":
        size = (template.size_bytes or 0) / 1024**2
        typer.echo(f"{template.name}@{template.version} is ready: {template.files} files, {size:.1f} MiB.")
    else:
        typer.echo(f"{template.name}@{template.version} has failed: {one_line(template.status_reason or '')}", err=True)
    if template.status == "failed":
        raise typer.Exit(EXIT_REFUSED)
