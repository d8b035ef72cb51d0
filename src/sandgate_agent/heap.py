"""Where objects lie in memory: what is used together is made together, on pages that hold nothing else.

A page that a forked interpreter writes to is copied, and every use of an object writes its reference count. The
interpreter puts a new object where one of its size has gone, anywhere among a few megabytes. The zygote therefore loads
what it needs of the standard library first, fills those gaps, and only then makes what its forks will use.
"""

# What this package imports, so that it does not come between its own objects; a test compares.
import _signal  # noqa: F401
import _thread  # noqa: F401
import atexit  # noqa: F401
import collections  # noqa: F401
import ctypes  # noqa: F401
import errno  # noqa: F401
import functools  # noqa: F401
import gc
import importlib  # noqa: F401
import io  # noqa: F401
import json  # noqa: F401
import linecache  # noqa: F401
import marshal  # noqa: F401
import os  # noqa: F401
import stat  # noqa: F401
import struct  # noqa: F401
import sys
import threading  # noqa: F401
import time  # noqa: F401
import traceback  # noqa: F401
import types  # noqa: F401
import typing  # noqa: F401
from typing import Callable, List

# Source: Objects/obmalloc.c: sizes are multiples of 16 bytes up to 512, each with pools of its own, and the first
# object of a pool lies behind the pool's header.
_STEP_BYTES = 16
_LARGEST_BYTES = 512
_POOL_BYTES = 4096 if sys.version_info < (3, 10) else 16384
_HEADER_BYTES = 48
_EMPTY_BYTES_OBJECT = sys.getsizeof(b"")
# Far more than there are gaps, in case that this interpreter's pools are not what is expected.
_MOST = 4096

_fillers: List[object] = []


def _make_of(size: int) -> Callable[[], object]:
    """What makes an object of a size."""
    if size <= _STEP_BYTES:
        return object
    if size <= 2 * _STEP_BYTES:
        return lambda: len(_fillers) + 1e9
    return lambda: bytes(size - _EMPTY_BYTES_OBJECT)


def begin_fresh_pages() -> None:
    """Fill all gaps, for good: what is made from now on lies together."""
    # A full collection empties the lists of objects that are kept for use again.
    gc.collect()
    for size in range(_LARGEST_BYTES, 0, -_STEP_BYTES):
        make = _make_of(size)
        for _ in range(_MOST):
            filler = make()
            _fillers.append(filler)
            if id(filler) % _POOL_BYTES == _HEADER_BYTES:
                break
