"""What code finds when it begins, beyond its environment: standard input, variables, folder, arguments and files.

All of it is laid out by the child, with the powers of the code that it runs.
"""

import os
import sys
import time
from typing import Any, Dict

_STDIN = 0
# A named pipe in the place of a file is refused instead of waited for.
_WRITE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK | os.O_CLOEXEC


class Surroundings:
    """``facts`` measure what is in ``segment``: the code, standard input, and each file, one behind the other."""

    def __init__(self, facts: Dict[str, Any], segment: bytes) -> None:
        end = facts["code_bytes"]
        self._facts = facts
        self.code = segment[:end]
        self.stdin = segment[end : end + facts["stdin_bytes"]]
        self._files = segment[end + facts["stdin_bytes"] :]

    def lay_out(self) -> None:
        """Make it so. Raises ``OSError`` that names the path."""
        facts = self._facts
        os.environ.update(facts["env"])
        if "TZ" in facts["env"]:
            time.tzset()
        offset = 0
        for path, length in facts["files"]:
            _write_file(path, self._files[offset : offset + length])
            offset += length
        if facts["cwd"] is not None:
            _begin_in(facts["cwd"])
        sys.argv[1:] = facts["args"]
        if hasattr(sys, "orig_argv"):
            sys.orig_argv[1:] = sys.argv
        if self.stdin:
            _give_stdin(self.stdin)


def _write_file(path: str, content: bytes) -> None:
    folder = os.path.dirname(path)
    if folder:
        os.makedirs(folder, exist_ok=True)
    descriptor = os.open(path, _WRITE_FLAGS, 0o644)
    try:
        _write_all(descriptor, content)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, content: bytes) -> None:
    while content:
        content = content[os.write(descriptor, content) :]


def _begin_in(folder: str) -> None:
    """As if the code were a file of that folder: what it imports is looked for there."""
    os.chdir(folder)
    os.environ["PWD"] = sys.path[0] = os.getcwd()
    sys.argv[0] = sys.path[0] + "/" + os.path.basename(sys.argv[0])


def _give_stdin(content: bytes) -> None:
    """In memory, so that nobody has to be there to write it, and it is no file of the environment's."""
    descriptor = os.memfd_create("stdin", os.MFD_CLOEXEC)
    _write_all(descriptor, content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.dup2(descriptor, _STDIN)
    os.close(descriptor)
