"""System calls that the C library has no function for."""

import errno
import os

from sandgate_agent import calls


def make(number: int, *arguments: object) -> int:
    """Make a call by its number; what it answers. Raises ``OSError``. For arguments see :func:`calls.prepare`."""
    prepared = calls.prepare("syscall", number, *arguments)
    result = prepared()
    if result < 0:
        problem = calls.failure(prepared).errno or errno.EINVAL
        raise OSError(problem, os.strerror(problem))
    return result
