"""The text of the code's lines in what the interpreter says of an uncaught exception."""

import os
import sys
import traceback
from typing import Any, Optional

# The interpreter's own functions find the text of a line in a file of that name up to 3.10, nowhere if the name has
# angle brackets in 3.11 and 3.12, and with the help of linecache, which knows the code, from 3.13 on.
_LOOKS_FOR_FILES = sys.version_info < (3, 11)
FINDS_NOTHING = (3, 11) <= sys.version_info < (3, 13)


def format_with_lines(error: BaseException, plain: str) -> str:
    """What the interpreter would print of an exception if it found the lines; ``plain`` is what it printed without."""
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    # It alone knows what the code may have meant instead of a name.
    last, wanted = text.rstrip("\n").rpartition("\n")[2], plain.rstrip("\n").rpartition("\n")[2]
    if wanted.startswith(last + ". Did you mean"):
        return text.rstrip("\n")[: -len(last)] + wanted + "\n"
    return text


class ShownSource:
    """While it is entered, the interpreter's own functions find the text of the code's lines.

    They look for a file of the code's name in the folders of ``sys.path``, so that one has to be there.
    """

    def __init__(self, name: str, source: bytes) -> None:
        self._name = name
        self._source = source
        self._folder: Optional[str] = None

    def __enter__(self) -> None:
        if not _LOOKS_FOR_FILES:
            return
        folder = "{}/.code-{}".format(os.environ.get("TMPDIR", "/tmp"), os.urandom(8).hex())
        try:
            os.mkdir(folder, 0o700)
            self._folder = folder
            with open(folder + "/" + self._name, "wb") as file:
                file.write(self._source)
        except OSError:
            # The disk is full, or the code has taken the folder away: then lines are shown without their text.
            return
        sys.path.insert(0, folder)

    def __exit__(self, *_error: Any) -> None:
        if self._folder is None:
            return
        try:
            if self._folder in sys.path:
                sys.path.remove(self._folder)
            os.unlink(self._folder + "/" + self._name)
            os.rmdir(self._folder)
        except OSError:
            return
