"""What a session has to show: values as bundles of MIME types, by the display protocol of IPython.

Source: IPython, "Integrating your objects with IPython". A bundle maps a type to a text, bytes as base64, or to a value
where the type is one of JSON.
"""

import binascii
import io
import json
import os
import sys
import threading
import traceback
from typing import Any, Callable, Dict, List, Tuple

from sandgate_agent import session_wire

_METHODS = (
    ("text/html", "_repr_html_"),
    ("text/markdown", "_repr_markdown_"),
    ("image/svg+xml", "_repr_svg_"),
    ("image/png", "_repr_png_"),
    ("image/jpeg", "_repr_jpeg_"),
    ("text/latex", "_repr_latex_"),
    ("application/json", "_repr_json_"),
    ("application/javascript", "_repr_javascript_"),
    ("application/pdf", "_repr_pdf_"),
)
FIGURES = "matplotlib._pylab_helpers"
_MOST_RECORDS = 1000
# As it is sent, with a space behind each sign, it is longer.
_MOST_RECORD_CHARACTERS = session_wire.JSON_LIMIT // 2

Bundle = Dict[str, Any]


def _call(value: Any, name: str) -> Any:
    """What a method of the value's type answers; None where there is none, or none that works."""
    if isinstance(value, type):
        return None
    try:
        method = getattr(value, name, None)
        answer = method() if callable(method) else None
    except NotImplementedError:
        return None
    except Exception:
        # The code's own, of which it is told; what else there is of the value is shown all the same.
        traceback.print_exc()
        return None
    # With metadata, which say how large to draw it.
    return answer[0] if isinstance(answer, tuple) and len(answer) == 2 else answer


def _mimebundle(value: Any) -> Bundle:
    if isinstance(value, type) or not callable(getattr(value, "_repr_mimebundle_", None)):
        return {}
    try:
        answer = value._repr_mimebundle_(include=None, exclude=None)
    except Exception:
        traceback.print_exc()
        return {}
    if isinstance(answer, tuple) and len(answer) == 2:
        answer = answer[0]
    return dict(answer) if isinstance(answer, dict) else {}


def _records(value: Any) -> Any:
    """The rows of a frame of pandas, as many of the first as fit; None for anything else."""
    kind = type(value)
    if kind.__name__ != "DataFrame" or kind.__module__.split(".")[0] != "pandas":
        return None
    try:
        most, text = _MOST_RECORDS, ""
        while not text or (len(text) > _MOST_RECORD_CHARACTERS and most):
            text = value.head(most).to_json(orient="records", date_format="iso")
            # Longer rows may come first.
            most = min(most * 9 // 10, most * _MOST_RECORD_CHARACTERS // len(text))
        return json.loads(text)
    except Exception:
        # Two columns of one name, or values that JSON has no word for: it is shown as a table only.
        return None


def describe(value: Any) -> Bundle:
    """All that a value can be shown as. Raises what its ``repr`` does."""
    if type(value).__module__ == "matplotlib.figure" and FIGURES in sys.modules:
        # It is shown now, and not once more at the end.
        sys.modules[FIGURES].Gcf.destroy_fig(value)
        return figure_bundle(value)
    bundle = _mimebundle(value)
    for kind, name in _METHODS:
        if kind not in bundle:
            answer = _call(value, name)
            if answer is not None:
                bundle[kind] = answer
    if "application/json" not in bundle:
        records = _records(value)
        if records is not None:
            bundle["application/json"] = records
    if "text/plain" not in bundle:
        bundle["text/plain"] = repr(value)
    return bundle


def _is_too_deep(value: Any) -> bool:
    """Whether lists and objects in each other go deeper than is shown."""
    level = [value]
    for _depth in range(session_wire.DEEPEST_JSON):
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list, tuple))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return True


def _encode(kind: str, value: Any) -> bytes:
    """As it is sent. Raises ``TypeError``, ``ValueError``."""
    if session_wire.is_json(kind):
        if isinstance(value, (str, bytes)):
            value = json.loads(value)
        if _is_too_deep(value):
            raise ValueError("too deep")
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        if len(text) > session_wire.JSON_LIMIT:
            raise ValueError("too long")
    elif isinstance(value, (bytes, bytearray, memoryview)):
        return binascii.b2a_base64(value, newline=False)
    elif isinstance(value, str):
        text = value
    else:
        raise TypeError("neither text nor bytes")
    # Half a surrogate pair is in no encoding.
    return text.encode("utf-8", "replace")


class Display:
    """Sends what is shown, as much as the cell may; the rest is counted."""

    def __init__(self, channel: int, write: Callable[[int, bytes], None], confirm: Callable[[int], None]) -> None:
        """``write`` writes all of something; ``confirm`` waits until so many that were shown were taken."""
        self._channel = channel
        self._write = write
        self._confirm = confirm
        self._shown = 0
        self._in_order = False
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._left = self._left_bytes = self._left_json = 0
        self._open = False
        self.dropped = 0
        # Show what was drawn, and is not shown yet.
        self.flushers: List[Callable[[], None]] = []

    def begin(self, most: int, most_bytes: int, in_order: bool) -> None:
        """A cell begins, which may show so much; ``in_order``: what is written after that is to come after it."""
        self._in_order, self._shown, self._left_json = in_order, 0, session_wire.JSON_LIMIT
        self._left, self._left_bytes, self.dropped, self._open = most, most_bytes, 0, True

    def end(self) -> None:
        """The cell is over: what is shown from now on, by its threads, nobody sees."""
        with self._lock:
            self._open = False

    def flush(self) -> None:
        """Show what is drawn."""
        for flush in self.flushers:
            flush()

    def show(self, *values: Any, **options: Any) -> None:
        """``display`` of the code: show values, or with ``raw`` a bundle that is ready."""
        for value in values:
            self.publish(dict(value) if options.get("raw") else describe(value))

    def publish(self, bundle: Bundle) -> None:
        """Show a bundle. What of it has no words on the wire, or is too large, is left out."""
        parts: List[Tuple[bytes, bytes]] = []
        left = self._left_bytes
        for kind, value in list(bundle.items())[: session_wire.MOST_TYPES]:
            try:
                part = kind.encode("ascii"), _encode(kind, value)
            except (AttributeError, TypeError, ValueError, RecursionError):
                self.dropped += 1
                continue
            size = session_wire.measure_part(*part)
            left_json = self._left_json - (len(part[1]) if session_wire.is_json(kind) else 0)
            if size > left or left_json < 0 or "/" not in kind or len(kind) > session_wire.LONGEST_TYPE:
                self.dropped += 1
                continue
            left -= size
            self._left_json = left_json
            parts.append(part)
        if parts:
            self._send(session_wire.pack_bundle(parts))

    def say(self, kind: bytes) -> None:
        """Send a frame that is nothing but its kind, and cuts none in two that a thread sends."""
        with self._lock:
            self._write(self._channel, session_wire.pack_frame(kind, b""))

    def _send(self, body: bytes) -> None:
        with self._lock:
            if not self._open or os.getpid() != self._pid:
                # A thread of a cell that is over, or a process that a cell has forked: the channel is not theirs.
                return
            if not self._left or len(body) > self._left_bytes:
                self.dropped += 1
                return
            self._left -= 1
            self._left_bytes -= len(body)
            self._shown += 1
            self._write(self._channel, session_wire.pack_frame(session_wire.RESULT, body))
            if self._in_order:
                self._confirm(self._shown)


def figure_bundle(figure: Any) -> Bundle:
    """A figure of matplotlib as a picture."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight")
    return {"image/png": buffer.getvalue(), "text/plain": repr(figure)}
