"""Calls of the C library that are prepared once, in a zygote, and made by every process that is forked from it.

What a forked interpreter touches is copied page by page, and every function, constant and text of Python's that a call
goes through lies on a page of its own. A prepared call touches itself and its arguments, which lie side by side.
"""

import ctypes
import os
from functools import partial
from typing import Any, Callable, Dict, Iterable

# PyDLL keeps the interpreter's lock during a call: after a clone only one of the two would get it back in order.
_library = ctypes.PyDLL(None)
_error_number = _library["__errno_location"]
_error_number.restype = ctypes.POINTER(ctypes.c_int)
_functions: Dict[str, Any] = {}

Call = Callable[[], int]
"""Makes a call and answers its result; below 0 is a failure."""


def prepare(function: str, *arguments: Any) -> Call:
    """A call of the C library's ``function``.

    An argument is an int of 32 bits, bytes, None, or an object of ctypes; each is as good as kept for ever.
    """
    if function not in _functions:
        _functions[function] = _library[function]
    # Copies lie with the call; what is written in code lies with the code.
    own = [bytes(bytearray(each)) if type(each) is bytes else each for each in arguments]
    return partial(_functions[function], *own)


def run(calls: Iterable[Call]) -> None:
    """Make calls one after the other. Raises ``OSError`` that names the first that fails; the rest is not made."""
    for call in calls:
        if call() < 0:
            raise failure(call)


def failure(call: Call) -> OSError:
    """The error of a prepared call that has just failed."""
    number = _error_number()[0]
    words = [getattr(getattr(call, "func", None), "__name__", "call")]
    words += [part.decode("utf-8", "replace") for part in getattr(call, "args", ()) if isinstance(part, bytes)]
    return OSError(number, "{}: {}".format(" ".join(words), os.strerror(number)))
