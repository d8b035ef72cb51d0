"""What comes with ``sandgate run``: code, arguments, files and input of this machine."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from sandgate.cli.exits import WrongUsage
from sandgate.cli.printable import one_line

_STANDARD = "-"
_LARGEST_BYTES = 64 * 1024 * 1024
_LANGUAGES = {".sh": "bash", ".bash": "bash", ".js": "javascript", ".mjs": "javascript"}

FileArgument = Annotated[
    str | None, typer.Argument(metavar="FILE", help="Code; - is standard input.", show_default=False)
]
ArgumentsArgument = Annotated[
    list[str] | None, typer.Argument(metavar="ARGUMENTS…", help="What the code finds as its arguments.")
]
CodeOption = Annotated[
    str | None,
    typer.Option("-c", help="The code itself, in the place of FILE.", metavar="CODE", show_default=False),
]
WhereOption = Annotated[
    str | None,
    typer.Option(
        "--environment",
        "-e",
        help="Id or name of one that is there; without, one is made for this run, and ended with it.",
        metavar="ENVIRONMENT",
        show_default=False,
    ),
]
MadeFromOption = Annotated[
    str | None,
    typer.Option(
        "--template", "-t", help="What one that is made is made from; by default the newest Python.", show_default=False
    ),
]
SessionOption = Annotated[
    str | None,
    typer.Option("--session", help="Id of the session of --environment that runs it.", show_default=False),
]
LanguageOption = Annotated[
    str | None,
    typer.Option("--language", "-l", help="By default what the name of FILE says, or python.", show_default=False),
]
VariablesOption = Annotated[
    list[str] | None,
    typer.Option("--env", help="An environment variable; again for more.", metavar="NAME=VALUE"),
]
FilesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--file",
        help="A small file of this machine that the code finds, by its name or as PATH; again for more.",
        metavar="FILE[:PATH]",
    ),
]
FolderOption = Annotated[str | None, typer.Option("--cwd", help="The folder to begin in.", show_default=False)]
InputOption = Annotated[bool, typer.Option("--stdin", help="Give standard input to the code.")]
TimeoutOption = Annotated[
    float | None, typer.Option("--timeout", help="Its time limit in seconds.", show_default=False)
]


def language_of(path: str | None) -> str | None:
    """What the name of a file says of its language."""
    return _LANGUAGES.get(Path(path or "").suffix)


def read_input() -> str:
    """Standard input, to its end."""
    return sys.stdin.read(_LARGEST_BYTES)


def read_code(
    file: str | None, arguments: Sequence[str], code: str | None, *, with_input: bool
) -> tuple[str, list[str]]:
    """The code and its arguments, of which FILE is the first where the code was given. Raises ``WrongUsage``."""
    if code is not None:
        return code, [*([] if file is None else [file]), *arguments]
    if file is None:
        raise WrongUsage("give FILE or -c CODE")
    if file != _STANDARD:
        return _decode(file, _read_file(file)), list(arguments)
    if with_input:
        raise WrongUsage("standard input is either the code (-) or what it reads (--stdin)")
    return read_input(), list(arguments)


def read_files(texts: Sequence[str]) -> dict[str, str | bytes]:
    """Contents by the path that the code finds them at. Raises ``WrongUsage``."""
    files: dict[str, str | bytes] = {}
    for text in texts:
        here, _, there = text.partition(":")
        path = there or Path(here).name
        if path in files:
            raise WrongUsage(f"two --file have the path {one_line(path, 128)}")
        files[path] = _read_file(here)
    return files


def _decode(path: str, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise WrongUsage(f"{one_line(path, 256)} is no text in UTF-8") from error


def _read_file(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            content = file.read(_LARGEST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise WrongUsage(f"{one_line(path, 256)} cannot be read: {reason}") from error
    if len(content) > _LARGEST_BYTES:
        too_large = f"{one_line(path, 256)} has more than {_LARGEST_BYTES} bytes"
        raise WrongUsage(f"{too_large}; send it before, with: sandgate files put")
    return content
