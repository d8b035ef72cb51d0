"""Which languages the code of an environment can be written in."""

import os
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from sandgate.core.errors import ConfigurationError
from sandgate.core.language import BUILT_IN, Language

_FOLDERS = ("/usr/local/bin", "/usr/bin", "/bin")
# Of the machine's files sandboxes see these, beside the interpreter's folder.
_SEEN = ("/usr", "/bin", "/etc/alternatives")


def parse_languages(text: str) -> tuple[Language, ...]:
    """Those that the setting declares, and the built-in ones, which it can replace. Raises ``ConfigurationError``."""
    declared = {language.name: language for language in BUILT_IN}
    for part in filter(None, map(str.strip, text.split(";"))):
        name, _, command = part.partition("=")
        name, dot, extension = name.strip().partition(".")
        try:
            words = tuple(shlex.split(command))
        except ValueError:
            raise _no_language(part) from None
        if not words or not name.isidentifier() or name == "python" or (dot and not extension.isalnum()):
            raise _no_language(part)
        declared[name] = Language(name, (words,), dot + extension)
    return tuple(declared.values())


def _no_language(part: str) -> ConfigurationError:
    return ConfigurationError(
        f"SANDGATE_LANGUAGES has {part[:80]!r}, which is no language; write NAME.EXTENSION=COMMAND, as in "
        "`perl.pl=perl {file}`"
    )


def find_languages(declared: Sequence[Language], prefix: str) -> tuple[Language, ...]:
    """Those of them whose program is there for environments with this interpreter's folder."""
    places = os.pathsep.join((f"{prefix}/bin", *_FOLDERS))
    return tuple(
        language
        for language in declared
        if any(_is_there(command[0], places, (prefix, *_SEEN)) for command in language.commands)
    )


def _is_there(program: str, places: str, seen: Sequence[str]) -> bool:
    found = shutil.which(program, path=places)
    return found is not None and any(Path(found).resolve().is_relative_to(folder) for folder in seen)
