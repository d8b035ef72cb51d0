"""What is told of exceptions in the cells of a session."""

import io
import sys
import threading
import traceback
from typing import Any, List

from sandgate_agent import tracebacks

PREFIX = "<cell "


def own_trace(error: BaseException) -> Any:
    """The trace from the first line of a cell on, without what is the product's."""
    places: List[Any] = []
    trace = error.__traceback__
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if name.startswith(PREFIX) or (places and "sandgate_agent" not in name):
            places.append(trace)
        trace = trace.tb_next
    following = None
    for place in reversed(places):
        place.tb_next = following
        following = place
    return places[0] if places else None


def _format(error: BaseException) -> str:
    """What the interpreter prints of an uncaught exception, with the text of lines of cells."""
    stderr, sink = sys.stderr, io.StringIO()
    try:
        sys.stderr = sink
        sys.__excepthook__(type(error), error, error.__traceback__)
    finally:
        sys.stderr = stderr
    return tracebacks.format_with_lines(error, sink.getvalue())


def show(error: BaseException) -> str:
    """Print an uncaught exception, as the code's own hook does if it has one; answers its traceback."""
    error.__traceback__ = own_trace(error)
    sys.last_type, sys.last_value, sys.last_traceback = type(error), error, error.__traceback__
    text = _format(error)
    if sys.excepthook is sys.__excepthook__:
        print_error(text, "")
        return text
    try:
        sys.excepthook(type(error), error, error.__traceback__)
    except BaseException as second:
        print_error("Error in sys.excepthook: {!r}".format(second))
    return text


def print_error(text: Any, end: str = "\n") -> None:
    """To the code's stderr, if that can be written to."""
    try:
        sys.stderr.write("{}{}".format(text, end))
    except Exception:
        pass


def show_in_thread(args: Any) -> None:
    """In the place of ``threading.excepthook``."""
    if args.exc_type is SystemExit or sys.stderr is None:
        return
    name = args.thread.name if args.thread is not None else threading.get_ident()
    print_error("Exception in thread {}:".format(name))
    traceback.print_exception(args.exc_type, args.exc_value, args.exc_traceback)
